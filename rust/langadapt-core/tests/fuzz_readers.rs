//! Files of every format, packing, encoding and line end, whole and damaged. Whole ones are read as they were written;
//! nothing may panic or hang, and threads and batches must not change what is read.

mod fuzzing;
mod texts;

use std::path::{Path, PathBuf};

use fuzzing::{Random, a_second, for_long};
use langadapt_core::Monitor;
use langadapt_core::corpus::{Batch, Inputs, ReadOptions, TextUnit, map_documents};
use texts::{damage, encoded, line_end, packed, parquet, text};

/// A file to read.
struct Made {
    name: String,
    bytes: Vec<u8>,
    /// How many bytes they are, unpacked.
    size: usize,
    /// What is in it.
    documents: Vec<String>,
}

fn json_lines(random: &mut Random) -> (String, Vec<String>) {
    let (mut out, mut documents) = (String::new(), Vec::new());
    let end = random.pick(&["\n", "\r\n", "\r", ""]);
    for n in 0..random.below(30) {
        let text = text(random);
        let row = match random.below(3) {
            0 => serde_json::json!({"id": n, "meta": {"text": [1]}, "text": text}),
            1 => serde_json::json!({"text": text, "zz": [text, {"text": null}], "n": 1.5e-7}),
            _ => serde_json::json!({"text": text}),
        };
        let line = row.to_string();
        // As other writers have it: all but ASCII escaped, white space wherever it may be.
        let line = if random.below(3) == 0 { escaped(&line) } else { line };
        let line =
            if random.below(3) == 0 { line.replacen("{\"", " {\t\"", 1).replacen("\":", "\" : ", 1) } else { line };
        out += &line;
        out += line_end(random, end);
        documents.push(text);
    }
    (out, documents)
}

fn escaped(line: &str) -> String {
    let unit = |unit: u16| format!("\\u{unit:04x}");
    line.chars()
        .map(
            |c| {
                if c.is_ascii() {
                    c.to_string()
                } else {
                    c.encode_utf16(&mut [0; 2]).iter().map(|u| unit(*u)).collect()
                }
            },
        )
        .collect()
}

fn text_lines(random: &mut Random) -> (String, Vec<String>) {
    let (mut out, mut documents) = (String::new(), Vec::new());
    let end = random.pick(&["\n", "\r\n", "\r", ""]);
    for _ in 0..random.below(30) {
        let line = text(random).replace(['\n', '\r', '\0', '\u{feff}'], "");
        out += &line;
        out += line_end(random, end);
        if !line.bytes().all(|byte| byte.is_ascii_whitespace()) {
            documents.push(line);
        }
    }
    (out, documents)
}

fn make(random: &mut Random) -> Made {
    let form = random.pick(&["jsonl", "txt", "parquet"]);
    if form == "parquet" && random.below(3) == 0 {
        let (bytes, documents) = parquet(random);
        return Made { name: "a.parquet".into(), size: bytes.len(), bytes, documents };
    }
    let form = if form == "txt" { "txt" } else { "jsonl" };
    let (lines, documents) = if form == "txt" { text_lines(random) } else { json_lines(random) };
    // Now and then so long that the frames of a file are several threads' work; blank lines hold nothing.
    let blank = if random.below(60) == 0 { "\n".repeat(random.below(2 << 20)) } else { String::new() };
    let bytes = encoded(random, &(lines + &blank));
    let size = bytes.len();
    let (ending, bytes) = packed(random, bytes);
    Made { name: format!("a.{form}{ending}"), bytes, size, documents }
}

/// Documents and the figures of the report, or the error as the user reads it.
fn read(path: &Path, options: &ReadOptions, threads: usize) -> Result<(Vec<String>, u64, u64), String> {
    let inputs = Inputs::expand(&[path.to_str().unwrap()]).map_err(|error| error.to_string())?;
    let mut all = Vec::new();
    let map = |(): &mut (), batch: &Batch| Ok(batch.texts().map(str::to_owned).collect::<Vec<_>>());
    let collect = |texts: Vec<String>| {
        all.extend(texts);
        Ok(())
    };
    let report = map_documents(&inputs, options, threads, &Monitor::default(), || (), map, collect);
    report.map(|report| (all, report.bytes, report.skipped.total())).map_err(|error| error.to_string())
}

fn options(random: &mut Random) -> ReadOptions {
    let keep_blank_lines = random.below(4) == 0;
    let text_unit = if random.below(4) == 0 { TextUnit::File } else { TextUnit::Line };
    let max_line_bytes = if random.below(3) == 0 { random.below(200) } else { 64 << 20 };
    let strict = random.below(6) == 0;
    let batch_bytes = 1 << 14;
    ReadOptions { keep_blank_lines, text_unit, max_line_bytes, strict, batch_bytes, ..ReadOptions::default() }
}

/// A folder that vanishes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("langadapt-fuzz-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn step(&self, random: &mut Random) -> u64 {
        let mut made = make(random);
        let is_whole = random.below(2) == 0;
        if !is_whole {
            damage(random, &mut made.bytes);
        }
        let path = self.0.join(&made.name);
        std::fs::write(&path, &made.bytes).unwrap();
        let wanted = if is_whole {
            ReadOptions { allow_empty: true, batch_bytes: 1 << 14, ..ReadOptions::default() }
        } else {
            options(random)
        };
        let expected = read(&path, &wanted, 1);
        if is_whole {
            let found = expected.as_ref().map(|found| &found.0);
            assert_eq!(found, Ok(&made.documents), "{}: {:?}", made.name, made.bytes);
        }
        if let Err(message) = &expected {
            assert!(!message.contains('\n'), "{message}");
        }
        let batch_bytes = 1 + random.below(200) + made.size / 5000;
        let small = ReadOptions { batch_bytes, ..wanted };
        let found = read(&path, &small, 1 + random.below(3));
        // How much a damaged stream gives before it fails depends on how much is asked for at a time: a damaged line
        // may be met first, or the damaged stream.
        let is_packed = [".gz", ".zst"].iter().any(|ending| made.name.ends_with(ending));
        let either = !is_whole && is_packed;
        if !(either && found.is_err() && expected.is_err()) {
            assert_eq!(found, expected, "{}: {:?}", made.name, made.bytes);
        }
        std::fs::remove_file(&path).unwrap();
        1
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_second_of_files() {
    let folder = Folder::new("second");
    a_second(|random| folder.step(random));
}

#[test]
#[ignore = "runs for FUZZ_SECONDS, a minute by default"]
fn fuzz_readers() {
    let folder = Folder::new("long");
    for_long(|random| folder.step(random));
}
