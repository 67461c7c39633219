//! Prepares the files of `web/` that the executable embeds: joins the modules of the player into
//! `berrymse.js`, removes comments from all scripts, and writes every file to `OUT_DIR/web` twice,
//! compressed (`gzip/`) and not (`identity/`). Folders, and the files for developers
//! (`*.md`, `package.json`), are left out.
//!
//! gzip, because over plain HTTP browsers accept no better coding.

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
    // Files that were removed from `web/` must not remain.
    if site.exists() {
        fs::remove_dir_all(&site)?;
    }
    for folder in ["identity", "gzip"] {
        fs::create_dir_all(site.join(folder))?;
    }
    for entry in fs::read_dir("web")? {
        let path = entry?.path();
        let is_for_developers = path.ends_with("package.json")
            || path.extension().is_some_and(|extension| extension == "md");
        if path.is_file() && !is_for_developers {
            embed(&path, &site)?;
        }
    }
    // An attribute takes no variable, so the path is written out.
    let files = format!("#[derive(rust_embed::RustEmbed)]\n#[folder = {site:?}]\nstruct Files;\n");
    fs::write(out.join("files.rs"), files)?;
    Ok(())
}

/// Writes both variants of a file.
fn embed(path: &Path, site: &Path) -> Result<(), Box<dyn Error>> {
    let name = path.to_str().ok_or_else(|| format!("{path:?} is not UTF-8"))?;
    let content = if name == "web/berrymse.js" {
        modules::join(name, &|path| fs::read_to_string(path))?.into_bytes()
    } else if name.ends_with(".js") {
        modules::strip(name, &fs::read_to_string(path)?)?.into_bytes()
    } else {
        fs::read(path)?
    };
    let file = path.file_name().ok_or("a file without a name")?;
    fs::write(site.join("identity").join(file), &content)?;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&content)?;
    fs::write(site.join("gzip").join(file), encoder.finish()?)?;
    Ok(())
}
