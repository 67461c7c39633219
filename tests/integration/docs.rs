//! Checks the documentation against the program: the default configuration, the man page, the shell
//! completions, and the links between the documents.
//!
//! `ci/generate/man` regenerates docs/berrymse.1 and docs/completions (BERRYMSE_BLESS=1).

use berrymse::cli::Cli;
use berrymse::config::Config;
use clap::CommandFactory;
use clap_complete::Shell;
use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

const SHIPPED: &str = include_str!("../../appliance/berrymse.toml");
const MAN_PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/berrymse.1");

/// Returns a commented-out setting in the shipped file: `#key = …`, without a space after the #.
fn setting(line: &str) -> Option<&str> {
    line.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()))
}

/// Returns the shipped file with all settings uncommented.
fn uncommented() -> String {
    SHIPPED.lines().fold(String::new(), |mut text, line| {
        writeln!(text, "{}", setting(line).unwrap_or(line)).unwrap();
        text
    })
}

/// Returns all keys of a table, taken from the error message for an unknown key.
fn keys(table: &str) -> BTreeSet<String> {
    let error = Config::parse(&format!("{table}\nzzzzzzzzzzzz = 1\n"), "").unwrap_err();
    let (_, names) = error.message.split_once("must be one of ").unwrap_or(("", &error.message));
    names.split('`').skip(1).step_by(2).map(String::from).collect()
}

/// Builds with Cross.toml cannot be tested here, because cross needs containers. Therefore, the file must
/// contain nothing but the targets.
#[test]
fn cross_toml_lists_the_release_targets() {
    let cross: toml::Table = include_str!("../../Cross.toml").parse().unwrap();
    let targets = cross["target"].as_table().unwrap();
    let (_, released) = include_str!("../../ci/stage/cross").split_once("\ntargets=(\n").unwrap();
    let released = released.split_once("\n)").unwrap().0;
    let released = released.lines().filter_map(|line| line.split_whitespace().next());
    assert_eq!(targets.keys().map(String::as_str).collect::<BTreeSet<_>>(), released.collect());
    for (target, settings) in targets {
        let image = format!("ghcr.io/cross-rs/{target}:0.2.5");
        assert_eq!(settings.as_table().unwrap(), &toml::toml! { image = image }, "{target}");
    }
    assert!(targets.contains_key(cross["build"]["default-target"].as_str().unwrap()));
    assert_eq!(cross.keys().collect::<Vec<_>>(), ["build", "target"]);
    assert_eq!(cross["build"].as_table().unwrap().len(), 1);
}

#[test]
fn shipped_configuration_is_valid() {
    let config = Config::parse(SHIPPED, "berrymse.toml").unwrap();
    assert_eq!(config.server.listen.port(), 80);
    assert_eq!(config.cameras.len(), 1);
}

#[test]
fn shipped_configuration_is_valid_with_all_settings_uncommented() {
    Config::parse(&uncommented(), "berrymse.toml").unwrap();
}

#[test]
fn shipped_configuration_shows_the_defaults() {
    let mut config = Config::parse(&uncommented(), "berrymse.toml").unwrap();
    let limits = |s: &berrymse::config::Server| {
        (s.max_viewers, s.max_connections_per_address, s.request_timeout, s.max_request_size)
    };
    assert_eq!(limits(&config.server), limits(&Default::default()));
    let shown = config.cameras.remove(0);
    let default = berrymse::config::Camera::default();
    // The name, the source and the sensor settings without a default are examples.
    let expected = berrymse::config::Camera {
        width: default.width,
        height: default.height,
        framerate: default.framerate,
        bitrate: default.bitrate,
        keyframe_interval: default.keyframe_interval,
        rotation: default.rotation,
        hflip: default.hflip,
        vflip: default.vflip,
        noir: default.noir,
        overlay: default.overlay,
        ..shown.clone()
    };
    assert_eq!(shown, expected);
}

#[test]
fn shipped_configuration_documents_every_key() {
    let tables = ["", "[server]", "[[camera]]", "[system]", "[network]", "[update]"];
    for table in tables {
        let keys = keys(table);
        assert!(keys.len() >= 3, "{table}: {keys:?}");
        let section = match SHIPPED.find(&format!("\n{table}\n")) {
            Some(at) if !table.is_empty() => {
                SHIPPED[at + table.len()..].split("\n[").next().unwrap()
            }
            _ => SHIPPED,
        };
        for key in keys {
            let is_here = |line: &str| {
                let line = setting(line).unwrap_or(line);
                line.starts_with(&format!("{key} =")) || line.trim_matches(['[', ']']) == key
            };
            assert!(section.lines().any(is_here), "{key} of {table} is not documented");
        }
    }
}

/// Returns the section on settings, generated from the tables, keys and comments of the shipped file.
fn settings() -> String {
    let escape = |text: &str| text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq");
    let mut out = String::from(".SH CONFIGURATION\n");
    let mut prose: Vec<&str> = vec![];
    for line in SHIPPED.lines() {
        let text = setting(line).unwrap_or(line);
        if let Some(comment) = line.strip_prefix("# ").or(line.strip_prefix('#'))
            && setting(line).is_none()
        {
            prose.push(comment);
        } else if text.is_empty() {
            // A paragraph without a key.
            if !prose.is_empty() {
                writeln!(out, ".PP\n{}", escape(&prose.join("\n"))).unwrap();
            }
            prose.clear();
        } else if text.starts_with('[') {
            if !prose.is_empty() {
                writeln!(out, ".PP\n{}", escape(&prose.join("\n"))).unwrap();
            }
            prose.clear();
            writeln!(out, ".SS \"{}\"", escape(text)).unwrap();
        } else {
            writeln!(out, ".TP\n\\fB{}\\fR", escape(text)).unwrap();
            // Indented lines are list entries.
            for line in prose.drain(..) {
                let break_line = if line.starts_with("  ") { ".br\n" } else { "" };
                writeln!(out, "{break_line}{}", escape(line.trim_start())).unwrap();
            }
        }
    }
    out
}

