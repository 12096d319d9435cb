//! (in progress)

pub mod server;
