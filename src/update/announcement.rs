//! The announcement of an update: a small JSON file.
//!
//! ```json
//! {"version": "1.3.0", "url": "berrymse-1.3.0.raucb"}
//! ```
//!
//! The url may be relative to the address of the announcement. Other fields are ignored. Only the
//! version and the signature in the bundle itself decide whether it is installed.

use serde::Deserialize;

/// What is announced. Other fields may be there and mean nothing here.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Manifest {
    pub(super) version: String,
    pub(super) url: String,
}

pub(crate) fn read(text: &str, from: &str) -> Result<Manifest, String> {
    let mut manifest: Manifest = serde_json::from_str(text)
        .map_err(|error| format!("{from} is no announcement of an update: {error}"))?;
    if !manifest.url.contains("://") {
        // Beside the announcement.
        let folder = from.rsplit_once('/').map_or(from, |(folder, _)| folder);
        manifest.url = format!("{folder}/{}", manifest.url.trim_start_matches("./"));
    }
    match is_web_address(&manifest.url) {
        true => Ok(manifest),
        false => Err(format!("{from} names {:?}, which is no web address", manifest.url)),
    }
}

/// What RAUC may be sent to fetch: it would open files, too.
pub fn is_web_address(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    rest.is_some_and(|rest| !rest.is_empty())
        && !url.contains(|c: char| c.is_whitespace() || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announcements() {
        let from = "https://example.org/cam/berrymse.json";
        let url = |url: &str| {
            read(&format!("{{\"version\": \"1.3\", \"url\": {url:?}, \"sha256\": \"\"}}"), from)
                .map(|manifest| manifest.url)
        };
        assert_eq!(url("new.raucb").unwrap(), "https://example.org/cam/new.raucb");
        assert_eq!(url("http://other/x").unwrap(), "http://other/x");
        for bad in ["file:///etc/shadow", "http://", "https://a b/"] {
            assert!(url(bad).is_err(), "{bad}");
        }
        assert!(read("<html>", from).unwrap_err().contains("no announcement"));
    }
}
