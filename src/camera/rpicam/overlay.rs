//! The text in the picture, drawn by rpicam-vid's post-processing stage `annotate_cv`.
//!
//! The stage needs OpenCV. rpicam-apps-lite and Buildroot's rpicam-apps lack it. rpicam-vid reports a
//! missing stage on standard error and continues without it.

use crate::config::sensor::Overlay;

/// What rpicam-vid writes if the stage is missing (`core/post_processor.cpp`, every version).
const MISSING: &str = "No post processing stage found for \"annotate_cv\"";

/// Returns the post-processing file for an overlay.
///
/// The stage passes the text to strftime(3). The name cannot contain a `%`, and consists of letters,
/// digits, `-` and `_`; other characters are left out.
pub(super) fn post_processing(overlay: Overlay, name: &str) -> Option<String> {
    let time = "%Y-%m-%d %H:%M:%S";
    let text = match overlay {
        Overlay::Off => return None,
        Overlay::Time => time.into(),
        Overlay::NameTime => {
            let is_valid = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
            format!("{} {time}", name.chars().filter(is_valid).collect::<String>())
        }
    };
    let stage = serde_json::json!({
        "text": text, "fg": 255, "bg": 0, "scale": 1.0, "thickness": 2, "alpha": 0.3,
    });
    Some(serde_json::json!({ "annotate_cv": stage }).to_string())
}

/// Returns a note if a line of standard error says that the stage is missing.
pub(super) fn note(line: &str) -> Option<String> {
    line.contains(MISSING).then(|| {
        "overlay: the installed rpicam-vid cannot draw text, because it lacks the stages that use \
         OpenCV (on Raspberry Pi OS, run sudo apt install rpicam-apps)"
            .into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(overlay: Overlay, name: &str) -> String {
        let file = post_processing(overlay, name).unwrap();
        let file: serde_json::Value = serde_json::from_str(&file).unwrap();
        file["annotate_cv"]["text"].as_str().unwrap().into()
    }

    #[test]
    fn shows_the_name_and_the_time() {
        assert_eq!(post_processing(Overlay::Off, "front"), None);
        assert_eq!(text(Overlay::Time, "front"), "%Y-%m-%d %H:%M:%S");
        assert_eq!(text(Overlay::NameTime, "front-2"), "front-2 %Y-%m-%d %H:%M:%S");
        assert_eq!(text(Overlay::NameTime, "a%n\"\\b"), "anb %Y-%m-%d %H:%M:%S");
    }

    #[test]
    fn reports_a_missing_stage() {
        assert!(note("No post processing stage found for \"annotate_cv\"").is_some());
        assert_eq!(note("Reading post processing stage \"annotate_cv\""), None);
    }
}
