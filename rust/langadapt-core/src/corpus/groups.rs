//! Where the frames of a zstd file end, found without decompressing them.
//!
//! Every block of a frame tells its size in three bytes (RFC 8878), so a frame can be taken from a file by walking over
//! them. Frames that follow each other are taken in groups of [`GROUP`] bytes or more, so that small ones are worth the
//! handing over. Whatever is unusual, damaged or large is left to a decoder that reads on from there.

use std::io::{self, BufRead, Read};

/// Decompressed bytes that end a group.
const GROUP: usize = 1 << 20;
/// Decompressed bytes of the largest frame that is taken whole; twice what a corpus of ours has.
const LARGEST: usize = 16 << 20;
/// A block's most, whatever the window (RFC 8878, 3.1.1.2.4).
const BLOCK: usize = 128 << 10;
/// Windows of more than 2^31 bytes are refused, by the decoder.
const WINDOW_LOG_MAX: u8 = 31;

/// What comes next in a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Group {
    /// Whole frames, and how many bytes they hold at most.
    Frames(Vec<u8>, usize),
    /// What was read of something that is to be decompressed as a stream, with all that follows.
    Stream(Vec<u8>),
    End,
}

/// Takes the next frames from `input`. One that is alone in its file is a stream: others can work on what is
/// decompressed already while the rest of it still is.
pub(super) fn next_group(input: &mut impl BufRead, is_first: bool) -> io::Result<Group> {
    let (mut bytes, mut room, mut frames) = (Vec::new(), 0, 0);
    while room < GROUP {
        match take(input, &mut bytes)? {
            Taken::Frame(most) => {
                room += most;
                frames += 1;
            }
            Taken::Skipped => {}
            Taken::Unusual => return Ok(Group::Stream(bytes)),
            Taken::Nothing => break,
        }
    }
    if is_first && frames == 1 && input.fill_buf()?.is_empty() {
        return Ok(Group::Stream(bytes));
    }
    Ok(if frames > 0 { Group::Frames(bytes, room) } else { Group::End })
}

enum Taken {
    /// It holds so many bytes at most.
    Frame(usize),
    Skipped,
    Unusual,
    /// The file ends here.
    Nothing,
}

/// Appends a frame to `bytes`. What is unusual is appended as far as it was read.
fn take(input: &mut impl BufRead, bytes: &mut Vec<u8>) -> io::Result<Taken> {
    let start = bytes.len();
    if !more(input, bytes, 4)? {
        return Ok(if bytes.len() == start { Taken::Nothing } else { Taken::Unusual });
    }
    match bytes[start..] {
        [0x28, 0xb5, 0x2f, 0xfd] => {}
        [0x50..=0x5f, 0x2a, 0x4d, 0x18] => return skip(input, bytes),
        _ => return Ok(Taken::Unusual),
    }
    let Some(header) = Header::take(input, bytes)? else { return Ok(Taken::Unusual) };
    let mut most = 0;
    loop {
        let at = bytes.len();
        // Blocks may be empty, any number of them.
        if at - start > LARGEST || !more(input, bytes, 3)? {
            return Ok(Taken::Unusual);
        }
        let block = usize::from(bytes[at]) | usize::from(bytes[at + 1]) << 8 | usize::from(bytes[at + 2]) << 16;
        let size = block >> 3;
        let (stored, holds) = match block >> 1 & 3 {
            0 => (size, size),
            1 => (1, size),
            2 => (size, BLOCK),
            _ => return Ok(Taken::Unusual),
        };
        most += holds;
        if size > BLOCK || most > LARGEST || !more(input, bytes, stored)? {
            return Ok(Taken::Unusual);
        }
        if block & 1 == 1 {
            break;
        }
    }
    if header.has_checksum && !more(input, bytes, 4)? {
        return Ok(Taken::Unusual);
    }
    Ok(Taken::Frame(header.content.map_or(most, |content| content.min(most))))
}

/// What a frame says of itself.
struct Header {
    has_checksum: bool,
    content: Option<usize>,
}

