//! The layout of `src/`: modules import only from layers below them, and files never import each
//! other, directly or in a cycle. Every `crate::`, `super::` and `self::` path counts, not only `use`
//! lines. (`pub use` of a child module in its parent is a re-export, not an import.)

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The top-level modules, each with those that it may import. `main` is not listed, because it sees
/// only the library.
const LAYERS: &[(&str, &[&str])] = &[
    ("paths", &[]),
    ("shutdown", &[]),
    ("process", &[]),
    ("fetch", &[]),
    ("h264", &[]),
    ("fmp4", &["h264"]),
    ("websocket", &[]),
    ("config", &[]),
    ("access", &["config"]),
    ("stream", &["h264", "fmp4", "websocket", "shutdown"]),
    ("camera", &["config", "h264", "process", "stream"]),
    ("system", &["config", "paths", "process"]),
    ("update", &["config", "fetch", "system"]),
    ("settings", &["config", "system"]),
    (
        "http",
        &[
            "access",
            "camera",
            "config",
            "fmp4",
            "settings",
            "shutdown",
            "stream",
            "system",
            "update",
            "websocket",
        ],
    ),
    ("cli", &["config", "paths"]),
    (
        "serve",
        &[
            "access", "camera", "cli", "config", "http", "paths", "settings", "shutdown", "system",
            "update",
        ],
    ),
];

/// Maximum length of a source file, in lines.
const MAX_LINES: usize = 600;

type Module = Vec<String>;

/// Source files by their module path: `["camera", "v4l2"]` for `camera/v4l2/mod.rs`.
struct Source {
    files: BTreeMap<Module, File>,
}

#[derive(Default)]
struct File {
    /// Absolute paths that the file names, and whether each is a `pub use` of a child.
    paths: Vec<(Module, bool)>,
    /// Names that the file re-exports, and the paths that they stand for.
    reexports: BTreeMap<String, Module>,
}

impl Source {
    fn new<'a>(texts: impl IntoIterator<Item = (&'a str, &'a str)>) -> Source {
        let texts: BTreeMap<Module, &str> =
            texts.into_iter().map(|(name, text)| (module_of(name), text)).collect();
        let modules: BTreeSet<&Module> = texts.keys().collect();
        let files = texts
            .iter()
            .map(|(module, text)| (module.clone(), File::read(module, &code_of(text), &modules)))
            .collect();
        Source { files }
    }

    /// Returns the file that defines the item at `path`.
    fn file_of(&self, path: &[String]) -> Module {
        let depth = (0..=path.len()).rev().find(|&n| self.files.contains_key(&path[..n])).unwrap();
        let (module, rest) = path.split_at(depth);
        match rest.first().and_then(|name| self.files[module].reexports.get(name)) {
            Some(target) => self.file_of(target),
            None => module.to_vec(),
        }
    }

    fn imports(&self) -> BTreeMap<Module, BTreeSet<Module>> {
        let imports_of = |(module, file): (&Module, &File)| {
            let paths = file.paths.iter().filter(|(_, is_reexport)| !is_reexport);
            let files = paths.map(|(path, _)| self.file_of(path)).filter(|to| to != module);
            (module.clone(), files.collect())
        };
        self.files.iter().map(imports_of).collect()
    }

    /// Describes the imports that violate the rules.
    fn violations(&self) -> Vec<String> {
        let imports = self.imports();
        let mut found = vec![];
        for (from, files) in &imports {
            let Some(layer) = from.first() else { continue };
            let Some((_, below)) = LAYERS.iter().find(|(name, _)| name == layer) else {
                found.push(format!("{layer} is not listed in LAYERS"));
                continue;
            };
            for to in files.iter().filter_map(|to| to.first()) {
                if to != layer && !below.contains(&to.as_str()) {
                    found.push(format!("{} must not import {to}", from.join("/")));
                }
            }
        }
        found.extend(cycle(&imports).map(|cycle| {
            let names: Vec<String> = cycle.iter().map(|module| module.join("/")).collect();
            format!("import cycle: {}", names.join(" -> "))
        }));
        found
    }
}

impl File {
    fn read(module: &Module, code: &str, modules: &BTreeSet<&Module>) -> File {
        let mut file = File::default();
        let mut rest = String::new();
        // `use` items end with a semicolon; everything else is searched for paths.
        for statement in code.split_inclusive(';') {
            let Some((before, tree)) = split_use(statement) else {
                rest += statement;
                continue;
            };
            rest += before;
            let is_public = before.trim_end().ends_with("pub")
                || before.trim_end().ends_with(')') && before.contains("pub(");
            for (path, name) in leaves(tree) {
                let Some(target) = absolute(&path, module, modules) else { continue };
                let is_child = target.len() > module.len() && target.starts_with(module);
                file.paths.push((target.clone(), is_public && is_child));
                if is_public {
                    file.reexports.insert(name, target);
                }
            }
        }
        let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        let words = rest.split(|c| !is_part(c)).map(|word| word.trim_end_matches(":"));
        for word in words.filter(|word| word.contains("::")) {
            let path: Module = word.split("::").map(String::from).collect();
            file.paths.extend(absolute(&path, module, modules).map(|path| (path, false)));
        }
        file
    }
}

