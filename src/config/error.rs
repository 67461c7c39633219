//! Errors in a configuration: where, what is wrong, and what would be right.

use std::fmt;
use std::ops::Range;

/// What is wrong with a configuration, where, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Name of the file; empty for a text that is not in a file.
    pub file: String,
    /// Line and column, from 1; `None` where the file as a whole is meant.
    pub at: Option<(usize, usize)>,
    /// What is wrong.
    pub message: String,
}

impl ConfigError {
    /// An error at `at` (line and column, from 1).
    pub fn new(message: impl Into<String>, at: Option<(usize, usize)>) -> ConfigError {
        ConfigError { file: String::new(), at, message: message.into() }
    }

    /// An error in the bytes `span` of `text`.
    pub(super) fn in_text(message: &str, text: &str, span: Option<Range<usize>>) -> ConfigError {
        let at = span.map(|span| line_column(text, span.start));
        ConfigError::new(printable(message), at)
    }

    /// The same error, in a file.
    pub(super) fn in_file(mut self, file: &str) -> ConfigError {
        self.file = file.into();
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.is_empty() {
            write!(f, "{}:", self.file)?;
        }
        match self.at {
            Some((line, column)) => write!(f, "{line}:{column}: {}", self.message),
            None if self.file.is_empty() => f.write_str(&self.message),
            None => write!(f, " {}", self.message),
        }
    }
}

impl std::error::Error for ConfigError {}

pub(super) fn read_error(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file".into(),
        std::io::ErrorKind::PermissionDenied => "may not be read by this user".into(),
        std::io::ErrorKind::IsADirectory => "is a folder, not a file".into(),
        _ => format!("cannot be read: {error}"),
    }
}

/// On one line, and nothing in it that a terminal would obey: messages quote the text.
fn printable(message: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.into() };
    message.chars().map(escape).collect()
}

/// Line and column of a byte, both from 1; columns count characters.
pub(crate) fn line_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

/// The parser's message, with the nearest valid name where a name is wrong.
pub(super) fn explain(message: &str) -> String {
    if let Some(rest) = message.strip_prefix("invalid type: ")
        && let Some((found, wanted)) = rest.rsplit_once(", expected ")
    {
        let wanted = match wanted {
            "i64" => "a whole number, without quotes,",
            "a sequence" => "a list, such as [\"one\", \"two\"],",
            "a string" => "text in quotes",
            "a boolean" => "true or false",
            wanted if wanted.starts_with("struct") => "a table, such as { name = \"value\" },",
            wanted => wanted,
        };
        return format!("{found} is not right here: {wanted} is needed");
    }
    let wrong_name = ["unknown field `", "unknown variant `"];
    let Some(rest) = wrong_name.iter().find_map(|start| message.strip_prefix(start)) else {
        return message.trim().replace('\n', ": ");
    };
    // From the end: the wrong name may have anything in it, the valid ones have no backtick.
    let (wrong, valid) = rest.rsplit_once("`, expected ").unwrap_or((rest, ""));
    let valid: Vec<&str> = valid.split('`').skip(1).step_by(2).collect();
    let what = if message.starts_with("unknown field") { "no such key" } else { "no such value" };
    let best = valid
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&wrong.to_lowercase(), name), *name))
        .min()
        .filter(|(distance, name)| *distance <= 1 + name.len() / 3);
    match best {
        Some((_, name)) => format!("{what}: `{wrong}`; did you mean `{name}`?"),
        None => format!("{what}: `{wrong}`; there are `{}`", valid.join("`, `")),
    }
}
