//! Files that are on their way: somebody else, who fetches them from afar, puts them into a folder one after the other.
//!
//! The list of them is a file whose name ends in [`ENDING`], with a line for each, in document order: its bytes, where
//! it will lie, and its name, parted by tabs. A file appears at its place when it is whole, and is deleted here once it
//! was read: that is room for the next. What appears at `PLACE.failed` instead says why the file will never come. Once
//! `over` appears in the folder, nothing more comes.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::{Error, Monitor, Result};

/// Of a list's name.
pub(super) const ENDING: &str = ".arriving";
/// Between two looks at the folder; a file takes longer to fetch.
const NAP: Duration = Duration::from_millis(5);

/// Where a file will lie, and how long it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub path: PathBuf,
    pub bytes: u64,
}

/// A file that was waited for; it goes with this.
pub(super) struct Arrived(PathBuf);

impl Drop for Arrived {
    fn drop(&mut self) {
        // Whoever fetched it may have cleared its folder already.
        let _ = fs::remove_file(&self.0);
    }
}

/// The files of the list at `path`, each with its name.
pub(super) fn read_list(path: &Path) -> Result<Vec<(PathBuf, Place)>> {
    let list = fs::read_to_string(path).map_err(|error| Error::io(path, error))?;
    let file = |(number, line): (u64, &str)| {
        let mut parts = line.splitn(3, '\t');
        let bytes = parts.next().and_then(|bytes| bytes.parse().ok());
        let (Some(bytes), Some(place), Some(name)) = (bytes, parts.next(), parts.next()) else {
            return Err(Error::data_at(path, number, "not a line of a list of files that are fetched"));
        };
        Ok((PathBuf::from(name), Place { path: PathBuf::from(place), bytes }))
    };
    (1..).zip(list.lines()).map(file).collect()
}

/// Waits until the file `name` is there; nothing to wait for where it has no place to come to.
///
/// # Errors
/// [`Error::Data`] where it will never come, [`Error::Interrupted`] on a stop.
pub(super) fn wait_for(place: Option<&Place>, name: &Path, monitor: &Monitor) -> Result<Option<Arrived>> {
    let Some(place) = place else { return Ok(None) };
    let mut failed = OsString::from(&place.path);
    failed.push(".failed");
    let over = place.path.with_file_name("over");
    loop {
        // Asked first: what comes last comes before it.
        let is_over = over.exists();
        if place.path.exists() {
            break;
        }
        if let Ok(reason) = fs::read_to_string(&failed) {
            return Err(Error::data(name, reason));
        }
        if is_over {
            return Err(Error::data(name, "was not fetched, because another file could not be"));
        }
        monitor.check()?;
        thread::sleep(NAP);
    }
    Ok(Some(Arrived(place.path.clone())))
}
