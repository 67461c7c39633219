//! Hands v4l2r's build script the V4L2 bindings that bindgen has made for it before.
//!
//! v4l2r 0.0.8 runs bindgen on every build, which takes libclang and the headers of Linux 6.12 or
//! newer. What comes out depends on nothing but the size of a pointer, so it is kept here, and this
//! crate takes bindgen's place (`[patch.crates-io]` in Cargo.toml). It has exactly what v4l2r's build
//! script calls. `ci/generate/bindings` regenerates the files, and reports whether they differ.
//!
//! The files assert size and offset of every structure at compile time: on a machine that they do not
//! fit, the build fails.

use std::path::Path;

/// What v4l2r's build script calls while it sets bindgen up; nothing of it changes the files kept here.
pub mod callbacks {
    /// A name that bindgen asks about.
    pub struct ItemInfo<'a> {
        /// As it stands in the header.
        pub name: &'a str,
    }

    /// What v4l2r has to say of names.
    pub trait ParseCallbacks: std::fmt::Debug {
        /// Another name for an item.
        fn item_name(&self, _: ItemInfo<'_>) -> Option<String> {
            None
        }
    }
}

/// bindgen's `Builder`, as far as v4l2r uses it.
#[derive(Debug, Default)]
pub struct Builder;

impl Builder {
    /// The names were settled when the files were made.
    #[must_use]
    pub fn parse_callbacks(self, _: Box<dyn callbacks::ParseCallbacks>) -> Builder {
        self
    }

    /// The files have what v4l2r asks for here.
    #[must_use]
    pub fn derive_partialeq(self, _: bool) -> Builder {
        self
    }

    /// The files have what v4l2r asks for here.
    #[must_use]
    pub fn derive_eq(self, _: bool) -> Builder {
        self
    }

    /// The files have what v4l2r asks for here.
    #[must_use]
    pub fn derive_default(self, _: bool) -> Builder {
        self
    }

    /// No header is read.
    #[must_use]
    pub fn header(self, _: &str) -> Builder {
        self
    }

    /// No clang is run.
    #[must_use]
    pub fn clang_args(self, _: impl IntoIterator<Item = String>) -> Builder {
        self
    }

    /// The bindings for the target of this build.
    ///
    /// # Errors
    ///
    /// For a target that there are none for.
    pub fn generate(self) -> Result<Bindings, String> {
        let of = |name: &str| std::env::var(format!("CARGO_CFG_TARGET_{name}")).unwrap_or_default();
        match (&*of("POINTER_WIDTH"), &*of("ENDIAN"), &*of("OS")) {
            ("64", "little", "linux") => Ok(Bindings(include_str!("../v4l2-64bit.rs"))),
            ("32", "little", "linux") => Ok(Bindings(include_str!("../v4l2-32bit.rs"))),
            target => Err(format!("there are V4L2 bindings for little-endian Linux only: {target:?}")),
        }
    }
}

/// bindgen's `Bindings`.
#[derive(Debug)]
pub struct Bindings(&'static str);

impl Bindings {
    /// Writes them where v4l2r includes them from.
    ///
    /// # Errors
    ///
    /// Where the file cannot be written.
    pub fn write_to_file(&self, path: impl AsRef<Path>) -> std::io::Result<()> {
        std::fs::write(path, self.0)
    }
}
