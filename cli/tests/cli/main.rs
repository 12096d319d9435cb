//! The built command, run as a user runs it.

mod bad_input;
mod common;
mod durable;
mod examples;
mod image;
mod kill;
mod lint;
mod pull;
mod rootless;
mod up;
