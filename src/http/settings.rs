//! `/api/config` and `/api/reboot`: what can be changed from the page.
//!
//! Only from our own page, or by a program: other sites may show the picture where `origins` says
//! so, but never change anything. Two things stay out of reach in any case. Passwords are shown to
//! those only who have given one: where the server is open, each reads `********`, and saving that
//! keeps it. And which programs run and who may log in is never taken from the network: a `command`
//! or an SSH key must stand in the file already.

use super::Context;
use super::server::plain;
use crate::camera::without_password;
use crate::config::{
    Camera, Config, ConfigError, MAX_CONFIG, Network, Source, System, line_column, place,
};
use crate::system::helper::{self, Refused, no_new_key};
use crate::system::without_wifi;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use hyper::header::{ALLOW, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_MATCH};
use hyper::{Method, StatusCode};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use warp::Reply;
use warp::reply::Response;

/// A sender that sends nothing for so long has gone.
const SILENCE: Duration = Duration::from_secs(30);

/// Stands for a password that is there and not shown.
const MASK: &str = "\"********\"";

/// Where passwords stand.
const SECRETS: [&[&str]; 2] = [&["server", "password"], &["network", "wifi", "psk"]];

/// The body of a request, piece by piece.
pub(super) type Body = Pin<Box<dyn Stream<Item = Result<Bytes, String>> + Send>>;

/// The next piece of a body.
pub(super) async fn next(body: &mut Body) -> Result<Option<Bytes>, String> {
    match tokio::time::timeout(SILENCE, body.next()).await {
        Ok(piece) => piece.transpose(),
        Err(_) => Err(format!("nothing came for {} s", SILENCE.as_secs())),
    }
}

/// The configuration's file, and who does what with it.
#[derive(Debug, Default)]
pub struct Settings {
    /// The file.
    pub file: PathBuf,
    /// Where the helper listens, on an appliance.
    pub helper: PathBuf,
    /// What `berrymse wifi` says of the wireless network.
    pub wifi: PathBuf,
    /// What is wrong with the file, and what is in force in its place.
    pub problem: Option<String>,
    /// What the machine was set up with when it started.
    pub at_start: (System, Network),
    /// What is in force differs from that.
    pub reboot: bool,
    /// Told when there is a new configuration.
    pub changed: Arc<Notify>,
    /// One at a time.
    pub writing: tokio::sync::Mutex<()>,
}

impl Settings {
    /// Whether this is more than the running machine obeys at once.
    pub fn needs_restart(&self, new: &Config) -> bool {
        let (system, network) = &self.at_start;
        new.system != *system || without_wifi(&new.network) != without_wifi(network)
    }
}

/// `GET /api/config`, `PUT /api/config`
pub(super) async fn config(
    method: Method,
    context: Arc<Context>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    if let Err(refusal) = context.door.check_own_page(&headers) {
        return plain(refusal.status, &refusal.message);
    }
    let result = match method {
        Method::GET | Method::HEAD => get(&context),
        Method::PUT => put(&context, &headers, body).await,
        _ => return wrong_method("GET, HEAD, PUT"),
    };
    result.unwrap_or_else(|refusal| refusal)
}

/// `POST /api/reboot`
pub(super) async fn reboot(method: Method, context: Arc<Context>, headers: HeaderMap) -> Response {
    if let Err(refusal) = context.door.check_own_page(&headers) {
        return plain(refusal.status, &refusal.message);
    }
    if method != Method::POST {
        return wrong_method("POST");
    }
    match ask_helper(&context.settings, "reboot", String::new()).await {
        Ok(()) => plain(StatusCode::ACCEPTED, "it restarts now"),
        Err(Refused::NoHelper) => plain(
            StatusCode::NOT_IMPLEMENTED,
            "this machine is not restarted from here: that is for the appliance",
        ),
        Err(Refused::Because(why)) => plain(StatusCode::INTERNAL_SERVER_ERROR, &why),
    }
}

/// An answer to a method that there is not.
pub(super) fn wrong_method(allowed: &'static str) -> Response {
    let message = format!("this takes {allowed}");
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, &message);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

async fn ask_helper(settings: &Settings, verb: &'static str, text: String) -> Result<(), Refused> {
    let socket = settings.helper.clone();
    let asked = tokio::task::spawn_blocking(move || helper::ask(&socket, verb, &text)).await;
    asked.unwrap_or_else(|error| Err(Refused::Because(error.to_string())))
}

