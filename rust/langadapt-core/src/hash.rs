//! 128-bit XXH3 fingerprints of files: to notice changed inputs and damaged outputs, not against an attacker.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::{Error, Monitor, Result};

const BLOCK: usize = 1 << 20;

/// Hash of `bytes`.
pub fn hash_bytes(bytes: &[u8]) -> u128 {
    xxh3_128(bytes)
}

/// Hash of the file at `path`, read in blocks.
///
/// # Errors
/// [`Error::Io`] where it cannot be read, [`Error::Interrupted`] on a stop.
pub fn hash_file(path: &Path, monitor: &Monitor) -> Result<u128> {
    let mut file = File::open(path).map_err(|source| Error::io(path, source))?;
    let mut hasher = Xxh3::new();
    let mut block = vec![0; BLOCK];
    loop {
        let n = file.read(&mut block).map_err(|source| Error::io(path, source))?;
        if n == 0 {
            return Ok(hasher.digest128());
        }
        hasher.update(&block[..n]);
        monitor.advance(n as u64)?;
    }
}
