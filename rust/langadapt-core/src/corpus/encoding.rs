//! What the bytes of a text are: UTF-8, with or without a mark, or UTF-16 with one. All else is refused.
//!
//! Python's own tools need to be told what a file holds; here it is told by its first [`HEAD`] bytes. Without a mark
//! nothing but UTF-8 is certain, so nothing else is converted.

use super::line_ends;

/// Bytes that are looked at.
pub(super) const HEAD: usize = 64 << 10;

/// What is put where UTF-16 is broken: no UTF-8 has it, so that the line is counted as one that holds no text.
const BROKEN: u8 = 0xFF;

/// The line, and what is wrong with it.
pub(super) type Refusal = (u64, String);

/// Bytes from the start of a file that [`other_kind`] needs for what may have any name; archives take 300.
pub(super) const MARK: usize = 64;

/// What a file that begins with `head` is where it is no text whatever its name says, and what to do about it.
pub(super) fn other_kind(head: &[u8]) -> Option<&'static str> {
    const KINDS: [(usize, &[u8], &str); 12] = [
        (
            0,
            b"version https://git-lfs.github.com/spec/",
            "a pointer of Git LFS and not the file itself; fetch that with `git lfs pull`",
        ),
        (0, b"PAR1\x15", "a Parquet file; let its name end in `.parquet`"),
        (0, b"\x1f\x8b\x08", "gzip data; unpack it"),
        (0, b"\x28\xb5\x2f\xfd", "zstd data; unpack it"),
        (0, b"\xfd7zXZ\0", "xz data; unpack it"),
        (4, b"1AY&SY", "bzip2 data; unpack it"),
        (0, b"PK\x03\x04", "a ZIP archive; unpack it and name the files in it, or save the document in it as text"),
        (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it and name the files in it"),
        (0, b"Rar!\x1a\x07", "a RAR archive; unpack it and name the files in it"),
        (256, b"\0ustar", "a tar archive; unpack it and name the files in it"),
        (0, b"%PDF-1.", "a PDF; extract its text first"),
        (0, b"ARROW1\0\0", "an Arrow file; save it as Parquet"),
    ];
    KINDS.iter().find(|(at, mark, _)| head.get(*at..).is_some_and(|rest| rest.starts_with(mark))).map(|kind| kind.2)
}

/// The decoder of a text that begins with `head`, where it is no UTF-8, and the length of its mark; `is_all`: nothing
/// follows.
pub(super) fn detect(head: &[u8], is_all: bool) -> Result<(Option<Utf16>, usize), Refusal> {
    if let Some(kind) = other_kind(head) {
        return Err((1, format!("no text but {kind}")));
    }
    match head {
        [0xEF, 0xBB, 0xBF, ..] => Ok((None, 3)),
        [0xFF, 0xFE, 0, 0, ..] | [0, 0, 0xFE, 0xFF, ..] => Err((1, remedy("UTF-32", "UTF-32"))),
        [0xFF, 0xFE, ..] => Ok((Some(Utf16::new(u16::from_le_bytes)), 2)),
        [0xFE, 0xFF, ..] => Ok((Some(Utf16::new(u16::from_be_bytes)), 2)),
        _ => match wide(head).or_else(|| unspaced(head)).or_else(|| escaped(head)).or_else(|| legacy(head, is_all)) {
            Some(refusal) => Err(refusal),
            None => Ok((None, 0)),
        },
    }
}

fn remedy(what: &str, name: &str) -> String {
    format!("not UTF-8 but {what}: convert the file with `iconv -f {name} -t UTF-8`")
}

/// Whether zero bytes betray characters of two or four bytes: they are many, or they are some and all in one half of
/// the pairs.
fn wide(head: &[u8]) -> Option<Refusal> {
    let zeros = |parity: usize| head.iter().skip(parity).step_by(2).filter(|byte| **byte == 0).count();
    memchr::memchr(0, head)?;
    let (even, odd) = (zeros(0), zeros(1));
    let (few, many) = (even.min(odd), even.max(odd));
    if many < 4 || many * 32 < head.len() {
        return None;
    }
    let name = if odd > even { "UTF-16LE" } else { "UTF-16BE" };
    if few * 16 <= many {
        return Some((1, remedy(&format!("what looks like {name} without a mark"), name)));
    }
    (many * 8 >= head.len()).then(|| (1, "not UTF-8 but binary data, or UTF-32 without a mark".to_owned()))
}

