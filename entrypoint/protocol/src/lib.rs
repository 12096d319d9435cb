//! What the controller and the binary inside every step say to each other: flags, files, the
//! termination message, and the value types that appear in them.
//!
//! Each format is rendered and parsed here and nowhere else, so the two sides cannot drift apart.
//! Pure: no IO, no clock, no environment. The API types reuse [`value`], [`duration`],
//! [`variables`] and [`when`].

pub mod credentials;
pub mod duration;
pub mod flags;
mod gojson;
pub mod paths;
pub mod termination;
pub mod value;
pub mod variables;
pub mod when;
