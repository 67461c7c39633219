//! Who may do what: host names, origins and the password, for every protocol served here.

mod password;
mod policy;

pub use password::Password;
pub use policy::{AccessPolicy, Denied, Requester};
