//! Errors in a configuration: the position, what is wrong, and what is valid.

use std::fmt;
use std::ops::Range;

/// An error in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Name of the file. Empty for text that does not come from a file.
    pub file: String,
    /// Line and column, both counted from 1. `None` if the error concerns the file as a whole.
    pub at: Option<(usize, usize)>,
    /// What is wrong, and what is valid.
    pub message: String,
}

impl ConfigError {
    /// Creates an error at `at` (line and column, both counted from 1).
    pub fn new(message: impl Into<String>, at: Option<(usize, usize)>) -> ConfigError {
        ConfigError { file: String::new(), at, message: message.into() }
    }

    /// Creates an error at the byte range `span` of `text`.
    pub(super) fn in_text(message: &str, text: &str, span: Option<Range<usize>>) -> ConfigError {
        let at = span.map(|span| line_column(text, span.start));
        ConfigError::new(printable(message), at)
    }

    /// Sets the name of the file.
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

/// Describes why a file could not be read.
pub(super) fn read_error(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file".into(),
        std::io::ErrorKind::PermissionDenied => {
            "permission denied: make the file readable by this user".into()
        }
        std::io::ErrorKind::IsADirectory => "is a directory, not a file".into(),
        _ => format!("cannot read the file: {error}"),
    }
}

/// Escapes control characters. Messages quote the configuration, and must neither span several lines
/// nor control a terminal.
fn printable(message: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.into() };
    message.chars().map(escape).collect()
}

/// Returns the line and column of byte offset `at`, both counted from 1. Columns count characters.
pub(crate) fn line_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

/// Rewrites a parser message for the user. Suggests the most similar name for an unknown one.
pub(super) fn explain(message: &str) -> String {
    if let Some(rest) = message.strip_prefix("invalid type: ")
        && let Some((found, wanted)) = rest.rsplit_once(", expected ")
    {
        let wanted = match wanted {
            "i64" => "a whole number without quotes",
            "f64" => "a number without quotes",
            "a sequence" => "a list, such as [\"one\", \"two\"]",
            "a string" => "text in quotes",
            "a boolean" => "true or false",
            wanted if wanted.starts_with("struct") => "a table, such as { name = \"value\" }",
            wanted => wanted,
        };
        return format!("unexpected {found}: must be {wanted}");
    }
    // From the TOML parser, for the values of enumerations.
    if message.starts_with("wanted ") {
        return "unexpected value: must be text in quotes".into();
    }
    let wrong_name = ["unknown field `", "unknown variant `"];
    let Some(rest) = wrong_name.iter().find_map(|start| message.strip_prefix(start)) else {
        return message.trim().replace('\n', ": ");
    };
    // Split from the end: the unknown name can contain anything, but valid names contain no
    // backticks.
    let (wrong, valid) = rest.rsplit_once("`, expected ").unwrap_or((rest, ""));
    let valid: Vec<&str> = valid.split('`').skip(1).step_by(2).collect();
    let problem =
        if message.starts_with("unknown field") { "no such key" } else { "unknown value" };
    let best = valid
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&wrong.to_lowercase(), name), *name))
        .min()
        .filter(|(distance, name)| *distance <= 1 + name.len() / 3);
    match best {
        Some((_, name)) => format!("{problem}: `{wrong}`; did you mean `{name}`?"),
        None => format!("{problem}: `{wrong}`; must be one of `{}`", valid.join("`, `")),
    }
}
