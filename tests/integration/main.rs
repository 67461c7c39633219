//! Tests of the whole program, from outside: each test starts the executable.
//!
//! One crate, so that it is linked once. The tests run in threads of one process: none of them changes
//! the environment, the working folder or signal handlers of the process.

mod apply;
mod boot_files;
mod check;
mod commands;
mod docs;
mod encoders;
mod layout;
mod mdns;
mod settings;
mod support;
mod systemd;
mod update;
mod viewers;
mod websocket;
