//! Passwords in a configuration: masked before it is shown, restored before it is saved.

use super::edit::span_of;
use super::error::line_column;
use super::{Config, ConfigError, Source};

/// The text shown in place of a password.
const MASK: &str = "\"********\"";

/// Keys whose values are passwords.
const SECRETS: [&[&str]; 2] = [&["server", "password"], &["network", "wifi", "psk"]];

/// Returns the text with its passwords masked.
///
/// # Errors
///
/// The text is invalid, so its passwords cannot be found, or a command contains a password.
pub fn masked(text: &str) -> Result<String, ConfigError> {
    let Ok(config) = Config::parse(text, "") else {
        let message = "the file is invalid, so its passwords cannot be masked, and a server without \
                       a password does not show it: correct it on the machine itself, or save a new \
                       configuration";
        return Err(ConfigError::new(message, None));
    };
    let has_password = |word: &String| without_password(word) != *word;
    if config.cameras.iter().any(|camera| match &camera.source {
        Some(Source::Command(command)) => command.iter().any(has_password),
        _ => false,
    }) {
        let message = "a camera's command contains a password, and a server without a password \
                       does not show such a file: set a password under [server] in the file itself";
        return Err(ConfigError::new(message, None));
    }
    Ok(replace_secrets(text, |_| Some(MASK.into())))
}

/// Returns the text with its masks replaced by the passwords from `old`.
///
/// # Errors
///
/// A mask stands for a password that `old` does not have.
pub fn unmasked(text: &str, old: &str) -> Result<String, ConfigError> {
    let is_mask = |key: &[&str]| span_of(text, key).is_some_and(|span| &text[span] == MASK);
    for key in SECRETS.iter().filter(|key| is_mask(key)) {
        if span_of(old, key).is_none() {
            let at = span_of(text, key).map(|span| line_column(text, span.start));
            let key = key.join(".");
            let message = format!("{MASK} keeps the current {key}, but none is set");
            return Err(ConfigError::new(message, at));
        }
    }
    Ok(replace_secrets(text, |key| {
        is_mask(key).then(|| span_of(old, key).map(|span| old[span].to_string()))?
    }))
}

/// Replaces the values of passwords, from the last to the first, so that positions stay valid.
fn replace_secrets(text: &str, by: impl Fn(&[&str]) -> Option<String>) -> String {
    let mut spans: Vec<_> =
        SECRETS.iter().filter_map(|key| Some((span_of(text, key)?, by(key)?))).collect();
    spans.sort_by_key(|(span, _)| std::cmp::Reverse(span.start));
    spans.into_iter().fold(text.to_string(), |mut text, (span, value)| {
        text.replace_range(span, &value);
        text
    })
}

/// Masks the user name and the password in a URL such as `rtsp://user:password@camera/`.
pub fn without_password(word: &str) -> String {
    let hidden = || {
        let (scheme, rest) = word.split_once("://")?;
        let (user, host) = rest.split('/').next()?.rsplit_once('@')?;
        let path = &rest[user.len() + 1 + host.len()..];
        Some(format!("{scheme}://***@{host}{path}"))
    };
    hidden().unwrap_or_else(|| word.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\u{feff}# ä\n[network.wifi] # home\nssid = \"x\"\npsk = 'a \"secret\"' # !\n\
                        country = \"DE\"\n[server]\npassword = \"\"\"pass\nword\"\"\"\n";

    #[test]
    fn masks_passwords_and_restores_them() {
        let masked = masked(TEXT).unwrap();
        assert!(!masked.contains("secret") && !masked.contains("word\""), "{masked}");
        assert!(masked.contains("psk = \"********\" # !\n"), "{masked}");
        assert_eq!(unmasked(&masked, TEXT).unwrap(), TEXT);
        let changed = masked.replace("\"x\"", "\"new\"");
        assert_eq!(unmasked(&changed, TEXT).unwrap(), TEXT.replace("\"x\"", "\"new\""));
        let new = "[server]\npassword = \"new\"\n";
        assert_eq!(unmasked(new, TEXT).unwrap(), new);
        assert_eq!(unmasked(&masked, "").unwrap_err().at, Some((7, 12)));
    }

    #[test]
    fn withholds_passwords_that_cannot_be_masked() {
        assert!(masked("[server\npassword = \"secret\"\n").is_err());
        let command = |word: &str| format!("[[camera]]\nsource = {{ command = [{word:?}] }}\n");
        assert!(masked(&command("rtsp://me:secret@cam/")).is_err());
        assert!(masked(&command("rtsp://cam/")).is_ok());
    }

    #[test]
    fn hides_passwords_in_camera_urls() {
        assert_eq!(without_password("rtsp://me:secret@cam/live"), "rtsp://***@cam/live");
        assert_eq!(without_password("http://cam/a@b"), "http://cam/a@b");
        assert_eq!(without_password("-i"), "-i");
    }
}
