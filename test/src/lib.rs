//! What tests of whole parts share.

pub mod sim;
