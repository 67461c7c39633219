//! `/api/wifi`: the wireless network, for a phone that is in the access point. And what phones ask
//! there by themselves, to find out whether there is an Internet: they are shown the page.

use super::Context;
use super::server::plain;
use super::settings::{Body, change, next, wrong_method};
use crate::config::{Config, Wifi, place};
use crate::system::mdns::host_name;
use crate::system::wifi::ADDRESS;
use hyper::header::{HeaderMap, HeaderValue, LOCATION};
use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use warp::Reply;
use warp::reply::Response;

/// Longer requests are none.
const MAX_REQUEST: usize = 4096;

/// What is asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    ssid: String,
    psk: Option<String>,
    country: String,
}

/// What `berrymse wifi` knows; nothing where there is no radio that it keeps.
fn report(context: &Context) -> Option<Value> {
    let text = std::fs::read(&context.settings.wifi).ok()?;
    serde_json::from_slice::<Value>(&text).ok().filter(Value::is_object)
}

/// While the access point is open every name leads here. Who asks for one of somebody else gets the
/// page: iOS, Android, Windows and the desktops then show it by themselves.
pub(super) fn captive(context: &Context, method: &Method, headers: &HeaderMap) -> Option<Response> {
    if !matches!(*method, Method::GET | Method::HEAD) || context.door.is_ours(headers) {
        return None;
    }
    report(context)?.get("access_point")?.as_str()?;
    let mut response = plain(StatusCode::FOUND, "this is BerryMSE's access point");
    let page = HeaderValue::try_from(format!("http://{ADDRESS}/settings.html")).ok()?;
    response.headers_mut().insert(LOCATION, page);
    Some(response)
}

/// `GET /api/wifi`, `PUT /api/wifi`
pub(super) async fn wifi(
    method: Method,
    context: Arc<Context>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    if let Err(refusal) = context.door.check_own_page(&headers) {
        return plain(refusal.status, &refusal.message);
    }
    match method {
        Method::GET | Method::HEAD => warp::reply::json(&state(&context)).into_response(),
        Method::PUT => put(&context, body).await.unwrap_or_else(|refusal| refusal),
        _ => wrong_method("GET, HEAD, PUT"),
    }
}

fn state(context: &Context) -> Value {
    let Some(mut report) = report(context) else { return json!({ "available": false }) };
    report["available"] = true.into();
    report["host"] = host_name().into();
    let configured = Config::load(&context.settings.file).ok().and_then(|file| file.network.wifi);
    if let Some(wifi) = configured {
        report["ssid"] = wifi.ssid.into();
        report["country"] = wifi.country.into();
    }
    report
}

async fn put(context: &Context, mut body: Body) -> Result<Response, Response> {
    let mut text = vec![];
    while let Some(piece) =
        next(&mut body).await.map_err(|error| plain(StatusCode::BAD_REQUEST, &error))?
    {
        if text.len() + piece.len() > MAX_REQUEST {
            return Err(plain(StatusCode::PAYLOAD_TOO_LARGE, "that is too long"));
        }
        text.extend_from_slice(&piece);
    }
    let wish: Wish = serde_json::from_slice(&text)
        .map_err(|error| plain(StatusCode::BAD_REQUEST, &error.to_string()))?;
    if report(context).is_none() {
        let message = "this machine has no wireless network that is set from here";
        return Err(plain(StatusCode::NOT_IMPLEMENTED, message));
    }
    change(context, &HeaderMap::new(), |old| with_wifi(old, &wish).map_err(|why| (why, None))).await
}

