//! Which network pods have: what was asked for, as far as this machine and what runs on it already allow.

use std::path::Path;
use std::sync::Arc;

use ropewalk_api::errors::chain;
use ropewalk_images::is_in_user_namespace;
use ropewalk_network::Network;

use super::{NETWORK, NodeError};

/// What may be asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NetworkChoice {
    /// A network of its own for each pod.
    Own,
    /// The machine's for all.
    Host,
}

impl std::fmt::Display for NetworkChoice {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Own => "own",
            Self::Host => "host",
        })
    }
}

/// Which network pods have.
#[derive(Clone, Debug)]
pub enum PodNetwork {
    /// Each its own, unless it asks for the machine's.
    Own(Arc<Network>),
    /// All the machine's.
    Host {
        /// Why that, for people.
        why: String,
    },
}

impl PodNetwork {
    /// Sets up what was asked for; without a wish, networks of their own where that can be done. `running` is how many
    /// containers of an earlier process there are, which have the network that they have.
    pub fn open(data_dir: &Path, wish: Option<NetworkChoice>, running: usize) -> Result<Self, NodeError> {
        let directory = data_dir.join(NETWORK);
        let before = match directory.exists() {
            _ if running == 0 => None,
            true => Some(NetworkChoice::Own),
            false => Some(NetworkChoice::Host),
        };
        match (wish, before) {
            (Some(wish), Some(before)) if wish != before => {
                Err(NodeError::OtherNetwork { running, before, wish })
            }
            (Some(NetworkChoice::Host), _) => {
                ropewalk_network::end(&directory)?;
                Ok(Self::Host { why: "that was asked for".to_owned() })
            }
            (None, Some(NetworkChoice::Host)) => {
                Ok(Self::Host { why: "containers of an earlier process do, and still run".to_owned() })
            }
            (Some(NetworkChoice::Own), _) | (None, Some(NetworkChoice::Own)) => {
                Ok(Self::Own(Arc::new(Network::open(&directory)?)))
            }
            (None, None) if is_in_user_namespace() => {
                Ok(Self::Host { why: "only root makes networks of their own for them".to_owned() })
            }
            (None, None) => {
                Network::open(&directory).map(|network| Self::Own(Arc::new(network))).or_else(|error| {
                    // What was made before it failed; what cannot be removed either is not there.
                    let _ = ropewalk_network::end(&directory);
                    Ok(Self::Host { why: chain(&error) })
                })
            }
        }
    }

    /// Removes it from the machine unless containers run, which need it: the next process makes it again.
    pub(crate) fn close(&self, running: usize) -> Result<(), NodeError> {
        match self.own().filter(|_| running == 0) {
            Some(network) => Ok(ropewalk_network::end(network.directory())?),
            None => Ok(()),
        }
    }

    /// The network of those that have one of their own.
    pub(crate) fn own(&self) -> Option<&Arc<Network>> {
        match self {
            Self::Own(network) => Some(network),
            Self::Host { .. } => None,
        }
    }
}

/// What the Node says.
impl std::fmt::Display for PodNetwork {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Own(network) => write!(
                formatter,
                "pods have networks of their own, with addresses in {}; this machine translates them",
                network.range()
            ),
            Self::Host { why } => write!(formatter, "pods share the network of this machine: {why}"),
        }
    }
}
