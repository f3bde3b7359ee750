//! Reading any bytes and any texts: borders of batches and threads change nothing, and lines are those of plain Rust.

#[expect(dead_code, reason = "helpers of the other tests of readers")]
mod corpora;

use std::fs;
use std::path::Path;

use corpora::{Folder, gzip, in_parts, json_lines, read, zstd};
use langadapt_core::corpus::{ReadOptions, ReadReport};
use proptest::prelude::*;

/// What was read, or the error as the user reads it.
type Outcome = std::result::Result<(Vec<String>, ReadReport), String>;

fn try_through(path: &Path, bytes: &[u8], threads: usize, batch_bytes: usize) -> Outcome {
    fs::write(path, bytes).unwrap();
    let options = ReadOptions { batch_bytes, allow_empty: true, ..ReadOptions::default() };
    read(&[path.to_str().unwrap()], &options, threads).map_err(|error| error.to_string())
}

fn through(path: &Path, bytes: &[u8], threads: usize, batch_bytes: usize) -> (Vec<String>, ReadReport) {
    try_through(path, bytes, threads, batch_bytes).unwrap()
}

/// Lines as Python's text files have them.
fn naive_lines(text: &str) -> Vec<String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n");
    let lines = text.split(['\n', '\r']).map(str::to_owned);
    lines.filter(|line| !line.bytes().all(|byte| byte.is_ascii_whitespace())).collect()
}

#[test]
fn a_mark_in_the_smallest_batches() {
    let folder = Folder::new();
    assert_eq!(through(&folder.0.join("a.txt"), "\u{feff}".as_bytes(), 1, 1).0, [""; 0]);
    assert_eq!(through(&folder.0.join("a.txt"), "\u{feff}a\nb".as_bytes(), 1, 1).0, ["a", "b"]);
    assert_eq!(through(&folder.0.join("a.txt"), "\u{feff}\u{feff}a".as_bytes(), 1, 1).0, ["\u{feff}a"]);
    assert_eq!(through(&folder.0.join("a.txt"), "\u{feff}\u{feff}".as_bytes(), 1, 1).0, ["\u{feff}"]);
}

fn any_byte() -> impl Strategy<Value = u8> {
    prop_oneof![Just(b'\n'), Just(b'a'), Just(b'"'), any::<u8>()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any bytes at all: the batches' borders and the threads change nothing.
    #[test]
    fn any_bytes_read_alike(bytes in prop::collection::vec(any_byte(), 4..300), size in 1usize..100, threads in 1usize..4) {
        let folder = Folder::new();
        prop_assume!(!bytes.starts_with(&[0x1f, 0x8b]));
        for name in ["a.txt", "a.jsonl"] {
            let path = folder.0.join(name);
            prop_assert_eq!(try_through(&path, &bytes, 1, 1 << 20), try_through(&path, &bytes, threads, size));
        }
    }

    #[test]
    fn text_lines_equal_the_naive_split(text in "[ab \r\n\u{feff}ä]{0,200}", size in 1usize..100, threads in 1usize..4) {
        let folder = Folder::new();
        let lines = through(&folder.0.join("a.txt"), text.as_bytes(), threads, size).0;
        prop_assert_eq!(lines, naive_lines(&text));
    }

    #[test]
    fn utf16_reads_as_utf8_does(
        text in "[ab \r\nä中\u{1f600}]{1,300}", size in 1usize..100, threads in 1usize..4, big in any::<bool>(),
    ) {
        let folder = Folder::new();
        let to_bytes = if big { u16::to_be_bytes } else { u16::to_le_bytes };
        let wide: Vec<u8> = "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(to_bytes).collect();
        let path = folder.0.join("a.txt");
        prop_assert_eq!(through(&path, &wide, threads, size), through(&path, text.as_bytes(), 1, 1 << 20));
    }

    #[test]
    fn any_texts_survive(texts in prop::collection::vec(any::<String>(), 1..20), size in 1usize..100, threads in 1usize..4) {
        let folder = Folder::new();
        let bytes = json_lines(&texts);
        prop_assert_eq!(&through(&folder.0.join("a.jsonl"), &bytes, threads, size).0, &texts);
        prop_assert_eq!(&through(&folder.0.join("a.jsonl.zst"), &in_parts(&bytes, 3, zstd), threads, size).0, &texts);
        prop_assert_eq!(&through(&folder.0.join("a.jsonl.gz"), &in_parts(&bytes, 3, gzip), threads, size).0, &texts);
    }
}
