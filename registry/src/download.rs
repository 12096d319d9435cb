//! Layers: more bytes than anybody keeps in memory, through interruptions.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::CONTENT_RANGE;
use reqwest::{Response, StatusCode};
use ropewalk_core::images::reference::Digest;
use tokio::sync::mpsc;

use crate::error::Error;
use crate::http::STALL;
use crate::patience::Patience;
use crate::session::Session;

/// Bytes in a second below which a transfer is given up: nobody waits for a gigabyte that takes nine hours.
const LEAST_RATE: u64 = 32 << 10;
/// Bytes after which an interruption counts as the first one again.
const WORTH_GOING_ON: u64 = 16 << 20;

impl Session<'_> {
    /// Sends the blob of this digest, which has `size` bytes, in pieces of a few kilobytes. Goes on where it was when the
    /// connection breaks. Whether the bytes are those that the digest stands for is the receiver's to find out, who reads
    /// them anyway; a receiver that has gone ends it.
    pub async fn download(&self, digest: &Digest, size: u64, to: &mpsc::Sender<Bytes>) -> Result<(), Error> {
        let mut patience = Patience::default();
        let mut at = 0;
        loop {
            let before = at;
            let limit = STALL + Duration::from_secs((size - at) / LEAST_RATE);
            let rest = tokio::time::timeout(limit, self.rest(digest, size, &mut at, to));
            let error = match rest.await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => error,
                Err(_) => self.slow(),
            };
            if at == size {
                return Ok(());
            }
            if at - before >= WORTH_GOING_ON {
                patience.restore();
            }
            patience.wait(error).await?;
        }
    }

    /// One request for what is missing from byte `at` on.
    async fn rest(
        &self,
        digest: &Digest,
        size: u64,
        at: &mut u64,
        to: &mpsc::Sender<Bytes>,
    ) -> Result<(), Error> {
        let mut response = self.blob_from(digest, *at).await?;
        // A server that does not know ranges begins at the beginning.
        let mut to_skip = match response.status() {
            StatusCode::PARTIAL_CONTENT if starts_at(&response, *at) => 0,
            StatusCode::OK => *at,
            StatusCode::NOT_FOUND => return Err(self.missing(digest)),
            _ => return Err(self.unhelpful(&response)),
        };
        while let Some(chunk) = response.chunk().await.map_err(|error| self.broken(&error))? {
            let skipped = to_skip.min(chunk.len() as u64);
            to_skip -= skipped;
            let piece = chunk.slice(usize::try_from(skipped).unwrap_or(chunk.len())..);
            if piece.is_empty() {
                continue;
            }
            if piece.len() as u64 > size - *at {
                return Err(self.longer(digest, size));
            }
            *at += piece.len() as u64;
            if to.send(piece).await.is_err() {
                return Ok(());
            }
        }
        if *at < size { Err(self.truncated(size - *at)) } else { Ok(()) }
    }
}

/// `bytes 100-199/200`
fn starts_at(response: &Response, at: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let first = range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse().ok());
    first == Some(at)
}
