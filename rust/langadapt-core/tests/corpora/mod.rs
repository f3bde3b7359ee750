//! Files for the tests of the readers, and what is read of them.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::Compression;
use flate2::write::GzEncoder;
use langadapt_core::corpus::{Batch, Inputs, ReadOptions, ReadReport, map_documents};
use langadapt_core::{Monitor, Result};

/// A folder that vanishes with the test.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("langadapt-corpus-{}-{n}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn put(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub fn name(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn json_lines(texts: &[impl AsRef<str>]) -> Vec<u8> {
    let mut out = Vec::new();
    for (n, text) in texts.iter().enumerate() {
        writeln!(out, "{}", serde_json::json!({"id": n, "text": text.as_ref(), "tags": ["a", {"b": null}]})).unwrap();
    }
    out
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(bytes, 1).unwrap()
}

/// Compressed in several members or frames that end anywhere.
pub fn in_parts(bytes: &[u8], parts: usize, compress: fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    bytes.chunks(bytes.len() / parts + 1).flat_map(compress).collect()
}

/// In order, through `map_documents`.
pub fn read(names: &[impl AsRef<str>], options: &ReadOptions, threads: usize) -> Result<(Vec<String>, ReadReport)> {
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
