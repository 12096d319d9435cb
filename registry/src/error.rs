//! Why a registry was asked in vain. Pure.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::StatusCode;
use ropewalk_core::images::manifest::ManifestError;
use ropewalk_core::images::reference::Digest;

use crate::hosts::HostsError;
use crate::http::Failure;

/// Why a registry was asked in vain. For users' eyes: names the registry and no credentials.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No answer.
    #[error("registry \"{host}\": {failure}")]
    Http {
        /// The registry.
        host: String,
        /// Why not.
        failure: Failure,
    },
    /// An answer that does not help.
    #[error("registry \"{host}\" answers {status}{}", asked(*.retry_after))]
    Status {
        /// The registry.
        host: String,
        /// The answer.
        status: StatusCode,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// No such image.
    #[error(
        "registry \"{host}\" has no image \"{repository}\" in version \"{version}\"; check its name and who may see it"
    )]
    Missing {
        /// The registry.
        host: String,
        /// The repository in it.
        repository: String,
        /// The tag or digest.
        version: String,
    },
    /// Not for us.
    #[error("registry \"{host}\" refuses access ({status}): {tried}")]
    Denied {
        /// The registry.
        host: String,
        /// Its last word.
        status: StatusCode,
        /// Which credentials there were, by name.
        tried: String,
    },
    /// It wants something else than names and passwords.
    #[error("registry \"{host}\" asks for credentials in an unknown way")]
    Challenge {
        /// The registry.
        host: String,
    },
    /// It sends credentials to a place that they would have to reach in the open.
    #[error("registry \"{host}\" asks for credentials at an address without https")]
    Realm {
        /// The registry.
        host: String,
    },
    /// Too much.
    #[error("registry \"{host}\" sends more than {limit} bytes")]
    TooLarge {
        /// The registry.
        host: String,
        /// What would have been taken.
        limit: usize,
    },
    /// A blob that is not what its manifest says.
    #[error("registry \"{host}\" sends more for blob \"{digest}\" than the {size} bytes it should have")]
    Longer {
        /// The registry.
        host: String,
        /// The blob's.
        digest: Digest,
        /// As the manifest has it.
        size: u64,
    },
    /// A blob that ends before its end.
    #[error("registry \"{host}\" ends a blob {missing} bytes before its end")]
    Truncated {
        /// The registry.
        host: String,
        /// Bytes.
        missing: u64,
    },
    /// A blob that takes for ever.
    #[error("registry \"{host}\" is too slow")]
    Slow {
        /// The registry.
        host: String,
    },
    /// What is configured about the registry.
    #[error("\"{}\" about registry \"{host}\" cannot be used", path.display())]
    Hosts {
        /// The registry.
        host: String,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: HostsError,
    },
    /// Not what was asked for.
    #[error("registry \"{host}\" sends content that is not what digest \"{digest}\" stands for")]
    Digest {
        /// The registry.
        host: String,
        /// What was asked for.
        digest: Digest,
    },
    /// Unreadable content.
    #[error("registry \"{host}\" sends a bad manifest")]
    Manifest {
        /// The registry.
        host: String,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// Unreadable answer of its token service.
    #[error("registry \"{host}\" has a token service without tokens")]
    Token {
        /// The registry.
        host: String,
    },
}

fn asked(retry_after: Option<Duration>) -> String {
    retry_after
        .map(|after| format!("; it wants to be asked again in {} s", after.as_secs()))
        .unwrap_or_default()
}

impl Error {
    /// What the registry asks for.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        if let Self::Status { retry_after, .. } = self { *retry_after } else { None }
    }

    /// Another time may have another outcome.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Http { failure, .. } => failure.is_transient(),
            Self::Status { status, .. } => {
                status.is_server_error()
                    || matches!(*status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
            }
            Self::Truncated { .. } | Self::Slow { .. } => true,
            _ => false,
        }
    }
}
