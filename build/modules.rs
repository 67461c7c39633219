//! Joins ES modules into one, and removes comments and indentation.
//!
//! The joined module contains the text of all modules. Each module follows those that it imports.
//! The `import` statements are removed, and so is the word `export`, except in the entry module.
//! This is correct only for the subset of JavaScript below. Anything else is an error that names
//! the file and the line:
//!
//! - `import { a, b } from './file.js';` and `import './file.js';`, without cycles
//! - `export` before `const`, `let`, `function`, `async function` and `class`
//! - one name in each `const`, `let` and `var` declaration at the top level, which ends with a
//!   semicolon
//! - `import.meta` only in the entry module, because its URL is that of the joined module
//! - top-level names that occur in other modules only if those import them, so that the names
//!   neither clash with others nor hide globals
//! - `/` only if the preceding token shows whether it divides or starts a regular expression

use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// Joins `entry` and all modules that it imports. The parts of a path are separated by `/`. `read`
/// returns the text of the file at a path.
pub fn join(entry: &str, read: &dyn Fn(&str) -> io::Result<String>) -> Result<String, String> {
    let mut texts = BTreeMap::new();
    let mut order = Vec::new();
    load(entry, read, &mut Vec::new(), &mut texts, &mut order)?;

    let modules = order
        .iter()
        .map(|path| Module::parse(path, &texts[path], path == entry))
        .collect::<Result<Vec<_>, _>>()?;
    let mut owners: BTreeMap<&str, &Module> = BTreeMap::new();
    for module in &modules {
        for (&name, &line) in &module.declared {
            if let Some(other) = owners.insert(name, module) {
                return Err(format!(
                    "{}:{line}: `{name}` is also declared at the top level of {}: rename one of them",
                    module.path, other.path
                ));
            }
        }
    }
    for module in &modules {
        module.check_imports(&owners)?;
        module.check_captures(&owners)?;
    }
    Ok(modules.iter().map(|module| print(&module.kept)).collect())
}

/// Removes comments and indentation from a script.
pub fn strip(path: &str, text: &str) -> Result<String, String> {
    Ok(print(&tokens(path, text)?))
}

/// Reads a module and those that it imports. Adds each to `order` after its imports.
fn load(
    path: &str,
    read: &dyn Fn(&str) -> io::Result<String>,
    importers: &mut Vec<String>,
    texts: &mut BTreeMap<String, String>,
    order: &mut Vec<String>,
) -> Result<(), String> {
    if let Some(start) = importers.iter().position(|importer| importer == path) {
        return Err(format!("cyclic imports: {} -> {path}", importers[start..].join(" -> ")));
    }
    if texts.contains_key(path) {
        return Ok(());
    }
    let text = read(path).map_err(|error| match importers.last() {
        Some(importer) => format!("cannot read {path}, which {importer} imports: {error}"),
        None => format!("cannot read {path}: {error}"),
    })?;
    importers.push(path.to_owned());
    for import in Module::parse(path, &text, importers.len() == 1)?.imports {
        load(&import.path, read, importers, texts, order)?;
    }
    importers.pop();
    texts.insert(path.to_owned(), text);
    order.push(path.to_owned());
    Ok(())
}

struct Module<'a> {
    path: &'a str,
    imports: Vec<Import<'a>>,
    exported: BTreeSet<&'a str>,
    /// Top-level names and the lines of their declarations.
    declared: BTreeMap<&'a str, usize>,
    /// The tokens of the joined module.
    kept: Vec<Token<'a>>,
}

struct Import<'a> {
    path: String,
    names: Vec<&'a str>,
    line: usize,
}