fn module_of(name: &str) -> Module {
    let name = name.trim_end_matches(".rs");
    let name = name.strip_suffix("/mod").unwrap_or(name);
    if name == "lib" { vec![] } else { name.split('/').map(String::from).collect() }
}

/// Returns the text without comments, strings and character literals.
fn code_of(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |at| at + 2)
        } else if let Some(raw) = rest.strip_prefix('r').filter(|raw| {
            raw.trim_start_matches('#').starts_with('"') && !code.ends_with(char::is_alphanumeric)
        }) {
            let hashes = raw.len() - raw.trim_start_matches('#').len();
            let end = format!("\"{}", "#".repeat(hashes));
            let start = 1 + hashes + 1;
            rest[start..].find(&end).map_or(rest.len(), |at| start + at + end.len())
        } else if c == '"' {
            let mut escaped = false;
            let end = rest[1..].find(|c| {
                let is_end = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                is_end
            });
            end.map_or(rest.len(), |at| at + 2)
        } else if c == '\'' {
            // A character, or the start of a lifetime.
            let mut chars = rest.char_indices().skip(1);
            match (chars.next(), chars.next()) {
                (Some((_, '\\')), Some(_)) => rest[3..].find('\'').map_or(rest.len(), |at| at + 4),
                (Some(_), Some((at, '\''))) => at + 1,
                _ => 0,
            }
        } else {
            0
        };
        if skip == 0 {
            code.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            code.push(' ');
            rest = &rest[skip..];
        }
    }
    code
}

/// Splits a statement into the part before `use` and the tree after it.
fn split_use(statement: &str) -> Option<(&str, &str)> {
    let tree = statement.strip_suffix(';')?;
    let at = tree.rfind("use ")?;
    let starts_word = tree[..at].chars().next_back().is_none_or(char::is_whitespace);
    starts_word.then(|| (&tree[..at], &tree[at + 4..]))
}

