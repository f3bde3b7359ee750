//! Reading: every format gives the same documents, at any number of threads, and damage is never silent.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::Compression;
use flate2::write::GzEncoder;
use langadapt_core::corpus::{Batch, Inputs, ReadOptions, ReadReport, TextUnit, fold_documents, map_documents};
use langadapt_core::{Error, Monitor, Result};
use proptest::prelude::*;

/// A folder that vanishes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("langadapt-corpus-{}-{n}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn name(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn json_lines(texts: &[impl AsRef<str>]) -> Vec<u8> {
    let mut out = Vec::new();
    for (n, text) in texts.iter().enumerate() {
        writeln!(out, "{}", serde_json::json!({"id": n, "text": text.as_ref(), "tags": ["a", {"b": null}]})).unwrap();
    }
    out
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(bytes, 1).unwrap()
}

/// Compressed in several members or frames that end anywhere.
fn in_parts(bytes: &[u8], parts: usize, compress: fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    bytes.chunks(bytes.len() / parts + 1).flat_map(compress).collect()
}

/// In order, through `map_documents`.
fn read(names: &[impl AsRef<str>], options: &ReadOptions, threads: usize) -> Result<(Vec<String>, ReadReport)> {
    let (inputs, monitor) = (Inputs::expand(names)?, Monitor::default());
    let mut all = Vec::new();
    let map = |(): &mut (), batch: &Batch| Ok(batch.texts().map(str::to_owned).collect::<Vec<_>>());
    let collect = |texts| {
        all.extend(texts);
        Ok(())
    };
    let report = map_documents(&inputs, options, threads, &monitor, || (), map, collect)?;
    assert_eq!(report.documents, all.len() as u64);
    assert_eq!(report.bytes, all.iter().map(|text: &String| text.len() as u64).sum::<u64>());
    Ok((all, report))
}

/// In any order, through `fold_documents`.
fn fold(names: &[impl AsRef<str>], options: &ReadOptions, threads: usize) -> Result<(Vec<String>, ReadReport)> {
    let (inputs, monitor) = (Inputs::expand(names)?, Monitor::default());
    let (states, report) = fold_documents(&inputs, options, threads, &monitor, Vec::new, |all, batch| {
        all.extend(batch.texts().map(str::to_owned));
        Ok(())
    })?;
    let mut all = states.concat();
    all.sort();
    Ok((all, report))
}

fn small() -> ReadOptions {
    ReadOptions { batch_bytes: 64, ..ReadOptions::default() }
}

fn sample(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("Zeile {n}: „Grüße“\n{}\\ \"quoted\" — {}", "äöü".repeat(n % 17), n * 7919)).collect()
}

#[test]
fn every_format_gives_the_same_documents() {
    let (folder, texts) = (Folder::new(), sample(500));
    let lines = json_lines(&texts);
    let flat: Vec<String> = texts.iter().map(|text| text.replace('\n', " ")).collect();
    let plain = flat.join("\n").into_bytes();
    for (name, bytes, expected) in [
        ("a.jsonl", lines.clone(), &texts),
        ("a.jsonl.gz", gzip(&lines), &texts),
        ("b.jsonl.gz", in_parts(&lines, 7, gzip), &texts),
        ("padded.jsonl.gz", in_parts(&lines, 7, |part| [gzip(part), vec![0; 700]].concat()), &texts),
        ("a.jsonl.zst", zstd(&lines), &texts),
        ("b.ndjson.zst", in_parts(&lines, 7, zstd), &texts),
        ("c.json.gz", gzip(&lines), &texts),
        ("a.txt", plain.clone(), &flat),
        ("a.txt.gz", gzip(&plain), &flat),
        ("a.TXT.ZST", zstd(&plain), &flat),
        ("crlf.txt", flat.join("\r\n").into_bytes(), &flat),
        ("mark.txt", [b"\xEF\xBB\xBF", plain.as_slice()].concat(), &flat),
    ] {
        let path = folder.put(name, &bytes);
        for threads in [1, 2, 5] {
            assert_eq!(&read(&[&path], &small(), threads).unwrap().0, expected, "{name}");
        }
        let mut sorted = expected.clone();
        sorted.sort();
        assert_eq!(fold(&[&path], &small(), 3).unwrap().0, sorted, "{name}");
        assert_eq!(&read(&[&path], &ReadOptions::default(), 2).unwrap().0, expected, "{name}");
    }
    let path = folder.put("file.txt", &plain);
    let whole = ReadOptions { text_unit: TextUnit::File, ..small() };
    assert_eq!(read(&[&path], &whole, 2).unwrap().0, [flat.join("\n")]);
}

#[test]
fn many_files_come_in_order() {
    let folder = Folder::new();
    let mut expected = Vec::new();
    for n in 0..23 {
        // Files of very different lengths, some empty: threads finish them out of order.
        let texts: Vec<String> = sample((n * 37) % 101).iter().map(|text| format!("{n} {text}")).collect();
        folder.put(&format!("part/{n:02}.jsonl"), &json_lines(&texts));
        expected.extend(texts);
    }
    folder.put("part/.hidden.jsonl", b"not read");
    folder.put("part/README.md", b"not read");
    for threads in [1, 2, 3, 8] {
        assert_eq!(read(&[folder.name()], &small(), threads).unwrap().0, expected);
        assert_eq!(read(&[format!("{}/**/*.jsonl", folder.name())], &small(), threads).unwrap().0, expected);
    }
}

