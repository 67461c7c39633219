//! Prepares the files in `web/` that the executable embeds: joins the modules of the player into
//! `berrymse.js`, removes comments from all scripts, and writes two variants of each file to
//! `OUT_DIR/web`: compressed (`gzip/`) and uncompressed (`identity/`). Subdirectories and the files
//! for developers (`*.md`, `package.json`) are not embedded.
//!
//! The coding is gzip, because browsers accept no better one over plain HTTP.

use flate2::Compression;
use flate2::write::GzEncoder;
use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::{env, fs, process};

#[path = "build/modules.rs"]
mod modules;

fn main() {
    for path in ["web", "build.rs", "build"] {
        println!("cargo::rerun-if-changed={path}");
    }
    if let Err(error) = prepare() {
        eprintln!("{error}");
        process::exit(1);
    }
}

fn prepare() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let site = out.join("web");
    // Files that have been removed from `web/` must not remain.
    if site.exists() {
        fs::remove_dir_all(&site)?;
    }
    for variant in ["identity", "gzip"] {
        fs::create_dir_all(site.join(variant))?;
    }
    for entry in fs::read_dir("web")? {
        let path = entry?.path();
        let is_for_developers = path.ends_with("package.json")
            || path.extension().is_some_and(|extension| extension == "md");
        if path.is_file() && !is_for_developers {
            embed(&path, &site)?;
        }
    }
    // An attribute cannot contain a variable, so the path is written as a literal.
    let files = format!("#[derive(rust_embed::RustEmbed)]\n#[folder = {site:?}]\nstruct Files;\n");
    fs::write(out.join("files.rs"), files)?;
    Ok(())
}

/// Writes both variants of a file.
fn embed(path: &Path, site: &Path) -> Result<(), Box<dyn Error>> {
    let name = path.to_str().ok_or_else(|| format!("{path:?} is not valid UTF-8"))?;
    let content = if name == "web/berrymse.js" {
        modules::join(name, &|path| fs::read_to_string(path))?.into_bytes()
    } else if name.ends_with(".js") {
        modules::strip(name, &fs::read_to_string(path)?)?.into_bytes()
    } else {
        fs::read(path)?
    };
    let file = path.file_name().ok_or("the path has no file name")?;
    fs::write(site.join("identity").join(file), &content)?;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&content)?;
    fs::write(site.join("gzip").join(file), encoder.finish()?)?;
    Ok(())
}