impl<'a> Module<'a> {
    fn parse(path: &'a str, text: &'a str, is_entry: bool) -> Result<Self, String> {
        let mut module = Module {
            path,
            imports: Vec::new(),
            exported: BTreeSet::new(),
            declared: BTreeMap::new(),
            kept: Vec::new(),
        };
        let tokens = tokens(path, text)?;
        let mut cursor = Cursor { path, tokens: &tokens, at: 0 };
        while let Some(&token) = tokens.get(cursor.at) {
            let is_property = cursor.follows_dot();
            if token.is_word("import") && !is_property {
                if cursor.peek(1).is_some_and(|next| next.text == ".") {
                    if !is_entry {
                        return Err(token
                            .error(path, "`import.meta` is supported only in the entry module"));
                    }
                } else if token.depth == 0 {
                    module.imports.push(cursor.import()?);
                    continue;
                } else {
                    return Err(token.error(path, "`import()` is not supported"));
                }
            } else if token.depth == 0 && token.is_word("export") && !is_property {
                let declaration = cursor.peek(1).map_or("", |next| next.text);
                if !["const", "let", "function", "async", "class"].contains(&declaration) {
                    let why = "only `const`, `let`, `function`, `async function` and `class` can be exported";
                    return Err(token.error(path, why));
                }
                let skip = if declaration == "async" { 2 } else { 1 };
                let name = cursor.name(skip + 1)?;
                module.exported.insert(name);
                if !is_entry {
                    cursor.skip_with_gap();
                    continue;
                }
            } else if token.depth == 0 && !is_property {
                let names_variable = ["const", "let", "var"].contains(&token.text);
                if names_variable || ["function", "class"].contains(&token.text) {
                    let name = cursor.name(1)?;
                    if names_variable {
                        cursor.check_single_name()?;
                    }
                    module.declared.insert(name, token.line);
                }
            }
            module.kept.push(token);
            cursor.at += 1;
        }
        Ok(module)
    }

    fn check_imports(&self, owners: &BTreeMap<&str, &Module>) -> Result<(), String> {
        for Import { path, names, line } in &self.imports {
            for name in names {
                let owner = owners.get(name).filter(|owner| owner.path == path);
                if !owner.is_some_and(|owner| owner.exported.contains(name)) {
                    return Err(format!("{}:{line}: {path} does not export `{name}`", self.path));
                }
            }
        }
        Ok(())
    }

    fn check_captures(&self, owners: &BTreeMap<&str, &Module>) -> Result<(), String> {
        let imported: BTreeSet<&str> =
            self.imports.iter().flat_map(|import| &import.names).copied().collect();
        let cursor = Cursor { path: self.path, tokens: &self.kept, at: 0 };
        for (at, token) in self.kept.iter().enumerate() {
            let owner = owners.get(token.text).filter(|owner| owner.path != self.path);
            let Some(owner) = owner else { continue };
            if token.kind == Kind::Word
                && !imported.contains(token.text)
                && !(Cursor { at, ..cursor }).follows_dot()
            {
                let why = format!(
                    "`{}` is a top-level name of {}: import it, or rename one of them",
                    token.text, owner.path
                );
                return Err(token.error(self.path, &why));
            }
        }
        Ok(())
    }
}

/// A position among the tokens of a module.
#[derive(Clone, Copy)]
struct Cursor<'a, 'b> {
    path: &'a str,
    tokens: &'b [Token<'a>],
    at: usize,
}