fn tag(text: &[u8]) -> String {
    let hash = Sha256::digest(text);
    format!("\"{}\"", hash[..12].iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

// The answer that ends it early is as large as any answer.
#[allow(clippy::result_large_err)]
fn get(context: &Context) -> Result<Response, Response> {
    let file = &context.settings.file;
    let text = match Config::read(file) {
        Ok(text) => text,
        Err(error) => {
            let hint = "what you save becomes it";
            return Err(plain(StatusCode::NOT_FOUND, &format!("{error}; {hint}")));
        }
    };
    let etag = tag(text.as_bytes());
    let shown = match context.door.is_open() {
        true => masked(&text).map_err(|why| plain(StatusCode::FORBIDDEN, &why))?,
        false => text,
    };
    let mut response = Response::new(shown.into());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.extend(HeaderValue::try_from(etag).map(|tag| (ETAG, tag)));
    Ok(response)
}

/// The text without its passwords. The error says why it cannot be shown.
fn masked(text: &str) -> Result<String, String> {
    let Ok(config) = Config::parse(text, "") else {
        return Err(
            "the file has a mistake, so nobody can tell where in it passwords are, and it \
                    is not shown without one: mend it where it lies, or save a new one"
                .into(),
        );
    };
    let tells = |word: &String| without_password(word) != *word;
    if config.cameras.iter().any(|camera| match &camera.source {
        Some(Source::Command(command)) => command.iter().any(tells),
        _ => false,
    }) {
        return Err("a camera's command has a password in it, so the file is not shown without \
                    one: set a password where the file lies, under [server]"
            .into());
    }
    Ok(replace_secrets(text, |_| Some(MASK.into())))
}

/// Replaces the values of passwords, from the last to the first.
fn replace_secrets(text: &str, by: impl Fn(&[&str]) -> Option<String>) -> String {
    let mut places: Vec<_> =
        SECRETS.iter().filter_map(|key| Some((place(text, key)?, by(key)?))).collect();
    places.sort_by_key(|(place, _)| std::cmp::Reverse(place.start));
    places.into_iter().fold(text.to_string(), |mut text, (place, value)| {
        text.replace_range(place, &value);
        text
    })
}

/// The text with the passwords that `old` has where it has masks.
fn unmasked(text: &str, old: &str) -> Result<String, (String, Option<(usize, usize)>)> {
    let is_mask = |key: &[&str]| place(text, key).is_some_and(|place| &text[place] == MASK);
    for key in SECRETS.iter().filter(|key| is_mask(key)) {
        if place(old, key).is_none() {
            let at = place(text, key).map(|place| line_column(text, place.start));
            let what = key.join(".");
            return Err((format!("{MASK} stands for a {what} that is set, but none is"), at));
        }
    }
    Ok(replace_secrets(text, |key| {
        is_mask(key).then(|| place(old, key).map(|place| old[place].to_string()))?
    }))
}

async fn put(context: &Context, headers: &HeaderMap, mut body: Body) -> Result<Response, Response> {
    let mut text = vec![];
    while let Some(piece) =
        next(&mut body).await.map_err(|error| plain(StatusCode::BAD_REQUEST, &error))?
    {
        if text.len() + piece.len() > MAX_CONFIG {
            let message = format!("a configuration has at most {MAX_CONFIG} bytes");
            return Err(plain(StatusCode::PAYLOAD_TOO_LARGE, &message));
        }
        text.extend_from_slice(&piece);
    }
    let text = String::from_utf8(text).map_err(|_| wrong("this is not UTF-8 text", None))?;
    change(context, headers, |old| unmasked(&text, old)).await
}

/// Saves what `new` makes of the text that is there, if it is good, and puts it in force.
pub(super) async fn change(
    context: &Context,
    headers: &HeaderMap,
    new: impl FnOnce(&str) -> Result<String, (String, Option<(usize, usize)>)>,
) -> Result<Response, Response> {
    let settings = &context.settings;
    let _one_at_a_time = settings.writing.lock().await;
    let old = Config::read(&settings.file).ok();
    if let Some(expected) = headers.get(IF_MATCH) {
        let now = old.as_ref().map(|old| tag(old.as_bytes()));
        if now.as_deref() != expected.to_str().ok() {
            return Err(plain(
                StatusCode::PRECONDITION_FAILED,
                "somebody else has changed the configuration: load it again",
            ));
        }
    }
    let old = old.unwrap_or_default();
    let text = new(&old).map_err(|(why, at)| wrong(&why, at))?;
    let file = settings.file.display().to_string();
    let config = Config::parse(&text, &file).map_err(|e| wrong(&e.message, e.at))?;
    let old = Config::parse(&old, "").unwrap_or_default();
    // With a mistake in the file, what is in force comes from elsewhere.
    let mut cameras = old.cameras;
    cameras.extend(context.cameras.iter().map(|camera| camera.config.clone()));
    no_new_command(&config, &cameras, &file).map_err(|e| wrong(&e.message, e.at))?;
    let mut keys = old.system.ssh_keys;
    keys.extend_from_slice(&settings.at_start.0.ssh_keys);
    no_new_key(&text, &config, &keys).map_err(|(why, at)| wrong(&why, at))?;
    save(settings, text).await?;
    log::info!("the configuration was changed over the network");
    settings.changed.notify_one();
    let reboot = settings.needs_restart(&config);
    Ok(warp::reply::json(&json!({ "reboot": reboot })).into_response())
}

/// What the page shows at the line where it is wrong.
fn wrong(message: &str, at: Option<(usize, usize)>) -> Response {
    let answer =
        json!({ "error": message, "line": at.map(|at| at.0), "column": at.map(|at| at.1) });
    warp::reply::with_status(warp::reply::json(&answer), StatusCode::UNPROCESSABLE_ENTITY)
        .into_response()
}

fn no_new_command(new: &Config, known: &[Camera], file: &str) -> Result<(), ConfigError> {
    for camera in &new.cameras {
        if let Some(Source::Command(_)) = &camera.source
            && !known.iter().any(|known| known.source == camera.source)
        {
            return Err(ConfigError {
                file: file.into(),
                at: None,
                message: format!(
                    "camera {:?} has a new command: which programs run is never taken from the \
                     network; write it into {file} where that lies",
                    camera.name
                ),
            });
        }
    }
    Ok(())
}

async fn save(settings: &Settings, text: String) -> Result<(), Response> {
    match ask_helper(settings, "save-config", text.clone()).await {
        Ok(()) => return Ok(()),
        Err(Refused::Because(why)) => {
            return Err(plain(StatusCode::INTERNAL_SERVER_ERROR, &why));
        }
        Err(Refused::NoHelper) => {}
    }
    // A link to the file stays one.
    let file = std::fs::canonicalize(&settings.file).unwrap_or_else(|_| settings.file.clone());
    let written = tokio::task::spawn_blocking(move || {
        use std::os::unix::fs::PermissionsExt;
        let mode = file.metadata().map_or(0o640, |there| there.permissions().mode() & 0o777);
        crate::system::replace(&file, text.as_bytes(), mode)
    })
    .await;
    let error = match written {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error,
        Err(error) => std::io::Error::other(error),
    };
    use std::io::ErrorKind::{NotFound, PermissionDenied, ReadOnlyFilesystem};
    let status = match error.kind() {
        PermissionDenied | ReadOnlyFilesystem | NotFound => StatusCode::FORBIDDEN,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let file = settings.file.display();
    Err(plain(
        status,
        &format!(
            "{file} cannot be written from here: {error}; change it on this machine, or give the \
             user that berrymse runs as the right to write in its folder"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\u{feff}# ä\n[network.wifi] # home\nssid = \"x\"\npsk = 'a \"secret\"' # !\n\
                        country = \"DE\"\n[server]\npassword = \"\"\"pass\nword\"\"\"\n";

    #[test]
    fn passwords_are_masked_and_come_back() {
        let masked = masked(TEXT).unwrap();
        assert!(!masked.contains("secret") && !masked.contains("word\""), "{masked}");
        assert!(masked.contains("psk = \"********\" # !\n"), "{masked}");
        assert_eq!(unmasked(&masked, TEXT).unwrap(), TEXT);
        let changed = masked.replace("\"x\"", "\"new\"");
        assert_eq!(unmasked(&changed, TEXT).unwrap(), TEXT.replace("\"x\"", "\"new\""));
        let new = "[server]\npassword = \"new\"\n";
        assert_eq!(unmasked(new, TEXT).unwrap(), new);
        assert_eq!(unmasked(&masked, "").unwrap_err().1, Some((7, 12)));
    }

    #[test]
    fn what_cannot_be_masked_is_not_shown() {
        assert!(masked("[server\npassword = \"secret\"\n").is_err());
        let command = |word: &str| format!("[[camera]]\nsource = {{ command = [{word:?}] }}\n");
        assert!(masked(&command("rtsp://me:secret@cam/")).is_err());
        assert!(masked(&command("rtsp://cam/")).is_ok());
    }
}
