//! What tests of whole parts share: the simulation, the harness for worlds with real containers, and the table of objects.

pub mod harness;
pub mod large;
pub mod objects;
pub mod sim;