/// The text of a configuration with that network, and otherwise as it was.
fn with_wifi(text: &str, wish: &Wish) -> Result<String, String> {
    // A string of JSON is one of TOML.
    let quoted = |text: &str| serde_json::to_string(text).unwrap_or_default();
    let psk = wish.psk.as_deref().map(|psk| format!("psk = {}, ", quoted(psk)));
    let (ssid, psk, country) = (quoted(&wish.ssid), psk.unwrap_or_default(), quoted(&wish.country));
    let value = format!("{{ ssid = {ssid}, {psk}country = {country} }}");
    // First by itself, so that an error is about what was asked for.
    let alone =
        Config::parse(&format!("[network]\nwifi = {value}\n"), "").map_err(|e| e.message)?;
    Config::parse(text, "").map_err(|error| {
        let line = error.at.map(|at| format!("line {}: ", at.0)).unwrap_or_default();
        format!("the configuration has another mistake that has to be mended first: {line}{error}")
    })?;
    let mut new = text.to_string();
    match place(text, &["network", "wifi"]) {
        Some(place) => new.replace_range(place, &value),
        None => match after_network(text) {
            Some(at) => new.insert_str(at, &format!("wifi = {value}\n")),
            None => {
                let gap = if new.is_empty() || new.ends_with('\n') { "" } else { "\n" };
                new.push_str(&format!("{gap}\n[network]\nwifi = {value}\n"));
            }
        },
    }
    match Config::parse(&new, "") {
        Ok(config) if is(&config.network.wifi, &alone.network.wifi) => Ok(new),
        _ => {
            Err("wifi stands in the configuration in a way that is not changed from here: change \
                  it in the text"
                .into())
        }
    }
}

fn is(one: &Option<Wifi>, other: &Option<Wifi>) -> bool {
    one.is_some() && one == other
}

/// Where a line of `[network]` can be put in: behind the line that shows what one looks like, else
/// behind the table's head.
fn after_network(text: &str) -> Option<usize> {
    let mut at = 0;
    let mut place = None;
    for line in text.split_inclusive('\n') {
        at += line.len();
        let words = line.trim();
        if words.starts_with('[') {
            if place.is_some() {
                break;
            }
            let head = words.split('#').next().unwrap_or_default();
            if head.split_whitespace().collect::<String>() == "[network]" && line.ends_with('\n') {
                place = Some(at);
            }
        } else if place.is_some() && words.starts_with("#wifi =") && line.ends_with('\n') {
            place = Some(at);
        }
    }
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(ssid: &str, psk: Option<&str>) -> Wish {
        Wish { ssid: ssid.into(), psk: psk.map(Into::into), country: "de".into() }
    }

    #[test]
    fn the_rest_of_the_text_stays() {
        let shipped = include_str!("../../appliance/berrymse.toml");
        let new = with_wifi(shipped, &wish("a \"b\"\\ä", Some("pass # word"))).unwrap();
        let line = r#"wifi = { ssid = "a \"b\"\\ä", psk = "pass # word", country = "de" }"#;
        let (before, after) = new.split_once(&format!("{line}\n")).unwrap();
        assert_eq!(format!("{before}{after}"), shipped);
        assert!(before.ends_with("country = \"DE\" }\n"), "behind the line that shows how");
        let wifi = Config::parse(&new, "").unwrap().network.wifi.unwrap();
        assert_eq!((wifi.ssid.as_str(), wifi.country.as_str()), ("a \"b\"\\ä", "DE"));
        // Changed again, in its place.
        let again = with_wifi(&new, &wish("c", None)).unwrap();
        assert_eq!(again, new.replace(line, r#"wifi = { ssid = "c", country = "de" }"#));
        for (text, expected) in [
            ("", "\n[network]\nwifi = V\n"),
            ("[system]\nhostname = \"x\"", "[system]\nhostname = \"x\"\n\n[network]\nwifi = V\n"),
            (
                "[network] # x\naddress = \"dhcp\"\n",
                "[network] # x\nwifi = V\naddress = \"dhcp\"\n",
            ),
            ("[network]", ""),
        ] {
            let new = with_wifi(text, &wish("c", None));
            let expected = expected.replace('V', r#"{ ssid = "c", country = "de" }"#);
            assert_eq!(new.unwrap_or_default(), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_is_said() {
        let says = |text: &str, wish| with_wifi(text, &wish).unwrap_err();
        assert!(says("", wish("", None)).contains("1 to 32"));
        assert!(says("", wish("x", Some("short"))).contains("8 to 63"));
        assert!(says("[network\n", wish("x", None)).contains("another mistake"));
        let table = "[network.wifi]\nssid = \"x\"\ncountry = \"DE\"\n";
        assert!(says(table, wish("y", None)).contains("in the text"));
    }
}