impl<'a> Cursor<'a, '_> {
    /// Returns the `n`th token after the current one, not counting gaps.
    fn peek(&self, n: usize) -> Option<Token<'a>> {
        let rest = self.tokens.get(self.at..)?;
        rest.iter().filter(|token| token.kind != Kind::Gap).nth(n).copied()
    }

    /// Returns whether the current token is the name of a property: one after `.`, `?.` or `#`.
    fn follows_dot(&self) -> bool {
        let mut before =
            self.tokens[..self.at].iter().rev().filter(|token| token.kind != Kind::Gap);
        match before.next().map(|token| token.text) {
            Some("#") => true,
            Some(".") => before.next().is_none_or(|token| token.text != "."), // not `...`
            _ => false,
        }
    }

    /// Returns the declared name, which is the `n`th token after the current one.
    fn name(&self, n: usize) -> Result<&'a str, String> {
        let here = self.tokens[self.at];
        let found = self
            .peek(n)
            .map(|token| if token.text == "*" { self.peek(n + 1) } else { Some(token) });
        match found.flatten() {
            Some(token) if token.kind == Kind::Word && token.text != "extends" => Ok(token.text),
            _ => {
                Err(here
                    .error(self.path, "a declaration at the top level must have one plain name"))
            }
        }
    }

    /// Checks that a variable declaration declares only one name and ends with a semicolon.
    fn check_single_name(&self) -> Result<(), String> {
        let here = self.tokens[self.at];
        for token in self.tokens[self.at + 1..].iter().filter(|token| token.depth == 0) {
            match token.text {
                ";" => return Ok(()),
                "," => {
                    return Err(
                        token.error(self.path, "declare one name at a time at the top level")
                    );
                }
                "const" | "let" | "var" | "import" | "export" if token.kind == Kind::Word => break,
                _ => {}
            }
        }
        Err(here.error(self.path, "this declaration must end with `;`"))
    }

    /// Reads an `import` statement and the gap after it.
    fn import(&mut self) -> Result<Import<'a>, String> {
        let start = self.tokens[self.at];
        let unknown = || {
            let why =
                "only `import { a, b } from './file.js';` and `import './file.js';` are supported";
            start.error(self.path, why)
        };
        let mut n = 1;
        let mut next = || {
            n += 1;
            self.peek(n - 1).ok_or_else(unknown)
        };
        let mut names = Vec::new();
        let mut token = next()?;
        if token.text == "{" {
            loop {
                token = next()?;
                if token.kind == Kind::Word {
                    names.push(token.text);
                    token = next()?;
                }
                match token.text {
                    "," => {}
                    "}" => break,
                    _ => return Err(unknown()),
                }
            }
            if next()?.text != "from" {
                return Err(unknown());
            }
            token = next()?;
        }
        let specifier = token.text.trim_matches(['\'', '"']);
        if token.kind != Kind::Literal || !specifier.starts_with('.') || next()?.text != ";" {
            return Err(unknown());
        }
        let path = resolve(self.path, specifier);
        for _ in 0..n {
            self.skip_with_gap();
        }
        Ok(Import { path, names, line: start.line })
    }

    fn skip_with_gap(&mut self) {
        self.at += 1;
        while self.tokens.get(self.at).is_some_and(|token| token.kind == Kind::Gap) {
            self.at += 1;
        }
    }
}

/// Returns the path that `specifier` refers to in the module at `importer`.
fn resolve(importer: &str, specifier: &str) -> String {
    let mut parts: Vec<&str> = importer.split('/').collect();
    parts.pop();
    for part in specifier.split('/') {
        match part {
            "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => _ = parts.pop(),
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Word,
    /// A number, a string, a part of a template or a regular expression.
    Literal,
    /// A single character.
    Punctuator,
    /// White space or comments.
    Gap,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Token<'a> {
    kind: Kind,
    text: &'a str,
    line: usize,
    /// Number of open brackets around the token.
    depth: usize,
}

impl Token<'_> {
    fn is_word(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text == word
    }

    fn error(&self, path: &str, why: &str) -> String {
        format!("{path}:{}: {why}", self.line)
    }
}

/// A bracket that has been opened but not closed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    Brace,
    Bracket,
    Parenthesis,
    /// The parenthesis of `if (…)`, `for (…)`, `while (…)` or `with (…)`, which a statement
    /// follows.
    Condition,
    /// `${` in a template.
    Substitution,
}

/// Words after which `/` starts a regular expression.
const BEFORE_EXPRESSION: [&str; 14] = [
    "return",
    "typeof",
    "case",
    "in",
    "of",
    "do",
    "else",
    "void",
    "delete",
    "throw",
    "new",
    "instanceof",
    "await",
    "yield",
];

