//! What is known about the last switch, in `/data`, and the report for the page.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;

/// A switch to the other half that is not confirmed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Identity of the new set.
    pub identity: String,
    /// First sector of the half that contains it.
    pub start: u64,
    /// Digest of berrymse.toml in both halves at the switch.
    pub config: String,
    /// Whether sector 0 was written. If this is false, it may have been written or not.
    pub switched: bool,
}

/// The state, a text of lines `NAME=VALUE`.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct State {
    /// The switch to be confirmed.
    pub pending: Option<Pending>,
    /// Identity of the set that did not lead to a healthy system.
    pub failed: Option<String>,
    /// What the user should know about the files in use, or empty.
    pub note: String,
}

impl State {
    /// Parses the text. Invalid lines are ignored.
    pub fn parse(text: &str) -> State {
        let field = |name: &str| {
            let mut values = text.lines().filter_map(|line| line.split_once('='));
            values.find(|(found, _)| *found == name).map(|(_, value)| value.to_string())
        };
        let pending = || {
            Some(Pending {
                identity: field("identity")?,
                start: field("start")?.parse().ok()?,
                config: field("config")?,
                switched: field("switched")? == "yes",
            })
        };
        State {
            pending: pending(),
            failed: field("failed"),
            note: field("note").unwrap_or_default(),
        }
    }

    /// Returns the state as text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if let Some(pending) = &self.pending {
            let switched = if pending.switched { "yes" } else { "no" };
            text += &format!(
                "identity={}\nstart={}\nconfig={}\nswitched={switched}\n",
                pending.identity, pending.start, pending.config
            );
        }
        if let Some(failed) = &self.failed {
            text += &format!("failed={failed}\n");
        }
        if !self.note.is_empty() {
            text += &format!("note={}\n", self.note);
        }
        text
    }
}

/// Which boot files are in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Those of the running system.
    Current,
    /// Those of the running system will be used after a restart.
    Waiting,
    /// Earlier ones: the new ones did not lead to a healthy system.
    Reverted,
    /// Earlier ones: the new ones could not be written.
    Refused,
}

/// The report for `/api/update`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Which boot files are in use.
    pub state: Phase,
    /// Why, if the user should know.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub why: Option<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            Phase::Current => "up to date",
            Phase::Waiting => "new ones take effect at the next restart",
            Phase::Reverted | Phase::Refused => "not updated",
        })?;
        match &self.why {
            Some(why) => write!(f, ": {why}"),
            None => Ok(()),
        }
    }
}

impl Report {
    /// Loads the report, if there is one.
    pub fn load(path: &Path) -> Option<Report> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn state_is_read_back(
            pending in prop::option::of(("[0-9a-f]{16}", any::<u32>(), "[0-9a-f]{0,64}", any::<bool>())),
            failed in prop::option::of("[0-9a-f]{16}"),
            note in "[a-z. =]{0,40}",
        ) {
            let pending = pending.map(|(identity, start, config, switched)| {
                Pending { identity, start: start.into(), config, switched }
            });
            let state = State { pending, failed, note };
            prop_assert_eq!(State::parse(&state.text()), state);
        }

        #[test]
        fn any_text_is_parsed(text in ".{0,100}") {
            State::parse(&text);
        }
    }

    #[test]
    fn report_is_what_the_page_reads() {
        let report = Report { state: Phase::Waiting, why: None };
        assert_eq!(serde_json::to_string(&report).unwrap(), r#"{"state":"waiting"}"#);
        assert_eq!(
            serde_json::from_str::<Report>(r#"{"state":"waiting","more":1}"#).unwrap(),
            report
        );
        assert_eq!(Report::load(Path::new("/nonexistent")), None);
    }
}
