//! What the programs that measure share. They print figures, each beside its floor, and assert none: two machines differ,
//! and so does one machine at two times; only ratios to the floor of the same run can be compared.
//!
//! - `latency`: how long pods and runs take, and what one run asks of the API server.
//! - `api`: what the API server of `ropewalk up` does in a second, holds, and takes to start.
//! - `admission`: what the webhook adds to a request, and whether it refuses any while its certificates are renewed.
//! - `images`: what it costs to pull, unpack and run an image of 300 MB, beside skopeo, umoci and runc.
//! - `lint`: how long `ropewalk lint` takes over a hundred files.
//! - `load`: how many runs end in a second when pods take no time.

pub mod corpus;
pub mod fake_node;
pub mod figures;
pub mod objects;
pub mod processes;
pub mod requests;
pub mod timeline;
pub mod world;

use std::time::Duration;

/// Longer than anything that is measured takes on a machine that is used for work.
pub const PATIENCE: Duration = Duration::from_mins(2);