fn tokens<'a>(path: &str, text: &'a str) -> Result<Vec<Token<'a>>, String> {
    let mut tokens: Vec<Token> = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    // The bracket that was closed last.
    let mut closed = Open::Parenthesis;
    let mut line = 1;
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let mut depth = open.len();
        let fail = |why: &str| format!("{path}:{line}: {why}");
        let (kind, length) = if first.is_whitespace()
            || rest.starts_with("//")
            || rest.starts_with("/*")
        {
            (Kind::Gap, gap(rest).ok_or_else(|| fail("this comment is not terminated"))?)
        } else if is_name(first) && !first.is_ascii_digit() {
            (Kind::Word, rest.find(|c| !is_name(c)).unwrap_or(rest.len()))
        } else if first.is_ascii_digit()
            || (first == '.' && rest[1..].starts_with(|next: char| next.is_ascii_digit()))
        {
            (Kind::Literal, number(rest))
        } else if first == '\'' || first == '"' {
            (
                Kind::Literal,
                string(rest, first).ok_or_else(|| fail("this string is not terminated"))?,
            )
        } else if first == '`' || (first == '}' && open.last() == Some(&Open::Substitution)) {
            let length = template(rest).ok_or_else(|| fail("this template is not terminated"))?;
            if first == '}' {
                open.pop();
            }
            depth = open.len();
            if rest[..length].ends_with('{') {
                open.push(Open::Substitution);
            }
            (Kind::Literal, length)
        } else if first == '/' && starts_expression(&tokens, closed).map_err(|why| fail(&why))? {
            let length =
                regex(rest).ok_or_else(|| fail("this regular expression is not terminated"))?;
            (Kind::Literal, length)
        } else {
            match first {
                '{' => open.push(Open::Brace),
                '[' => open.push(Open::Bracket),
                '(' => {
                    let before = tokens.iter().rev().find(|token| token.kind != Kind::Gap);
                    let condition = before.is_some_and(|token| {
                        token.kind == Kind::Word
                            && ["if", "for", "while", "with"].contains(&token.text)
                    });
                    open.push(if condition { Open::Condition } else { Open::Parenthesis });
                }
                '}' | ']' | ')' => {
                    let last = open.pop().ok_or_else(|| fail("this bracket was never opened"))?;
                    let fits = match last {
                        Open::Brace => first == '}',
                        Open::Bracket => first == ']',
                        Open::Parenthesis | Open::Condition => first == ')',
                        Open::Substitution => false,
                    };
                    if !fits {
                        return Err(fail("this bracket does not match the one that is open"));
                    }
                    closed = last;
                    depth = open.len();
                }
                _ => {}
            }
            (Kind::Punctuator, first.len_utf8())
        };
        let text = &rest[..length];
        tokens.push(Token { kind, text, line, depth });
        line += text.matches('\n').count();
        at += length;
    }
    if open.is_empty() { Ok(tokens) } else { Err(format!("{path}: a bracket is never closed")) }
}

/// Returns whether an expression can start after these tokens. If so, `/` does not divide.
fn starts_expression(tokens: &[Token], closed: Open) -> Result<bool, String> {
    let unclear = |text: &str| {
        Err(format!(
            "cannot tell whether `/` after `{text}` divides: put the expression in parentheses"
        ))
    };
    let significant: Vec<_> = tokens
        .iter()
        .enumerate()
        .rev()
        .filter(|(_, token)| token.kind != Kind::Gap)
        .take(2)
        .collect();
    let Some(&(at, last)) = significant.first() else { return Ok(true) };
    match last.kind {
        Kind::Literal => Ok(last.text.ends_with("${")),
        Kind::Word => {
            let is_property = (Cursor { path: "", tokens, at }).follows_dot();
            Ok(BEFORE_EXPRESSION.contains(&last.text) && !is_property)
        }
        Kind::Punctuator | Kind::Gap => match last.text {
            ")" => Ok(closed == Open::Condition),
            "]" => Ok(false),
            "}" => unclear("}"),
            "+" | "-" if tokens[..at].last().is_some_and(|before| before.text == last.text) => {
                unclear(&last.text.repeat(2))
            }
            _ => Ok(true),
        },
    }
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

/// Returns the length of the white space and comments at the start of `text`, or `None` if a
/// comment is not terminated.
fn gap(text: &str) -> Option<usize> {
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        if rest.starts_with("//") {
            rest = &rest[rest.find('\n').unwrap_or(rest.len())..];
        } else if let Some(comment) = rest.strip_prefix("/*") {
            rest = &comment[comment.find("*/")? + 2..];
        } else {
            return Some(text.len() - rest.len());
        }
    }
}

fn number(text: &str) -> usize {
    let hexadecimal = text.starts_with("0x") || text.starts_with("0X");
    let mut before = ' ';
    text.find(|c: char| {
        let sign = (c == '+' || c == '-') && (before == 'e' || before == 'E') && !hexadecimal;
        before = c;
        !(is_name(c) || c == '.' || sign)
    })
    .unwrap_or(text.len())
}

