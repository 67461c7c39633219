//! Access control by host name, origin and password, independent of the protocol.

mod password;
mod policy;

pub use password::Password;
pub use policy::{AccessPolicy, Denied, Requester};