fn man_page() -> String {
    let mut command = Cli::command();
    command.build();
    let man = clap_mangen::Man::new(command.clone()).date("").manual("BerryMSE");
    let mut page = vec![];
    man.render_title(&mut page).unwrap();
    man.render_name_section(&mut page).unwrap();
    man.render_synopsis_section(&mut page).unwrap();
    man.render_description_section(&mut page).unwrap();
    man.render_options_section(&mut page).unwrap();
    let mut page = String::from_utf8(page).unwrap();
    page.push_str(".SH COMMANDS\n");
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        let name = sub.get_name();
        writeln!(page, ".SS \"berrymse {name}\"").unwrap();
        let about = sub.get_long_about().or(sub.get_about()).unwrap();
        writeln!(page, "{}", about.to_string().replace("\n\n", "\n.PP\n")).unwrap();
        for argument in sub
            .get_arguments()
            .filter(|argument| argument.get_id() != "help" && !argument.is_hide_set())
        {
            let mut what = argument.get_long().map(|l| format!("\\-\\-{l} ")).unwrap_or_default();
            if argument.get_action().takes_values() {
                what += &argument.get_value_names().unwrap_or_default().join(" ");
            }
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            writeln!(page, ".TP\n\\fB{}\\fR\n{}", what.trim(), help.replace('\n', " ")).unwrap();
        }
    }
    page.push_str(&settings());
    page.push_str(
        ".SH FILES\n.TP\n/boot/berrymse.toml\nThe default configuration file, used if it exists.\n\
         .SH ENVIRONMENT\n.TP\nBERRYMSE_LOG\nLog filter, such as \
         \\fBwarn,berrymse::camera=debug\\fR.\n\
         .SH SIGNALS\nSIGINT and SIGTERM stop the server. It closes the viewers' connections and \
         terminates the camera programs.\n\
         .SH EXIT STATUS\n0 on success, 1 on an error (reported on standard error), 2 for an invalid \
         command line, 3 if \\fBberrymse health\\fR finds a camera that delivers no video.\n\
         .SH SEE ALSO\ndocs/api.md describes the HTTP API.\n",
    );
    page
}

#[test]
fn man_page_is_up_to_date() {
    let page = man_page();
    if std::env::var_os("BERRYMSE_BLESS").is_some() {
        std::fs::write(MAN_PAGE, page).unwrap();
        return;
    }
    let committed = std::fs::read_to_string(MAN_PAGE).unwrap_or_default();
    assert!(page == committed, "docs/berrymse.1 is out of date: run ./ci/generate/man");
}

#[test]
fn shell_completions_are_up_to_date() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/completions/");
    let shells =
        [(Shell::Bash, "berrymse.bash"), (Shell::Zsh, "_berrymse"), (Shell::Fish, "berrymse.fish")];
    for (shell, file) in shells {
        let mut text = vec![];
        clap_complete::generate(shell, &mut Cli::command(), "berrymse", &mut text);
        let file = format!("{folder}{file}");
        if std::env::var_os("BERRYMSE_BLESS").is_some() {
            std::fs::write(&file, text).unwrap();
            continue;
        }
        let committed = std::fs::read(&file).unwrap_or_default();
        assert!(text == committed, "{file} is out of date: run ./ci/generate/man");
    }
}

/// Adds the Markdown files below `folder` to `files`, except build results.
fn markdown_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy();
        if path.is_dir() && !["target", "node_modules", "dist", ".git"].contains(&&*name) {
            markdown_files(&path, files);
        } else if name.ends_with(".md") {
            files.push(path);
        }
    }
}

/// Returns the lines of a Markdown text that are not in a fenced code block.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// Returns the anchors of a Markdown text's headings, as GitHub generates them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen = HashMap::new();
    prose(text)
        .filter(|line| line.starts_with('#'))
        .filter_map(|line| line.trim_start_matches('#').strip_prefix(' '))
        .map(|heading| {
            let kept = |c: &char| c.is_alphanumeric() || " -_".contains(*c);
            let anchor: String =
                heading.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-");
            let count = seen.entry(anchor.clone()).and_modify(|n| *n += 1).or_insert(0);
            if *count == 0 { anchor } else { format!("{anchor}-{count}") }
        })
        .collect()
}

/// Returns the targets of a Markdown text's links and images, ignoring code spans.
fn links(text: &str) -> Vec<String> {
    let without_code = |line: &str| line.split('`').step_by(2).collect::<Vec<_>>().join("`");
    let text = prose(text).map(without_code).collect::<Vec<_>>().join("\n");
    let targets = text.split("](").skip(1);
    targets.filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())).collect()
}

#[test]
fn links_between_documents_are_valid() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![];
    markdown_files(root, &mut files);
    let mut broken = String::new();
    let mut checked = 0;
    for file in &files {
        let text = std::fs::read_to_string(file).unwrap();
        for link in links(&text).iter().filter(|link| !link.contains("://")) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => file.clone(),
                path => file.parent().unwrap().join(path),
            };
            let valid = if anchor.is_empty() {
                target.exists()
            } else {
                std::fs::read_to_string(&target).is_ok_and(|text| anchors(&text).contains(anchor))
            };
            checked += 1;
            if !valid {
                writeln!(broken, "{}: {link}", file.strip_prefix(root).unwrap().display()).unwrap();
            }
        }
    }
    assert!(checked > 100, "found only {checked} links");
    assert!(broken.is_empty(), "broken links:\n{broken}");
}
