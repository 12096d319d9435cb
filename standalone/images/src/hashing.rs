//! Digests of what is read, on the way. Pure.

use std::io::{self, Read};

use ring::digest::{Context, SHA256};
use ropewalk_core::images::reference::Digest;

/// Reads on, and knows the digest and the length of what went by.
pub(crate) struct Hashing<R> {
    input: R,
    context: Context,
    bytes: u64,
    has_failed: bool,
}

impl<R: Read> Hashing<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, context: Context::new(&SHA256), bytes: 0, has_failed: false }
    }

    /// Whether the input could not be read to where it was asked for.
    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// `sha256:` and the digits, and how many bytes that were.
    pub(crate) fn finish(self) -> (String, u64) {
        let hash = self.context.finish();
        let digits = hash.as_ref().iter().map(|byte| format!("{byte:02x}"));
        (std::iter::once("sha256:".to_owned()).chain(digits).collect(), self.bytes)
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer);
        self.has_failed |= matches!(&read, Err(error) if error.kind() != io::ErrorKind::Interrupted);
        let count = read?;
        self.context.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }
}

/// The digest without `sha256:`, as names of files have it.
pub(crate) fn hex(digest: &Digest) -> String {
    digest.to_string().split_off("sha256:".len())
}

/// The names of layers together with all that is below them, from the lowest on: the image specification's chain IDs.
pub(crate) fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chains: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let chain = match chains.last() {
            None => diff_id.clone(),
            Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
        };
        chains.push(chain);
    }
    chains
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_has_the_digest_of_its_bytes() {
        let mut reader = Hashing::new(&b"hello"[..]);
        io::copy(&mut reader, &mut io::sink()).expect("memory");
        assert_eq!(reader.finish(), (Digest::of(b"hello").to_string(), 5));
    }

    #[test]
    fn a_chain_is_named_by_what_is_below_and_what_is_on_top() {
        let [a, b] = [Digest::of(b"a"), Digest::of(b"b")];
        let upon = |below: &Digest, top: &Digest| Digest::of(format!("{below} {top}").as_bytes());
        let [ab, ba] = [upon(&a, &b), upon(&b, &a)];
        assert_eq!(chain_ids(&[a.clone(), b.clone()]), [a.clone(), ab.clone()]);
        assert_eq!(chain_ids(&[b.clone(), a.clone(), b.clone()]), [b.clone(), ba.clone(), upon(&ba, &b)]);
        assert_ne!(ab, ba);
    }
}