/// Whether every second byte is a control character: UTF-16 of a script below U+2000 that has no spaces, such as Thai,
/// whose other bytes are ASCII.
fn unspaced(head: &[u8]) -> Option<Refusal> {
    let is_control = |byte: &&u8| **byte < 0x20 && !matches!(**byte, b'\t' | b'\n' | b'\r' | 0x0C);
    let controls = |parity: usize| head.iter().skip(parity).step_by(2).filter(is_control).count();
    let (even, odd, pairs) = (controls(0), controls(1), head.len() / 2);
    let (few, many) = (even.min(odd), even.max(odd));
    if pairs < 4 || many * 4 < pairs * 3 {
        return None;
    }
    if few * 4 > many * 3 {
        return Some((1, "not UTF-8 but binary data".to_owned()));
    }
    let name = if odd > even { "UTF-16LE" } else { "UTF-16BE" };
    Some((1, remedy(&format!("what looks like {name} without a mark"), name)))
}

/// Whether escape sequences switch character sets: all bytes are ASCII then, and none means what it says.
fn escaped(head: &[u8]) -> Option<Refusal> {
    let sets: [(&[u8], &str); 3] =
        [(b"\x1b$B", "ISO-2022-JP"), (b"\x1b$@", "ISO-2022-JP"), (b"\x1b$)C", "ISO-2022-KR")];
    let (at, name) = sets.iter().find_map(|(mark, name)| Some((memchr::memmem::find(head, mark)?, name)))?;
    Some((1 + line_ends::count(&head[..at]), remedy(&format!("what looks like {name}"), name)))
}

/// Whether lines that are no UTF-8 are too many to be accidents, in a text that has no line of UTF-8 but ASCII.
fn legacy(head: &[u8], is_all: bool) -> Option<Refusal> {
    if simdutf8::basic::from_utf8(head).is_ok() {
        return None;
    }
    // The last line may be cut anywhere.
    let end = if is_all { head.len() } else { memchr::memrchr2(b'\n', b'\r', head).unwrap_or(0) };
    let (mut lines, mut broken, mut first) = (0u64, 0u64, None);
    let mut start = 0;
    while start < end {
        let (length, whole) = line_ends::split(&head[start..end]);
        let line = &head[start..start + length];
        lines += u64::from(!line.trim_ascii().is_empty());
        match std::str::from_utf8(line) {
            Ok(text) if !text.is_ascii() => return None,
            Ok(_) => {}
            Err(error) => {
                broken += 1;
                let at = error.valid_up_to();
                first.get_or_insert((1 + line_ends::count(&head[..start]), at, line[at]));
            }
        }
        start += whole;
    }
    let (number, at, byte) = first.filter(|_| broken * 10 >= lines)?;
    let place = format!("not UTF-8 at byte {} (0x{byte:02x}), as {broken} of {lines} lines", at + 1);
    Some((
        number,
        format!("{place}: if it is Latin-1 or Windows-1252, convert the file with `iconv -f WINDOWS-1252 -t UTF-8`"),
    ))
}

/// UTF-16 to UTF-8, in pieces of any length.
pub(super) struct Utf16 {
    unit: fn([u8; 2]) -> u16,
    half: Option<u8>,
    high: Option<u16>,
}

impl Utf16 {
    fn new(unit: fn([u8; 2]) -> u16) -> Self {
        Self { unit, half: None, high: None }
    }

    /// Appends what `bytes` stand for.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for &byte in bytes {
            match self.half.take() {
                None => self.half = Some(byte),
                Some(first) => self.push_unit((self.unit)([first, byte]), out),
            }
        }
    }

    fn push_unit(&mut self, unit: u16, out: &mut Vec<u8>) {
        if (0xDC00..0xE000).contains(&unit)
            && let Some(high) = self.high.take()
        {
            let code = 0x10000 + ((u32::from(high) - 0xD800) << 10) + (u32::from(unit) - 0xDC00);
            return push_char(code, out);
        }
        if self.high.take().is_some() {
            out.push(BROKEN);
        }
        match unit {
            0xD800..0xDC00 => self.high = Some(unit),
            _ => push_char(u32::from(unit), out),
        }
    }

    /// Appends what stands for a text that ends amid a character.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if self.half.take().is_some() || self.high.take().is_some() {
            out.push(BROKEN);
        }
    }
}

