//! What is read by one thread at a time: a file of lines, a row group, a feed.

use std::path::PathBuf;
use std::sync::Arc;

use super::ahead::Ahead;
use super::batch::{Batch, Framing};
use super::inputs::{Format, Source};
use super::lines::LineReader;
use super::parquet::{FetchedGroups, ParquetFile, RowGroupReader};
use super::{Feed, Inputs, ReadOptions};
use crate::{Monitor, Result};

/// A part of the input, not opened yet.
pub(super) enum Unit<'a> {
    Lines(&'a Source),
    RowGroup(Arc<ParquetFile>, usize),
    Fetched(&'a Source),
    Feed(&'a Feed),
}

/// A unit that is being read.
pub(super) enum Reader<'a> {
    Lines(Box<LineReader>),
    RowGroup(Box<RowGroupReader>),
    Fetched(Box<FetchedGroups>),
    /// The feed, its name and how many documents were taken from it.
    Feed(&'a Feed, Arc<PathBuf>, u64),
}

/// The units of `inputs` in document order, each with the place of its file; reads the footers of Parquet files, but
/// not of those that are fetched.
pub(super) fn plan<'a>(inputs: &'a Inputs, options: &ReadOptions, monitor: &Monitor) -> Result<Vec<(usize, Unit<'a>)>> {
    let mut units = Vec::new();
    for (place, source) in inputs.sources.iter().enumerate() {
        monitor.check()?;
        if source.format == Format::Parquet && source.place.is_some() {
            units.push((place, Unit::Fetched(source)));
        } else if source.format == Format::Parquet {
            let file = Arc::new(ParquetFile::open(source, &options.text_field)?);
            units.extend((0..file.row_groups()).map(|group| (place, Unit::RowGroup(Arc::clone(&file), group))));
        } else {
            units.push((place, Unit::Lines(source)));
        }
    }
    units.extend(inputs.feed.as_deref().map(|feed| (0, Unit::Feed(feed))));
    Ok(units)
}

impl<'a> Unit<'a> {
    pub fn open(&self, options: &ReadOptions, monitor: &Monitor) -> Result<Reader<'a>> {
        Ok(match self {
            Unit::Lines(source) => Reader::Lines(Box::new(LineReader::open(source, options, monitor)?)),
            Unit::RowGroup(file, group) => Reader::RowGroup(Box::new(file.read_group(*group)?)),
            Unit::Fetched(source) => Reader::Fetched(Box::new(FetchedGroups::open(source, options, monitor)?)),
            Unit::Feed(feed) => Reader::Feed(feed, Arc::new(PathBuf::from("documents")), 0),
        })
    }
}

impl Reader<'_> {
    /// What other threads can help with.
    pub fn ahead(&self) -> Option<&Arc<Ahead>> {
        if let Reader::Lines(lines) = self { lines.ahead() } else { None }
    }

    /// Fills `batch`; false at the end of the unit.
    pub fn read(&mut self, batch: &mut Batch, options: &ReadOptions, monitor: &Monitor) -> Result<bool> {
        match self {
            Reader::Lines(lines) => lines.read(batch, monitor),
            Reader::RowGroup(rows) => rows.read(batch, options, monitor),
            Reader::Fetched(rows) => rows.read(batch, options, monitor),
            Reader::Feed(feed, name, taken) => {
                let Some(texts) = feed.pop(monitor)? else { return Ok(false) };
                batch.start(Framing::Rows, name, *taken + 1);
                batch.fill(&texts)?;
                *taken += texts.ends.len() as u64;
                monitor.advance(texts.text.len() as u64)?;
                Ok(true)
            }
        }
    }
}
