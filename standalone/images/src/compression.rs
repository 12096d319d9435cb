//! How a layer is compressed, told by its first bytes: media types are wrong often enough.

use std::io::{self, BufReader, Read};

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The first of the sixteen frames that hold no data; archives with an index begin with one, or end with it.
const ZSTD_SKIPPABLE: [u8; 3] = [0x2a, 0x4d, 0x18];

/// Bytes looked ahead; more than any of the marks.
const BUFFER: usize = 64 << 10;

/// Memory a zstd frame may ask for, as a power of two: what `zstd --ultra` writes at most without being told otherwise.
const ZSTD_WINDOW_LOG: u32 = 27;

/// The archive within: as it is, or out of gzip or zstd.
pub fn decompress<'a>(input: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut head = [0; 4];
    let mut input = input;
    let length = read_up_to(&mut input, &mut head)?;
    let input = BufReader::with_capacity(BUFFER, io::Cursor::new(head).take(length as u64).chain(input));
    Ok(match head {
        [a, b, ..] if [a, b] == GZIP => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        [_, rest @ ..] if head == ZSTD || rest == ZSTD_SKIPPABLE => {
            let mut decoder = zstd::Decoder::with_buffer(input)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
        _ => Box::new(input),
    })
}

/// Whether what begins so is unpacked by [`decompress`].
pub(crate) fn is_compressed(head: [u8; 4]) -> bool {
    head.starts_with(&GZIP) || head == ZSTD || head[1..] == ZSTD_SKIPPABLE
}

/// As many bytes as there are, or as the buffer holds.
pub(crate) fn read_up_to(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
