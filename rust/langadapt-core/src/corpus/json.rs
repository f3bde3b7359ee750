//! One string field out of one JSON line, without building the rest.
//!
//! The line is checked against the whole grammar (RFC 8259), so that a torn or garbled line is noticed even where the
//! damage lies outside the text. Three liberties against `serde_json`: numbers of any size are skipped, `NaN`
//! and `Infinity` are too, and a lone surrogate escape is an error only inside the text field. The last of repeated
//! keys wins, as in Python.
//!
//! Escapes are undone in place: every escape is longer than the UTF-8 it stands for, so the text shrinks inside the
//! line's own bytes, and a text without escapes is not touched at all.

use std::ops::Range;

use super::report::{Fault, Kind};

/// Containers inside containers; deeper lines are refused. One bit each in a `u128`.
const MAX_DEPTH: u32 = 127;

/// Where the text of `field` lies in `line` afterwards. Bytes of `line` outside that range are spoilt.
///
/// `line` must be valid UTF-8 without a line feed; it is one JSON object, perhaps amid white space.
pub(super) fn extract(line: &mut [u8], field: &str) -> Result<Range<usize>, Fault> {
    let mut scanner = Scanner { bytes: line, at: 0 };
    match scanner.object(field.as_bytes()) {
        Ok(Found::Text(range)) => Ok(range),
        Ok(Found::Other(what)) => {
            Err(Fault::new(Kind::MissingText, format!("field `{field}` is {what}, not a string")))
        }
        Ok(Found::Nothing) => Err(Fault::new(Kind::MissingText, absent(field, &scanner.names()))),
        Err(what) => {
            let at = scanner.at + 1;
            Err(Fault::new(Kind::MalformedJson, format!("malformed JSON at byte {at} of the line: {what}")))
        }
    }
}

/// Appends the line `{"text": ...}` with its line feed.
pub(super) fn write_line(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"text\":\"");
    let mut rest = text.as_bytes();
    loop {
        let run = plain_run(rest);
        out.extend_from_slice(&rest[..run]);
        let Some(&special) = rest.get(run) else { break };
        match special {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', special]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => out.extend_from_slice(format!("\\u{special:04x}").as_bytes()),
        }
        rest = &rest[run + 1..];
    }
    out.extend_from_slice(b"\"}\n");
}

fn absent(field: &str, names: &[String]) -> String {
    if names.is_empty() {
        return format!("no field `{field}`: the object is empty");
    }
    let list = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    format!("no field `{field}` (fields: {list}); name the one that holds the text with `text_field` (`--text-field`)")
}

enum Found {
    Text(Range<usize>),
    Other(&'static str),
    Nothing,
}

type Scan<T> = Result<T, &'static str>;

struct Scanner<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl Scanner<'_> {
    fn object(&mut self, field: &[u8]) -> Scan<Found> {
        let mut found = Found::Nothing;
        if self.token() != Some(b'{') {
            return Err("expected `{`");
        }
        self.at += 1;
        if self.token() == Some(b'}') {
            self.at += 1;
        } else {
            loop {
                let key = self.key()?;
                if !self.is_name(key, field) {
                    self.skip_value()?;
                } else if self.token() == Some(b'"') {
                    found = Found::Text(self.text()?);
                } else {
                    let what = kind_of(self.token());
                    self.skip_value()?;
                    found = Found::Other(what);
                }
                match self.token() {
                    Some(b',') => self.at += 1,
                    Some(b'}') => break self.at += 1,
                    _ => return Err("expected `,` or `}`"),
                }
            }
        }
        if self.token().is_some() {
            return Err("characters after the object");
        }
        Ok(found)
    }

    /// Reads `"key" :` and returns the range between the quotes.
    fn key(&mut self) -> Scan<Range<usize>> {
        if self.token() != Some(b'"') {
            return Err("expected a quoted key");
        }
        let raw = self.skip_string()?;
        if self.token() != Some(b':') {
            return Err("expected `:`");
        }
        self.at += 1;
        Ok(raw)
    }

