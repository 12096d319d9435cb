//! How the server is, as those ask who keep watch over it. Pure.

use crate::route::Query;

/// Kubernetes' three ways to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Healthz,
    Livez,
    Readyz,
}

impl Endpoint {
    /// What this segment of a path asks for.
    pub(crate) fn named(segment: &str) -> Option<Self> {
        Some(match segment {
            "healthz" => Self::Healthz,
            "livez" => Self::Livez,
            "readyz" => Self::Readyz,
            _ => return None,
        })
    }
}

/// The only check: a server that answers at all is well.
pub(crate) const CHECK: &str = "ping";

/// The answer, for people with `?verbose`.
pub(crate) fn answer(endpoint: Endpoint, query: &Query) -> &'static str {
    match endpoint {
        _ if query.get("verbose").is_none() => "ok",
        Endpoint::Healthz => "[+]ping ok\nhealthz check passed\n",
        Endpoint::Livez => "[+]ping ok\nlivez check passed\n",
        Endpoint::Readyz => "[+]ping ok\nreadyz check passed\n",
    }
}
