//! Where lines end: at LF, CR LF or CR, as Python's text files have it.

/// The place behind the last line end. A CR in the last place is none yet: an LF may follow.
pub(super) fn last(bytes: &[u8]) -> Option<usize> {
    let mut end = bytes.len();
    if bytes.last() == Some(&b'\r') {
        end -= 1;
    }
    memchr::memrchr2(b'\n', b'\r', &bytes[..end]).map(|at| at + 1)
}

/// The place behind the first line end; `at_end`: nothing follows.
pub(super) fn first(bytes: &[u8], at_end: bool) -> Option<usize> {
    let at = memchr::memchr2(b'\n', b'\r', bytes)?;
    match bytes.get(at + 1) {
        _ if bytes[at] == b'\n' => Some(at + 1),
        Some(b'\n') => Some(at + 2),
        None if !at_end => None,
        _ => Some(at + 1),
    }
}

/// How many there are.
pub(super) fn count(bytes: &[u8]) -> u64 {
    let lone = |at: &usize| bytes.get(at + 1) != Some(&b'\n');
    (memchr::memchr_iter(b'\n', bytes).count() + memchr::memchr_iter(b'\r', bytes).filter(lone).count()) as u64
}

/// How long the line is that `bytes` begin with, and that line with its end.
pub(super) fn split(bytes: &[u8]) -> (usize, usize) {
    match memchr::memchr2(b'\n', b'\r', bytes) {
        None => (bytes.len(), bytes.len()),
        Some(at) if bytes[at..].starts_with(b"\r\n") => (at, at + 2),
        Some(at) => (at, at + 1),
    }
}
