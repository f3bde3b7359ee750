//! Damaged files of every format. Nothing may panic or hang, and threads and batches must not change what is read.

mod fuzzing;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use fuzzing::{Random, a_second, for_long};
use langadapt_core::Monitor;
use langadapt_core::corpus::{Batch, Inputs, ReadOptions, map_documents};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

const PARTS: [&str; 20] = [
    "\"",
    "\\",
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\n",
    "\r",
    "\0",
    "\\u",
    "\\ud83d",
    "\\ude00",
    "text",
    "\"text\": ",
    "null",
    "1e999",
    "\u{feff}",
    "ü",
];

fn json_lines(random: &mut Random) -> Vec<u8> {
    let mut out = Vec::new();
    for n in 0..random.below(30) {
        let text: String = (0..random.below(12)).map(|_| random.pick(&PARTS)).collect();
        writeln!(out, "{}", serde_json::json!({"id": n, "meta": {"text": [1]}, "text": text})).unwrap();
    }
    out
}

fn parquet(random: &mut Random) -> Vec<u8> {
    let schema = Arc::new(parse_message_type("message rows { optional binary text (UTF8); }").unwrap());
    let mut out = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut out, schema, Arc::new(WriterProperties::default())).unwrap();
    for _ in 0..random.below(3) {
        let mut group = writer.next_row_group().unwrap();
        let texts: Vec<ByteArray> = (0..random.below(20)).map(|_| random.pick(&PARTS).into()).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&texts, Some(&vec![1; texts.len()]), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
    out
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn damage(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..random.below(4) {
        let at = random.below(bytes.len());
        match random.below(4) {
            _ if bytes.is_empty() => {}
            0 => bytes[at] = random.next() as u8,
            1 => bytes.truncate(at),
            2 => drop(bytes.drain(at..bytes.len().min(at + 1 + random.below(20)))),
            _ => drop(bytes.splice(at..at, random.pick(&PARTS).bytes())),
        }
    }
}

/// Documents and the figures of the report, or the error as the user reads it.
fn read(path: &Path, threads: usize, batch_bytes: usize) -> Result<(Vec<String>, u64, u64), String> {
    let options = ReadOptions { batch_bytes, ..ReadOptions::default() };
    let inputs = Inputs::expand(&[path.to_str().unwrap()]).map_err(|error| error.to_string())?;
    let mut all = Vec::new();
    let map = |(): &mut (), batch: &Batch| Ok(batch.texts().map(str::to_owned).collect::<Vec<_>>());
    let collect = |texts: Vec<String>| {
        all.extend(texts);
        Ok(())
    };
    let report = map_documents(&inputs, &options, threads, &Monitor::default(), || (), map, collect);
    report.map(|report| (all, report.bytes, report.skipped.total())).map_err(|error| error.to_string())
}

/// A folder that vanishes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("langadapt-fuzz-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn step(&self, random: &mut Random) {
        let name = random.pick(&["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.txt", "a.txt.zst", "a.parquet"]);
        let mut bytes = if name.ends_with("parquet") { parquet(random) } else { json_lines(random) };
        if name.ends_with("gz") || name.ends_with("zst") {
            damage(random, &mut bytes);
            let parts = bytes.chunks(bytes.len() / (1 + random.below(3)) + 1);
            let compress =
                |part: &[u8]| if name.ends_with("gz") { gzip(part) } else { zstd::encode_all(part, 1).unwrap() };
            bytes = parts.flat_map(compress).collect();
        }
        if random.below(3) > 0 {
            damage(random, &mut bytes);
        }
        let path = self.0.join(name);
        std::fs::write(&path, &bytes).unwrap();
        let expected = read(&path, 1, 1 << 20);
        assert_eq!(read(&path, 1 + random.below(3), 1 + random.below(200)), expected, "{name}: {bytes:?}");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_second_of_damage() {
    let folder = Folder::new("second");
    a_second(|random| folder.step(random));
}

#[test]
#[ignore = "runs for FUZZ_SECONDS, a minute by default"]
fn fuzz_readers() {
    let folder = Folder::new("long");
    for_long(|random| folder.step(random));
}
