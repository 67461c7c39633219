//! The announcement of an update: a small JSON file.
//!
//! ```json
//! {"version": "1.3.0", "url": "berrymse-1.3.0.raucb"}
//! ```
//!
//! The URL can be relative to that of the announcement. Other fields are ignored. Only the version
//! and the signature in the bundle itself determine whether the bundle is installed.

use crate::update::error::UpdateError;
use serde::Deserialize;

/// The newest version and its bundle.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Announcement {
    pub(super) version: String,
    /// URL of the bundle.
    pub(super) url: String,
}

/// Parses the announcement `text`, which was fetched from `from`.
pub(crate) fn parse(text: &str, from: &str) -> Result<Announcement, UpdateError> {
    let mut announcement: Announcement = serde_json::from_str(text)
        .map_err(|error| UpdateError::Announcement { url: from.into(), error })?;
    if !announcement.url.contains("://") {
        // Relative to the announcement.
        let folder = from.rsplit_once('/').map_or(from, |(folder, _)| folder);
        announcement.url = format!("{folder}/{}", announcement.url.trim_start_matches("./"));
    }
    match is_web_address(&announcement.url) {
        true => Ok(announcement),
        false => Err(UpdateError::AnnouncedUrl { url: from.into(), bundle: announcement.url }),
    }
}

/// Returns whether `url` is an http or https URL. RAUC would also open local files.
pub fn is_web_address(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    rest.is_some_and(|rest| !rest.is_empty())
        && !url.contains(|c: char| c.is_whitespace() || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_relative_and_absolute_web_addresses_only() {
        let from = "https://example.org/cam/berrymse.json";
        let url = |url: &str| {
            parse(&format!("{{\"version\": \"1.3\", \"url\": {url:?}, \"sha256\": \"\"}}"), from)
                .map(|announcement| announcement.url)
        };
        assert_eq!(url("new.raucb").unwrap(), "https://example.org/cam/new.raucb");
        assert_eq!(url("http://other/x").unwrap(), "http://other/x");
        for bad in ["file:///etc/shadow", "http://", "https://a b/"] {
            assert!(url(bad).is_err(), "{bad}");
        }
        let error = parse("<html>", from).unwrap_err();
        assert!(error.to_string().contains("not a valid update announcement"), "{error}");
    }
}
