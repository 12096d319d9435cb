//! One client for registries of images (OCI distribution specification), for whoever asks them: the controllers look up what
//! an image runs, a node pulls whole ones. IO: sockets; what is sent is read in `ropewalk-core`.
//!
//! It is our own on `reqwest`, and not `oci-client`, because that one (0.18) has no place for the rules we hold: it sends a
//! password to whatever address a challenge names, follows redirects by the library's default, takes bodies of any
//! length, tries one credential where a keyring has several, and takes neither a TLS configuration nor a time limit
//! per request. What would be left of it is less than what is here.

mod download;
mod error;
#[cfg(feature = "fake")]
pub mod fake;
mod hosts;
mod http;
mod patience;
mod session;

pub use error::Error;
pub use hosts::{HostsError, TRUST_HINT};
pub use http::{Failure, Registries, Sessions};
pub use patience::Patience;
pub use reqwest::{Method, Response, StatusCode};
pub use session::{Access, Session};