#[test]
fn bad_lines_are_counted_and_the_first_ten_named() {
    let folder = Folder::new();
    let mut bytes = Vec::new();
    for n in 0..1000 {
        match n % 100 {
            3 => bytes.extend(b"{\"text\": \"torn\n"),
            4 => bytes.extend(b"{\"text\": null}\n"),
            5 => bytes.extend(b"{\"text\": \"\xff\xfe\"}\n"),
            6 => bytes.extend(b"  \r\n"),
            _ => bytes.extend(json_lines(&[format!("document {n}")])),
        }
    }
    let path = folder.put("a.jsonl", &bytes);
    let mut reports = Vec::new();
    for threads in [1, 4] {
        let (texts, report) = read(&[&path], &small(), threads).unwrap();
        assert_eq!((texts.len(), report.documents), (960, 960));
        let skipped = report.skipped;
        assert_eq!((skipped.malformed_json, skipped.missing_text, skipped.invalid_utf8), (10, 10, 10));
        let lines: Vec<_> = report.first_problems.iter().map(|problem| problem.line.unwrap()).collect();
        assert_eq!(lines, [4, 5, 6, 104, 105, 106, 204, 205, 206, 304]);
        assert_eq!(fold(&[&path], &small(), threads).unwrap().1, report);
        reports.push(report);
    }
    assert_eq!(reports[0], reports[1]);
    let strict = ReadOptions { strict: true, ..small() };
    for threads in [1, 4] {
        let error = read(&[&path], &strict, threads).unwrap_err().to_string();
        assert!(error.contains("a.jsonl:4: malformed JSON"), "{error}");
    }
}

#[test]
fn the_first_failure_in_order_is_reported() {
    let folder = Folder::new();
    for n in 0..8 {
        let mut bytes = json_lines(&sample(50));
        if n >= 2 {
            bytes.extend(b"oops\n");
        }
        folder.put(&format!("{n}.jsonl"), &bytes);
    }
    let strict = ReadOptions { strict: true, ..small() };
    for _ in 0..20 {
        let error = fold(&[folder.name()], &strict, 4).unwrap_err().to_string();
        assert!(error.contains("2.jsonl:51: "), "{error}");
        let error = read(&[folder.name()], &strict, 4).unwrap_err().to_string();
        assert!(error.contains("2.jsonl:51: "), "{error}");
    }
}

#[test]
fn truncated_and_damaged_streams_are_errors() {
    let folder = Folder::new();
    let lines = json_lines(&sample(3000));
    for (ending, whole) in [("gz", gzip(&lines)), ("zst", zstd(&lines)), ("gz", in_parts(&lines, 3, gzip))] {
        for keep in [1, 3, 8, whole.len() / 2, whole.len() - 1] {
            let path = folder.put(&format!("a.jsonl.{ending}"), &whole[..keep]);
            let error = read(&[&path], &small(), 2).unwrap_err();
            assert!(matches!(error, Error::Data { .. }), "{ending} {keep}: {error}");
        }
        let mut damaged = whole.clone();
        let middle = damaged.len() / 2;
        damaged[middle..middle + 40].fill(0x55);
        let path = folder.put(&format!("b.jsonl.{ending}"), &damaged);
        // A damaged stream may by chance still decompress; what comes out is then no JSON.
        assert!(read(&[&path], &ReadOptions { strict: true, ..small() }, 2).is_err(), "{ending}");
    }
    let path = folder.put("cut.jsonl.gz", &gzip(&lines)[..2000]);
    let error = read(&[&path], &small(), 2).unwrap_err().to_string();
    assert!(error.contains("cut.jsonl.gz: truncated gzip stream"), "{error}");
}

#[test]
fn names_that_cannot_be_read_say_why() {
    let folder = Folder::new();
    let message = |name: &str| Inputs::expand(&[name]).unwrap_err().to_string();
    let missing = folder.0.join("missing.jsonl");
    assert!(matches!(Inputs::expand(&[missing.to_str().unwrap()]), Err(Error::Io { .. })));
    assert!(message(&folder.put("a.docx", b"x")).contains("unknown ending"));
    assert!(message(&format!("{}/*.jsonl", folder.name())).contains("no file matches"));
    assert!(message(folder.name()).contains("no file with a known ending"));
    assert!(Inputs::expand(&[] as &[&str]).is_err());

    let error = |name: &str, bytes: &[u8]| read(&[folder.put(name, bytes)], &small(), 2).unwrap_err().to_string();
    assert!(error("empty.jsonl", b"").contains("the input is empty"));
    assert!(error("empty.txt.zst", b"").contains("empty"));
    assert!(error("blank.jsonl", b"\n\n \n").contains("the input is empty"));
    let text = error("content.jsonl", b"{\"content\":\"a\"}\n");
    assert!(text.contains("content.jsonl:1: no field `text` (fields: `content`)"), "{text}");
    assert!(error("plain.jsonl.gz", b"{\"text\":\"a\"}\n").contains("no gzip data"));
    assert!(error("packed.jsonl", &gzip(b"{\"text\":\"a\"}\n")).contains("let the name end in `.gz`"));
    let array = error("array.json", b"[\n{\"text\":\"a\"},\n{\"text\":\"b\"}\n]\n");
    assert!(array.contains("array.json:1: a JSON array") && array.contains("jq"), "{array}");
    assert!(error("old.txt", b"gut\nGr\xfc\xdfe\nsch\xf6n\n").contains("old.txt:2: not UTF-8 at byte 3 (0xfc)"));
    assert!(error("a.parquet", b"PAR1 is not enough").contains("Parquet"));
}