fn string(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '\n' => return None,
            _ if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// Returns the length of a part of a template: up to its end, or up to and including the next `${`.
fn template(text: &str) -> Option<usize> {
    let mut escaped = false;
    let mut before = ' ';
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '`' => return Some(at + 1),
            '{' if before == '$' => return Some(at + 1),
            _ => {}
        }
        before = if c == '$' && before == '\\' { ' ' } else { c };
    }
    None
}

fn regex(text: &str) -> Option<usize> {
    let mut escaped = false;
    let mut in_class = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '\n' => return None,
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '[' => in_class = true,
            ']' => in_class = false,
            '/' if !in_class => {
                let flags = &text[at + 1..];
                return Some(at + 1 + flags.find(|c| !is_name(c)).unwrap_or(flags.len()));
            }
            _ => {}
        }
    }
    None
}

/// Returns the text of these tokens. A gap becomes a line break if it contains one, otherwise a
/// space.
fn print(tokens: &[Token]) -> String {
    let mut text = String::new();
    for token in tokens {
        match token.kind {
            Kind::Gap if text.is_empty() || text.ends_with('\n') => {}
            Kind::Gap => text.push(if token.text.contains('\n') { '\n' } else { ' ' }),
            _ => text.push_str(token.text),
        }
    }
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Joins `files`, each of which has a path and a text. The first is the entry module.
    fn joined(files: &[(&str, &str)]) -> Result<String, String> {
        join(files[0].0, &|path| {
            let found = files.iter().find(|(name, _)| *name == path);
            found.map(|(_, text)| text.to_string()).ok_or_else(|| io::ErrorKind::NotFound.into())
        })
    }

    fn error(files: &[(&str, &str)]) -> String {
        joined(files).expect_err("an error")
    }

    #[test]
    fn joins_each_module_after_its_imports() {
        let files = [
            (
                "web/main.js",
                "// Main.\nimport { b, B } from './parts/b.js';\nimport './side.js';\n\n\
                 export class Main { url = import.meta.url; }\nb(B);\n",
            ),
            (
                "web/parts/b.js",
                "import { c } from '../parts/c.js';\nimport {\n  d,\n} from './d.js';\n\
                 export async function b() { return c + d; }\nexport class B {}\n",
            ),
            ("web/parts/c.js", "import { d } from './d.js';\nexport const c = d;\n"),
            (
                "web/parts/d.js",
                "/* d */\nexport let d = 1;\nfunction* own() { yield d; }\nown();\n",
            ),
            ("web/side.js", "self.side = true;"),
        ];
        let expected = "let d = 1;\nfunction* own() { yield d; }\nown();\n\
                        const c = d;\n\
                        async function b() { return c + d; }\nclass B {}\n\
                        self.side = true;\n\
                        export class Main { url = import.meta.url; }\nb(B);\n";
        assert_eq!(joined(&files).unwrap(), expected);
    }

    #[test]
    fn rejects_unsupported_modules() {
        let supported =
            "only `import { a, b } from './file.js';` and `import './file.js';` are supported";
        for (main, expected) in [
            ("import x from './x.js';", supported),
            ("import * as x from './x.js';", supported),
            ("import { x as y } from './x.js';", supported),
            ("import { x } from 'x';", supported),
            ("import { x } from './x.js'\nx;", supported),
            ("function f() { return import('./x.js'); }", "`import()` is not supported"),
            ("export default 1;", "can be exported"),
            ("export { x };", "can be exported"),
            ("export * from './x.js';", "can be exported"),
            ("const { a } = self;", "must have one plain name"),
            ("const [a] = self;", "must have one plain name"),
            ("const a = 1, b = 2;", "declare one name at a time"),
            ("const a = 1\nconst b = 2;", "must end with `;`"),
            ("import { y } from './x.js';", "x.js does not export `y`"),
            ("import { hidden } from './x.js';", "x.js does not export `hidden`"),
            ("import { x } from './missing.js';", "cannot read missing.js, which main.js imports"),
        ] {
            let error =
                error(&[("main.js", main), ("x.js", "export const x = 1; const hidden = 2;")]);
            assert!(error.contains(expected), "{main}: {error}");
            assert!(
                error.starts_with("main.js:1: ") || error.starts_with("cannot read"),
                "{error}"
            );
        }
        let meta = error(&[("main.js", "\nimport './x.js';"), ("x.js", "\n\nimport.meta.url;")]);
        assert_eq!(meta, "x.js:3: `import.meta` is supported only in the entry module");
    }

    #[test]
    fn rejects_cycles() {
        let files = [
            ("main.js", "import './a.js';"),
            ("a.js", "import './b.js';"),
            ("b.js", "import './a.js';"),
        ];
        assert_eq!(error(&files), "cyclic imports: a.js -> b.js -> a.js");
        assert_eq!(error(&[("a.js", "import './a.js';")]), "cyclic imports: a.js -> a.js");
    }

    #[test]
    fn rejects_clashing_names() {
        let main = ("main.js", "import './a.js';\nimport './b.js';\n");
        let clash = error(&[main, ("a.js", "const x = 1;"), ("b.js", "\nfunction x() {}")]);
        assert_eq!(
            clash,
            "b.js:2: `x` is also declared at the top level of a.js: rename one of them"
        );
        // In b.js, `status` is a global, but after joining it would refer to the constant in a.js.
        let capture = error(&[main, ("a.js", "const status = 1;"), ("b.js", "f(status);")]);
        assert_eq!(
            capture,
            "b.js:1: `status` is a top-level name of a.js: import it, or rename one of them"
        );
        let spread = error(&[main, ("a.js", "const all = [];"), ("b.js", "f(...all);")]);
        assert!(spread.contains("`all`"));
        // Names of properties cannot clash.
        let files = [
            main,
            ("a.js", "const x = 1;"),
            ("b.js", "f.x; f?.x; class A { #x; g() { this.#x; } }"),
        ];
        joined(&files).unwrap();
    }

    #[test]
    fn removes_comments_and_indentation() {
        for (text, expected) in [
            ("a; // b\n  c;\n", "a;\nc;\n"),
            ("/* a */ b", "b\n"),
            ("a/* b */c", "a c\n"),
            ("return/*\n*/x", "return\nx\n"),
            ("a\n\n\n// b\n\n/** c */\n\td", "a\nd\n"),
        ] {
            assert_eq!(strip("a.js", text).unwrap(), expected, "{text:?}");
        }
    }

    #[test]
    fn preserves_literals() {
        for text in [
            r#"'// no', "/* no */", 'it\'s // no', "\\" "#,
            "`// ${a + `/* ${'}'} */` /2} \\` \\${ // $${b}\n   /* no */`",
            r"x = /[/'`]\/\// + /a/gu.source;",
            "if (a) /'/.test(b);",
            "for (const a of /'/[Symbol.split](b)) ;",
            "a / b / '//'.length",
            "f(a) / 2 + b[0] / 2 + '/'",
            "a.return / 2 + '/'",
            "() => /'/",
            "[1, .5e-3, 0x1f, 1_000n, 2 / 3, '/']",
            "`${{ a: { b: '`' } }}` + `}`",
        ] {
            let text = text.trim();
            assert_eq!(strip("a.js", text).unwrap(), format!("{text}\n"));
        }
    }

    #[test]
    fn rejects_unclear_and_broken_scripts() {
        for (text, expected) in [
            ("a = {} / 2", "a.js:1: cannot tell whether `/` after `}` divides"),
            ("\na++ / 2", "a.js:2: cannot tell whether `/` after `++` divides"),
            ("'a\nb'", "a.js:1: this string is not terminated"),
            ("`a", "a.js:1: this template is not terminated"),
            ("= /a\n/", "a.js:1: this regular expression is not terminated"),
            ("/* a", "a.js:1: this comment is not terminated"),
            ("(]", "a.js:1: this bracket does not match the one that is open"),
            (")", "a.js:1: this bracket was never opened"),
            ("(", "a.js: a bracket is never closed"),
        ] {
            let error = strip("a.js", text).unwrap_err();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }
}
