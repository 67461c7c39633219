//! Tests of the whole program, from outside: each test starts the executable.
//!
//! All tests are in one crate, so that it is linked only once. They run in threads of one process, so
//! they must not change the environment, the working directory or the signal handlers of the process.

mod apply;
mod boot_files;
mod cameras;
mod check;
mod commands;
mod docs;
mod encoders;
mod layout;
mod mdns;
mod rpicam;
mod settings;
mod support;
mod systemd;
mod update;
mod viewers;
mod websocket;