#[test]
fn a_folder_with_a_split_stands_for_its_training_part() {
    let folder = Folder::new();
    folder.put("train.jsonl.zst", &zstd(&json_lines(&["train"])));
    folder.put("validation.jsonl.zst", &zstd(&json_lines(&["validation"])));
    folder.put("manifest.json", b"{}");
    assert_eq!(read(&[folder.name()], &small(), 2).unwrap().0, ["train"]);
}

#[test]
fn windows_beyond_the_default_of_the_library_are_read() {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(28).unwrap();
    encoder.write_all(&json_lines(&["a"])).unwrap();
    let folder = Folder::new();
    let path = folder.put("a.jsonl.zst", &encoder.finish().unwrap());
    assert_eq!(read(&[&path], &small(), 1).map_err(|error| error.to_string()).unwrap().0, ["a"]);
}

#[test]
fn one_huge_line_is_one_document() {
    let folder = Folder::new();
    let huge = "lang ä\n".repeat(7 << 20);
    let path = folder.put("a.jsonl.zst", &zstd(&json_lines(&["before", &huge, "after"])));
    let (texts, _) = read(&[&path], &ReadOptions::default(), 2).unwrap();
    assert_eq!(texts.len(), 3);
    assert!(texts[0] == "before" && texts[1] == huge && texts[2] == "after");
}

#[test]
fn closures_may_fail_and_panic() {
    let folder = Folder::new();
    let path = folder.put("a.jsonl", &json_lines(&sample(500)));
    let inputs = Inputs::expand(&[path]).unwrap();
    let monitor = Monitor::default();
    let stop = |(): &mut (), _: &Batch| Err(Error::argument("enough"));
    assert!(matches!(fold_documents(&inputs, &small(), 3, &monitor, || (), stop), Err(Error::Argument(_))));
    let keep = |(): &mut (), batch: &Batch| Ok(batch.len());
    let result = map_documents(&inputs, &small(), 3, &monitor, || (), keep, |_| Err(Error::argument("disk full")));
    assert!(matches!(result, Err(Error::Argument(_))));
    let panic = std::panic::catch_unwind(|| {
        let _ = map_documents(&inputs, &small(), 3, &Monitor::default(), || (), keep, |_| panic!("fell over"));
    });
    assert!(panic.is_err());
    monitor.stop();
    assert!(matches!(fold_documents(&inputs, &small(), 3, &monitor, || (), |(), _| Ok(())), Err(Error::Interrupted)));
}

#[test]
fn lines_that_are_too_long_are_counted() {
    let folder = Folder::new();
    let (long, fits) = ("x".repeat(200_000), "y".repeat(1000));
    for end in ["\n", "\r\n", "\r"] {
        let lines = ["a", &long, &fits, &long, &long, "b"].join(end);
        let json = ["a", &long, &fits].map(|text| serde_json::json!({ "text": text }).to_string()).join(end);
        let whole = ReadOptions { text_unit: TextUnit::File, ..ReadOptions::default() };
        for batch_bytes in [1, 100, 64 << 10, 1 << 20] {
            let options = ReadOptions { batch_bytes, max_line_bytes: 2000, ..ReadOptions::default() };
            for (name, bytes, expected, skipped) in
                [("a.txt", &lines, vec!["a", &fits, "b"], vec![2, 4, 5]), ("a.jsonl", &json, vec!["a", &fits], vec![2])]
            {
                let (texts, report) = read(&[folder.put(name, bytes.as_bytes())], &options, 2).unwrap();
                assert_eq!(texts, expected);
                assert_eq!(report.skipped.too_long, skipped.len() as u64);
                let lines: Vec<_> = report.first_problems.iter().filter_map(|problem| problem.line).collect();
                assert_eq!(lines, skipped, "{name} {end:?} {batch_bytes}");
            }
            let path = folder.put("whole.txt", lines.as_bytes());
            let options = ReadOptions { allow_empty: true, text_unit: TextUnit::File, ..options };
            assert_eq!(read(&[&path], &options, 1).unwrap().1.skipped.too_long, 1);
            assert_eq!(read(&[&path], &whole, 1).unwrap().0, [lines.as_str()]);
        }
    }
}

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