impl Header {
    /// Takes what follows the magic number; `None` for a frame that is cut off or not to be taken whole.
    fn take(input: &mut impl BufRead, bytes: &mut Vec<u8>) -> io::Result<Option<Self>> {
        let at = bytes.len();
        if !more(input, bytes, 1)? {
            return Ok(None);
        }
        let about = bytes[at];
        let is_single = about & 0x20 != 0;
        let size_of_content = match about >> 6 {
            0 => usize::from(is_single),
            flag => 1 << flag,
        };
        let has_dictionary = about & 3 != 0;
        if has_dictionary || about & 8 != 0 || !more(input, bytes, usize::from(!is_single) + size_of_content)? {
            return Ok(None);
        }
        // The window's logarithm stands in the upper five bits, less ten.
        if !is_single && (bytes[at + 1] >> 3) + 10 > WINDOW_LOG_MAX - 1 {
            return Ok(None);
        }
        let digits = &bytes[bytes.len() - size_of_content..];
        let content = digits.iter().rev().fold(0, |value, &digit| value << 8 | u64::from(digit));
        let content = if size_of_content == 2 { content + 256 } else { content };
        let content = usize::try_from(content).ok().filter(|&content| content <= LARGEST);
        Ok(match (size_of_content, content) {
            (0, _) => Some(Self { has_checksum: about & 4 != 0, content: None }),
            (_, None) => None,
            (_, content) => Some(Self { has_checksum: about & 4 != 0, content }),
        })
    }
}

/// Passes over a frame that holds no data, whose magic number is the end of `bytes`, and forgets it.
fn skip(input: &mut impl BufRead, bytes: &mut Vec<u8>) -> io::Result<Taken> {
    let start = bytes.len() - 4;
    if !more(input, bytes, 4)? {
        return Ok(Taken::Unusual);
    }
    let size = bytes[start + 4..].iter().rev().fold(0, |value, &digit| value << 8 | u64::from(digit));
    if io::copy(&mut input.take(size), &mut io::sink())? < size {
        return Ok(Taken::Unusual);
    }
    bytes.truncate(start);
    Ok(Taken::Skipped)
}

/// Appends `wanted` bytes; false where the file ends before.
fn more(input: &mut impl BufRead, bytes: &mut Vec<u8>, wanted: usize) -> io::Result<bool> {
    Ok(input.take(wanted as u64).read_to_end(bytes)? == wanted)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn frame(content: &[u8], tells_size: bool) -> Vec<u8> {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.include_checksum(content.len().is_multiple_of(2)).unwrap();
        encoder.set_pledged_src_size(tells_size.then_some(content.len() as u64)).unwrap();
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn noise(size: usize) -> Vec<u8> {
        (0..size as u64).map(|n| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8 & 0x3f).collect()
    }

    /// The groups of a file; what is left to a stream, with all behind it.
    fn groups(mut file: &[u8]) -> (Vec<Vec<u8>>, Option<Vec<u8>>) {
        let mut found = Vec::new();
        loop {
            match next_group(&mut file, found.is_empty()).unwrap() {
                Group::Frames(frames, most) => {
                    let content = zstd::decode_all(&frames[..]).unwrap();
                    assert!(content.len() <= most, "{} {most}", content.len());
                    found.push(content);
                }
                Group::Stream(read) => return (found, Some([&read, file].concat())),
                Group::End => return (found, None),
            }
        }
    }

    #[test]
    fn groups_are_the_file() {
        let sizes = [0, 1, 255, 256, 300, 65_791, 65_792, 900_000, 1 << 20, 5_000_000, 3];
        for tells_size in [false, true] {
            let contents: Vec<Vec<u8>> = sizes.map(noise).to_vec();
            let mut file = vec![0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
            contents.iter().for_each(|content| file.extend(frame(content, tells_size)));
            file.extend([0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0]);
            let (found, stream) = groups(&file);
            assert!((found.concat(), stream) == (contents.concat(), None));
            assert!(found.len() > 2 && found[..found.len() - 1].iter().all(|group| group.len() > 500_000));
        }
    }

    #[test]
    fn the_rest_is_a_stream() {
        let (small, large) = (frame(&noise(2_000_000), true), frame(&noise(LARGEST + 1), false));
        assert!(groups(&small) == (Vec::new(), Some(small.clone())));
        for behind in [&large[..], b"none", b"ab", &small[..small.len() - 1], &small[..7], &[0x50, 0x2a, 0x4d, 0x18, 9]]
        {
            let (found, stream) = groups(&[&small, behind].concat());
            assert!(found.concat() == noise(2_000_000) && stream.as_deref() == Some(behind), "{}", behind.len());
        }
        // A frame that needs a dictionary, and one with a window of 2^32 bytes.
        for head in [[0x28, 0xb5, 0x2f, 0xfd, 1, 0], [0x28, 0xb5, 0x2f, 0xfd, 0, 22 << 3]] {
            assert!(groups(&[&small, &head[..]].concat()).1.is_some());
        }
    }
}