    fn is_name(&self, key: Range<usize>, field: &[u8]) -> bool {
        if memchr::memchr(b'\\', &self.bytes[key.clone()]).is_none() {
            return &self.bytes[key] == field;
        }
        let mut copy = self.bytes[key.start - 1..key.end + 1].to_vec();
        let text = Scanner { bytes: &mut copy, at: 0 }.text();
        text.is_ok_and(|range| &copy[range] == field)
    }

    /// The first keys of an object that was found to be well-formed.
    fn names(&mut self) -> Vec<String> {
        let mut names = Vec::new();
        self.at = 0;
        self.token();
        self.at += 1;
        while names.len() < 5
            && let Ok(key) = self.key()
        {
            names.push(String::from_utf8_lossy(&self.bytes[key]).into_owned());
            let more = self.skip_value().is_ok() && self.token() == Some(b',');
            self.at += 1;
            if !more {
                break;
            }
        }
        names
    }

    /// The next byte that is no white space.
    fn token(&mut self) -> Option<u8> {
        while let Some(&byte) = self.bytes.get(self.at) {
            if !matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
                return Some(byte);
            }
            self.at += 1;
        }
        None
    }

    fn skip_value(&mut self) -> Scan<()> {
        // Bit n tells whether container n is an object.
        let (mut kinds, mut depth) = (0u128, 0u32);
        loop {
            match self.token() {
                Some(open @ (b'{' | b'[')) => {
                    depth += 1;
                    if depth >= MAX_DEPTH {
                        return Err("nested too deep");
                    }
                    kinds = kinds << 1 | u128::from(open == b'{');
                    self.at += 1;
                    if self.token() != Some(if open == b'{' { b'}' } else { b']' }) {
                        if open == b'{' {
                            self.key()?;
                        }
                        continue;
                    }
                }
                Some(b'"') => self.skip_string().map(|_| ())?,
                Some(b'-' | b'0'..=b'9') => self.skip_number()?,
                Some(b't') => self.skip_word(b"true")?,
                Some(b'f') => self.skip_word(b"false")?,
                Some(b'n') => self.skip_word(b"null")?,
                // Not JSON, but what Python's `json` writes.
                Some(b'N') => self.skip_word(b"NaN")?,
                Some(b'I') => self.skip_word(b"Infinity")?,
                _ => return Err("expected a value"),
            }
            if !self.close_or_next(&mut kinds, &mut depth)? {
                return Ok(());
            }
        }
    }

    /// After a value: closes what ends here; true if another value of an open container follows.
    fn close_or_next(&mut self, kinds: &mut u128, depth: &mut u32) -> Scan<bool> {
        while *depth > 0 {
            let is_object = *kinds & 1 == 1;
            match self.token() {
                Some(b',') => {
                    self.at += 1;
                    if is_object {
                        self.key()?;
                    }
                    return Ok(true);
                }
                Some(b'}') if is_object => self.at += 1,
                Some(b']') if !is_object => self.at += 1,
                _ => return Err("expected `,` or the end of the container"),
            }
            *kinds >>= 1;
            *depth -= 1;
        }
        Ok(false)
    }

    fn skip_word(&mut self, word: &[u8]) -> Scan<()> {
        if !self.bytes[self.at..].starts_with(word) {
            return Err("expected a value");
        }
        self.at += word.len();
        Ok(())
    }

    fn skip_digits(&mut self) -> Scan<()> {
        let start = self.at;
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        if self.at == start { Err("expected a digit") } else { Ok(()) }
    }

    fn skip_number(&mut self) -> Scan<()> {
        if self.bytes[self.at] == b'-' {
            self.at += 1;
            if self.bytes.get(self.at) == Some(&b'I') {
                return self.skip_word(b"Infinity");
            }
        }
        if self.bytes.get(self.at) == Some(&b'0') {
            self.at += 1;
        } else {
            self.skip_digits()?;
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.skip_digits()?;
        }
        if matches!(self.bytes.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.bytes.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.skip_digits()?;
        }
        Ok(())
    }

    /// Skips the string that starts here and returns the range between its quotes, escapes still in place.
    fn skip_string(&mut self) -> Scan<Range<usize>> {
        let start = self.at + 1;
        self.at = start;
        loop {
            self.at += plain_run(&self.bytes[self.at..]);
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(start..self.at - 1);
                }
                Some(b'\\') => match self.bytes.get(self.at + 1) {
                    Some(b'u') => {
                        self.hex4(self.at + 2)?;
                        self.at += 6;
                    }
                    Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
                    _ => return Err("unknown escape"),
                },
                Some(_) => return Err("control character in a string"),
                None => return Err("the string does not end"),
            }
        }
    }

    /// Undoes the escapes of the string that starts here, in place; returns where its text lies now.
    fn text(&mut self) -> Scan<Range<usize>> {
        let start = self.at + 1;
        self.at = start;
        let mut end = start;
        loop {
            let run = plain_run(&self.bytes[self.at..]);
            if end != self.at {
                self.bytes.copy_within(self.at..self.at + run, end);
            }
            end += run;
            self.at += run;
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(start..end);
                }
                Some(b'\\') => end += self.unescape(end)?,
                Some(_) => return Err("control character in a string"),
                None => return Err("the string does not end"),
            }
        }
    }

    /// Writes what the escape at `self.at` stands for to `to` and returns its length in bytes.
    fn unescape(&mut self, to: usize) -> Scan<usize> {
        let short = match self.bytes.get(self.at + 1) {
            Some(b'n') => b'\n',
            Some(&byte @ (b'"' | b'\\' | b'/')) => byte,
            Some(b't') => b'\t',
            Some(b'r') => b'\r',
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'u') => return self.unescape_unicode(to),
            _ => return Err("unknown escape"),
        };
        self.bytes[to] = short;
        self.at += 2;
        Ok(1)
    }

    fn unescape_unicode(&mut self, to: usize) -> Scan<usize> {
        const LONE: &str = "lone surrogate escape: the text is no Unicode";
        let mut code = self.hex4(self.at + 2)?;
        let mut length = 6;
        if (0xD800..0xDC00).contains(&code) {
            if self.bytes.get(self.at + 6..self.at + 8) != Some(b"\\u") {
                return Err(LONE);
            }
            let low = self.hex4(self.at + 8)?;
            if !(0xDC00..0xE000).contains(&low) {
                return Err(LONE);
            }
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
            length = 12;
        }
        let character = char::from_u32(code).ok_or(LONE)?;
        self.at += length;
        Ok(character.encode_utf8(&mut self.bytes[to..to + 4]).len())
    }

    fn hex4(&self, at: usize) -> Scan<u32> {
        let digits = self.bytes.get(at..at + 4).ok_or("a \\u escape needs four hex digits")?;
        digits.iter().try_fold(0, |code, &byte| {
            let digit = char::from(byte).to_digit(16).ok_or("a \\u escape needs four hex digits")?;
            Ok(code << 4 | digit)
        })
    }
}

fn kind_of(first: Option<u8>) -> &'static str {
    match first {
        Some(b'n') => "null",
        Some(b't' | b'f') => "a truth value",
        Some(b'{') => "an object",
        Some(b'[') => "a list",
        _ => "a number",
    }
}

/// How many bytes from the start of `bytes` hold neither a quote, a backslash nor a control character.
fn plain_run(bytes: &[u8]) -> usize {
    // A fixed block without an early exit compiles to a few SIMD compares on every target.
    const BLOCK: usize = 32;
    let mut at = 0;
    while let Some(block) = bytes.get(at..at + BLOCK) {
        let special = block.iter().fold(false, |any, &byte| any | is_special(byte));
        if special {
            break;
        }
        at += BLOCK;
    }
    at + bytes[at..].iter().position(|&byte| is_special(byte)).unwrap_or(bytes.len() - at)
}

fn is_special(byte: u8) -> bool {
    (byte == b'"') | (byte == b'\\') | (byte < 0x20)
}

#[cfg(test)]
mod tests;
