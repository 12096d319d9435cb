//! What tests of whole parts share: the simulation, the harness for worlds with real containers, the table of objects,
//! and what objects in several versions owe.

pub mod harness;
pub mod large;
pub mod objects;
pub mod sim;
pub mod versions;
