//! What tests of whole parts share: the simulation, and the harness for worlds with real containers.

pub mod harness;
pub mod sim;