/// Returns the paths of a use tree, each with the name that it introduces.
fn leaves(tree: &str) -> Vec<(Module, String)> {
    let tree = tree.trim();
    let Some((prefix, inner)) = tree.split_once('{') else {
        let (path, alias) = tree.split_once(" as ").map_or((tree, None), |(p, a)| (p, Some(a)));
        let mut path: Module = path.split("::").map(|part| part.trim().into()).collect();
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        let name = alias.map_or_else(|| path.last().cloned().unwrap_or_default(), Into::into);
        return vec![(path, name)];
    };
    let inner = inner.trim_end().strip_suffix('}').unwrap_or(inner);
    let mut depth = 0;
    let parts = inner.split(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    parts
        .filter(|part| !part.trim().is_empty())
        .flat_map(|part| leaves(&format!("{prefix}{}", part.trim())))
        .collect()
}

/// Returns the path from the root of the crate, or `None` for other crates and local names.
fn absolute(path: &[String], module: &Module, modules: &BTreeSet<&Module>) -> Option<Module> {
    let mut base = module.clone();
    let mut rest = path;
    match path.first()?.as_str() {
        "crate" => (base, rest) = (vec![], &path[1..]),
        "self" | "super" => {
            while let Some(first) = rest.first() {
                match first.as_str() {
                    "self" => {}
                    "super" => drop(base.pop()),
                    _ => break,
                }
                rest = &rest[1..];
            }
        }
        child => {
            let child = [&module[..], &[child.to_string()]].concat();
            modules.contains(&child).then_some(())?;
        }
    }
    Some([&base[..], rest].concat())
}

/// Returns an import cycle, if there is one.
fn cycle(imports: &BTreeMap<Module, BTreeSet<Module>>) -> Option<Vec<Module>> {
    fn visit(
        at: &Module,
        imports: &BTreeMap<Module, BTreeSet<Module>>,
        way: &mut Vec<Module>,
        done: &mut BTreeSet<Module>,
    ) -> Option<Vec<Module>> {
        if let Some(start) = way.iter().position(|module| module == at) {
            return Some([&way[start..], std::slice::from_ref(at)].concat());
        }
        if !done.insert(at.clone()) {
            return None;
        }
        way.push(at.clone());
        let found = imports[at].iter().find_map(|to| visit(to, imports, way, done));
        way.pop();
        found
    }
    let mut done = BTreeSet::new();
    imports.keys().find_map(|start| visit(start, imports, &mut vec![], &mut done))
}

/// Returns the name and the text of every file in `src/`.
fn source_files() -> Vec<(String, String)> {
    fn walk(folder: &Path, root: &Path, files: &mut Vec<(String, String)>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, root, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_string();
                files.push((name, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![];
    walk(&root, &root, &mut files);
    files
}

/// Removes the test module, which may import anything.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap()
}

#[test]
fn modules_import_only_from_layers_below() {
    let files = source_files();
    let files = files.iter().filter(|(name, _)| name != "main.rs" && name != "lib.rs");
    let files = files.map(|(name, text)| (name.as_str(), without_tests(text)));
    let source = Source::new(files.chain([("lib.rs", "")]));
    assert!(source.files.len() > 60, "{} files", source.files.len());
    let imports: usize = source.imports().values().map(BTreeSet::len).sum();
    assert!(imports > 150, "{imports} imports");
    let violations = source.violations();
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

#[test]
fn files_do_not_exceed_the_maximum_length() {
    for (name, text) in source_files() {
        let lines = text.lines().count();
        assert!(lines <= MAX_LINES, "{name} has {lines} lines");
    }
}

/// Returns the violations in `extra`, added to a few valid files.
fn violations_with(extra: &[(&'static str, &'static str)]) -> Vec<String> {
    let mut files = BTreeMap::from([
        ("lib.rs", ""),
        ("stream/mod.rs", "mod viewer;\npub use viewer::Viewer;\nuse crate::h264::Picture;"),
        ("stream/viewer.rs", "use super::Stream;\npub struct Viewer(Stream);"),
        ("h264.rs", "pub struct Picture;"),
        ("http/mod.rs", "pub mod live;\npub use live::serve;"),
        ("http/live.rs", "use crate::stream::{self, Viewer};"),
    ]);
    files.extend(extra.iter().copied());
    Source::new(files).violations()
}

#[test]
fn finds_violations_in_use_lines_and_inside_functions() {
    assert_eq!(violations_with(&[]), [""; 0]);
    for upward in [
        "use crate::http::serve;",
        "use crate::{h264::Picture, http::{live as other}};",
        "pub fn f() { let x = crate::http::live::serve(); }",
        "fn f() -> Option<super::http::live::Handler> { None }",
        "const C: &str = \"// \"; type T = crate::http::live::Handler;",
        "fn f(c: char) -> bool { c == '\"' || crate::http::live::is(c) }",
        "fn f() { use super::http::live; }",
    ] {
        let found = violations_with(&[("h264.rs", upward)]);
        assert!(found.contains(&"h264 must not import http".to_string()), "{upward}: {found:?}");
    }
    for good in [
        "// use crate::http::serve;",
        "const C: &str = \"crate::http::serve\";",
        "const C: &str = r#\"\"crate::http::serve\"#;",
        "/* crate::http */ fn f<'a>(x: &'a str) {}",
    ] {
        assert_eq!(violations_with(&[("h264.rs", good)]), [""; 0], "{good}");
    }
}

#[test]
fn finds_import_cycles() {
    let direct = [
        ("http/live.rs", "use super::other::f;"),
        ("http/other.rs", "fn f() { super::live::g() }"),
    ];
    assert!(violations_with(&direct)[0].starts_with("import cycle: "));
    let three = [
        ("http/a.rs", "use crate::http::b::x;"),
        ("http/b.rs", "use crate::http::c;"),
        ("http/c.rs", "fn f() { super::a::y() }"),
    ];
    assert!(violations_with(&three)[0].starts_with("import cycle: "));
    // Through a name that the parent re-exports.
    let renamed = [
        ("http/live.rs", "use super::Other;"),
        ("http/mod.rs", "pub mod live;\npub mod other;\npub use other::Other;"),
        ("http/other.rs", "use crate::http::live;"),
    ];
    assert!(violations_with(&renamed)[0].starts_with("import cycle: "));
    assert_eq!(violations_with(&[("strange.rs", "")]), ["strange is not listed in LAYERS"]);
}

const ARCHITECTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/architecture.md");
const LIST_START: &str = "<!-- modules: generated by ci/generate/modules -->\n";
const LIST_END: &str = "<!-- end -->\n";

/// Returns the first paragraph of a module's documentation, on one line.
fn summary(text: &str) -> String {
    let lines = text.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim);
    lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Returns a Markdown table of every file and its purpose.
fn module_list() -> String {
    let mut files = source_files();
    // A directory's mod.rs comes before its other files.
    files.sort_by_key(|(name, _)| name.replace("mod.rs", ""));
    let mut table = String::from("| file in `src/` | purpose |\n|---|---|\n");
    for (name, text) in &files {
        // Links to items work only in rustdoc.
        let summary = summary(text).replace('|', "\\|").replace("[`", "`").replace("`]", "`");
        assert!(!summary.is_empty(), "{name} has no module documentation");
        table += &format!("| `{name}` | {summary} |\n");
    }
    table
}

#[test]
fn architecture_md_lists_every_module() {
    let text = std::fs::read_to_string(ARCHITECTURE).unwrap();
    let (before, rest) = text.split_once(LIST_START).unwrap();
    let (listed, after) = rest.split_once(LIST_END).unwrap();
    let list = module_list();
    if std::env::var_os("BERRYMSE_BLESS").is_some() {
        let text = format!("{before}{LIST_START}{list}{LIST_END}{after}");
        std::fs::write(ARCHITECTURE, text).unwrap();
        return;
    }
    assert!(listed == list, "docs/architecture.md is out of date: run ci/generate/modules");
}
