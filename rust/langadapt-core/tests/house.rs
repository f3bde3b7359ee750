//! The house's budgets that clippy does not hold: lengths of files and of comment lines, and no circles of modules.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a file.
const FILE: usize = 400;
/// Columns; rustfmt leaves comments as they are.
const COLUMNS: usize = 120;

fn crates() -> [PathBuf; 2] {
    let core = Path::new(env!("CARGO_MANIFEST_DIR"));
    [core.to_owned(), core.with_file_name("langadapt-python")]
}

/// The Rust files below `folder`, with their text.
fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            found.extend(sources(&entry));
        } else if entry.extension().is_some_and(|ending| ending == "rs") {
            let text = fs::read_to_string(&entry).unwrap();
            found.push((entry, text));
        }
    }
    found
}

#[test]
fn files_and_comments_are_short() {
    for (path, text) in crates().iter().flat_map(|folder| sources(folder)) {
        assert!(text.lines().count() <= FILE, "{} has more than {FILE} lines: split it by meaning", path.display());
        for (number, line) in text.lines().enumerate() {
            let is_comment = line.trim_start().starts_with("//");
            let place = format!("{}:{}", path.display(), number + 1);
            assert!(!is_comment || line.chars().count() <= COLUMNS, "{place}: more than {COLUMNS} columns");
        }
    }
}

/// `bpe/merges.rs` and its tests, the file `bpe/merges/tests.rs`, are the module `bpe::merges`; `mod.rs` is a door, not
/// a room: what goes through it is followed to nowhere.
fn module_of(path: &Path) -> Option<String> {
    let mut parts: Vec<_> = path.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if parts.last().is_some_and(|last| last == "tests") {
        parts.pop();
    }
    (!parts.last().is_some_and(|last| last == "mod" || last == "lib")).then(|| parts.join("::"))
}

/// The modules that a line of the module `here` names: `use super::a::..` and `crate::a::b::..`.
fn named(line: &str, here: &str, modules: &BTreeSet<String>) -> BTreeSet<String> {
    let parent = here.rsplit_once("::").map_or("", |(parent, _)| parent);
    let mut found = BTreeSet::new();
    for (mark, base) in [("super::", parent), ("crate::", "")] {
        for (at, _) in line.match_indices(mark) {
            let rest = &line[at + mark.len()..];
            let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(rest.len());
            let names: Vec<&str> = base.split("::").chain(rest[..end].split("::")).filter(|s| !s.is_empty()).collect();
            let longest = (1..=names.len()).rev().map(|length| names[..length].join("::"));
            found.extend(longest.into_iter().find(|name| modules.contains(name)));
        }
    }
    found
}

#[test]
fn no_modules_form_a_circle() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = sources(&root);
    let module = |path: &Path| module_of(path.strip_prefix(&root).unwrap());
    let modules: BTreeSet<String> = files.iter().filter_map(|(path, _)| module(path)).collect();
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, text) in &files {
        let Some(here) = module(path) else { continue };
        let text = text.split("\n#[cfg(test)]\nmod tests").next().unwrap();
        let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let named = lines.flat_map(|line| named(line, &here, &modules)).filter(|name| *name != here);
        uses.entry(here.clone()).or_default().extend(named);
    }
    assert!(uses["bpe::decode"].contains("bpe::byte_level"), "the search finds what is there");
    // What uses nothing that is left is taken away until nothing changes; a circle stays.
    while let Some(free) = uses.iter().find(|(_, used)| used.is_empty()).map(|(name, _)| name.clone()) {
        uses.remove(&free);
        uses.values_mut().for_each(|used| used.retain(|name| *name != free));
    }
    assert!(uses.is_empty(), "circles of modules: {uses:#?}");
}