fn push_char(code: u32, out: &mut Vec<u8>) {
    match char::from_u32(code) {
        Some(character) => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        None => out.push(BROKEN),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(head: &[u8]) -> Refusal {
        detect(head, true).err().unwrap_or_default()
    }

    #[test]
    fn what_is_certain_is_read() {
        let colours = "\x1b[31mred\x1b[0m $B\n";
        for head in ["", "a", "Gr\u{fc}\u{df}e\n", "\u{feff}a", "a\0b\n", "a\nb\n\tc\n", colours, "\u{4e2d}\u{6587}"] {
            assert!(detect(head.as_bytes(), true).is_ok_and(|(utf16, _)| utf16.is_none()), "{head:?}");
        }
        // One broken line in many, or beside good ones, is an accident.
        assert!(detect(&[b"ascii\n".repeat(20).as_slice(), b"br\xf6ken\n"].concat(), true).is_ok());
        assert!(detect("gut: \u{f6}\n".bytes().chain(*b"br\xf6ken\n").collect::<Vec<_>>().as_slice(), true).is_ok());
        // The head may end amid a character.
        assert!(detect(&"\u{4e2d}".as_bytes()[..2], false).is_ok());
    }

    #[test]
    fn what_is_not_is_refused_with_its_place() {
        let wide: Vec<u8> = "{\"text\": \"abc\"}\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(refused(&wide).1.contains("UTF-16LE without a mark"));
        assert!(refused(&wide[1..]).1.contains("UTF-16BE without a mark"));
        assert!(refused(b"\xff\xfe\0\0a\0\0\0").1.contains("UTF-32"));
        assert!(
            refused(&"abcdef".chars().flat_map(|c| u32::from(c).to_le_bytes()).collect::<Vec<_>>()).1.contains("32")
        );
        for script in [
            "\u{e2a}\u{e27}\u{e31}\u{e2a}\u{e14}\u{e35}".repeat(20),
            "\u{1019}\u{103c}\u{1014}\u{103a}\u{1019}\u{102c}".repeat(9),
        ] {
            let bytes: Vec<u8> = script.encode_utf16().flat_map(u16::to_be_bytes).collect();
            assert!(refused(&bytes).1.contains("UTF-16BE without a mark"), "{script}");
            let bytes: Vec<u8> = script.encode_utf16().flat_map(u16::to_le_bytes).collect();
            assert!(refused(&bytes).1.contains("UTF-16LE without a mark"), "{script}");
        }
        assert_eq!(refused(b"ascii\n\x1b$B$3$s\x1b(B\n"), (2, remedy("what looks like ISO-2022-JP", "ISO-2022-JP")));
        let (line, reason) = refused(b"ascii\r\n\r\nGr\xfc\xdfe\r\n");
        assert!(line == 3 && reason.contains("byte 3 (0xfc)"), "{line} {reason}");
    }

    proptest! {
        #[test]
        fn utf16_in_pieces(text in any::<String>(), size in 1usize..9, big in any::<bool>()) {
            let to_bytes = if big { u16::to_be_bytes } else { u16::to_le_bytes };
            let bytes: Vec<u8> = text.encode_utf16().flat_map(to_bytes).collect();
            let mut decoder = Utf16::new(if big { u16::from_be_bytes } else { u16::from_le_bytes });
            let mut out = Vec::new();
            bytes.chunks(size).for_each(|part| decoder.push(part, &mut out));
            decoder.finish(&mut out);
            prop_assert_eq!(out, text.into_bytes());
        }

        #[test]
        fn broken_utf16_is_no_utf8(units in prop::collection::vec(0xD7F0u16..0xE010, 1..9)) {
            let mut decoder = Utf16::new(u16::from_le_bytes);
            let mut out = Vec::new();
            units.iter().for_each(|unit| decoder.push(&unit.to_le_bytes(), &mut out));
            decoder.finish(&mut out);
            prop_assert_eq!(String::from_utf8(out).ok(), String::from_utf16(&units).ok());
        }
    }
}
