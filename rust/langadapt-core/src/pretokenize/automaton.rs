//! A regex's tree to one table: state and character in, state out.
//!
//! **Why this is exact.** A backtracking engine takes the first way through the regex that leads to a match. The states
//! of the table are lists of the places where the ways may stand, in the order in which the engine would try them; a
//! way that is through cuts off those behind it, for the engine would never come to them (Cox 2010; `regex-automata`'s
//! leftmost-first automata). What the subset has beyond regular expressions looks at the next character alone, and a
//! step is made when that is known.
//!
//! **Layout.** A row has 256 entries: one for each ASCII character, then one for each class of characters that the
//! regex does not tell apart, the last for the end of the text. An entry is the next row's place, and in its lowest bit
//! whether a match may end before the character. Row 0 leads nowhere.

use std::collections::HashMap;

use regex_syntax::hir::ClassUnicode;

use super::sets::holds;
use super::syntax::Node;

/// Entries of a row.
pub(super) const ROW: usize = 256;
/// A match may end before the character.
pub(super) const MATCH: u16 = 1;
/// Row of a match's beginning.
pub(super) const START: u16 = ROW as u16;
/// Entry of the end of the text.
pub(super) const END: usize = ROW - 1;
/// First entry of a class.
const CLASSES: usize = 128;
/// Places in the regex once its repetitions are written out.
const MOST_PLACES: usize = 20_000;

/// One step of a way through the regex.
enum Place {
    /// A character of a set, then on.
    Take(usize, usize),
    /// On, if the next character is of a set, or there is none and `true`.
    Look(usize, bool, usize),
    /// On at each of these, the first tried first.
    Fork(Vec<usize>),
    Match,
}

/// Entries by code point.
#[derive(Debug)]
pub(super) struct Classes {
    /// By the upper bits: which block.
    index: Vec<u16>,
    blocks: Vec<[u8; 256]>,
}

impl Classes {
    /// Which blocks of 256 code points have an entry that `is` says.
    pub fn blocks_with(&self, is: impl Fn(usize) -> bool) -> Vec<bool> {
        let found: Vec<bool> =
            self.blocks.iter().map(|block| block.iter().any(|entry| is(usize::from(*entry)))).collect();
        self.index.iter().map(|block| found[usize::from(*block)]).collect()
    }

    /// The entry of a code point that is not ASCII.
    #[inline(always)]
    pub fn entry(&self, code: u32) -> usize {
        let block = self.index[(code >> 8) as usize];
        usize::from(self.blocks[usize::from(block)][(code & 0xFF) as usize])
    }
}

/// The rows of a regex, and the class of every code point; `None` if there would be too many.
pub(super) fn compile(node: &Node) -> Option<(Vec<[u16; ROW]>, Classes)> {
    let mut places = Places { list: vec![Place::Match], sets: Vec::new() };
    let start = places.add(node, 0)?;
    let (codes, members) = partition(&places.sets)?;
    let rows = minimal(rows(&places.list, start, &members)?);
    let spread = |row: &Vec<u16>| -> [u16; ROW] {
        std::array::from_fn(|entry| match entry {
            END => row[members.len()],
            ..CLASSES => row[codes.of(entry as u32)],
            _ => row[..members.len()].get(entry - CLASSES).copied().unwrap_or(0),
        })
    };
    // A regex that never matches has the dead row alone.
    (rows.len() > 1).then(|| (rows.iter().map(spread).collect(), codes.pack()))
}

struct Places {
    list: Vec<Place>,
    sets: Vec<ClassUnicode>,
}

impl Places {
    fn push(&mut self, place: Place) -> Option<usize> {
        self.list.push(place);
        (self.list.len() < MOST_PLACES).then_some(self.list.len() - 1)
    }

    fn set(&mut self, set: &ClassUnicode) -> usize {
        self.sets.iter().position(|known| known == set).unwrap_or_else(|| {
            self.sets.push(set.clone());
            self.sets.len() - 1
        })
    }

    /// The place where a way through `node` begins that goes on at `then`.
    fn add(&mut self, node: &Node, then: usize) -> Option<usize> {
        match node {
            Node::Class(class) => {
                let set = self.set(class);
                self.push(Place::Take(set, then))
            }
            Node::Look { next, end } => {
                let set = self.set(next);
                self.push(Place::Look(set, *end, then))
            }
            Node::Concat(parts) => parts.iter().rev().try_fold(then, |then, part| self.add(part, then)),
            Node::Alternate(parts) => {
                let ways = parts.iter().map(|part| self.add(part, then)).collect::<Option<Vec<_>>>()?;
                self.push(Place::Fork(ways))
            }
            Node::Repeat { node, min, max, lazy } => {
                let fork = |on: usize, out: usize| if *lazy { vec![out, on] } else { vec![on, out] };
                let mut then = then;
                match max {
                    None => {
                        let again = self.push(Place::Fork(Vec::new()))?;
                        let on = self.add(node, again)?;
                        self.list[again] = Place::Fork(fork(on, then));
                        then = again;
                    }
                    Some(max) => {
                        let out = then;
                        for _ in *min..*max {
                            let on = self.add(node, then)?;
                            then = self.push(Place::Fork(fork(on, out)))?;
                        }
                    }
                }
                (0..*min).try_fold(then, |then, _| self.add(node, then))
            }
        }
    }
}

/// The class of every code point, by its beginnings.
struct Codes(Vec<(u32, usize)>);

impl Codes {
    fn of(&self, code: u32) -> usize {
        self.0[self.0.partition_point(|(first, _)| *first <= code) - 1].1
    }

    fn pack(&self) -> Classes {
        let mut numbers: HashMap<[u8; 256], u16> = HashMap::new();
        let (mut blocks, mut at) = (Vec::new(), 0);
        let index = (0..0x1100u32).map(|block| {
            // Most blocks are of one kind.
            let mut entries = [(CLASSES + self.0[at].1) as u8; 256];
            while let Some(&(first, class)) = self.0.get(at + 1).filter(|next| next.0 < (block + 1) << 8) {
                entries[(first & 0xFF) as usize..].fill((CLASSES + class) as u8);
                at += 1;
            }
            *numbers.entry(entries).or_insert_with(|| {
                blocks.push(entries);
                (blocks.len() - 1) as u16
            })
        });
        Classes { index: index.collect(), blocks }
    }
}

/// Classes of characters that no set tells apart, and for each the sets that it is in; `None` if there are too many.
fn partition(sets: &[ClassUnicode]) -> Option<(Codes, Vec<Vec<bool>>)> {
    let ranges = || sets.iter().flat_map(ClassUnicode::ranges);
    let mut borders: Vec<u32> = ranges().flat_map(|range| [range.start() as u32, range.end() as u32 + 1]).collect();
    borders.extend([0, 0xD800, 0xE000]);
    borders.sort_unstable();
    borders.dedup();
    let mut numbers: HashMap<Vec<bool>, usize> = HashMap::new();
    let (mut codes, mut members) = (Vec::new(), Vec::new());
    for first in borders {
        let inside: Vec<bool> = sets.iter().map(|set| holds(set, first)).collect();
        let number = *numbers.entry(inside).or_insert_with_key(|inside| {
            members.push(inside.clone());
            members.len() - 1
        });
        codes.push((first, number));
    }
    // The packed blocks and the entries are counted in bytes.
    (CLASSES + members.len() < END).then_some((Codes(codes), members))
}

/// The rows by class, then the end of the text. A state is a list of places, best first.
fn rows(places: &[Place], start: usize, members: &[Vec<bool>]) -> Option<Vec<Vec<u16>>> {
    let mut numbers: HashMap<Vec<usize>, u16> = HashMap::from([(Vec::new(), 0), (vec![start], 1)]);
    let mut states: Vec<Vec<usize>> = vec![Vec::new(), vec![start]];
    let mut rows: Vec<Vec<u16>> = Vec::new();
    while rows.len() < states.len() {
        let list = states[rows.len()].clone();
        let mut row = Vec::with_capacity(members.len() + 1);
        for inside in members.iter().map(Some).chain([None]) {
            let mut step = Step { places, inside, seen: vec![false; places.len()], next: Vec::new() };
            let matched = list.iter().any(|place| step.follow(*place));
            let number = *numbers.entry(step.next).or_insert_with_key(|state| {
                states.push(state.clone());
                (states.len() - 1) as u16
            });
            if states.len() >= ROW {
                return None;
            }
            row.push(number << 8 | u16::from(matched));
        }
        rows.push(row);
    }
    Some(rows)
}

/// What one character does to a list of places.
struct Step<'p> {
    places: &'p [Place],
    /// The sets that the character is in; `None` at the end of the text.
    inside: Option<&'p Vec<bool>>,
    seen: Vec<bool>,
    next: Vec<usize>,
}

impl Step<'_> {
    /// Follows all ways from a place, best first, until one is through; whether one is.
    fn follow(&mut self, place: usize) -> bool {
        let mut waiting = vec![place];
        while let Some(place) = waiting.pop() {
            if std::mem::replace(&mut self.seen[place], true) {
                continue;
            }
            match &self.places[place] {
                Place::Match => return true,
                Place::Take(set, then) => {
                    if self.inside.is_some_and(|inside| inside[*set]) && !self.next.contains(then) {
                        self.next.push(*then);
                    }
                }
                Place::Look(set, end, then) => {
                    if self.inside.map_or(*end, |inside| inside[*set]) {
                        waiting.push(*then);
                    }
                }
                Place::Fork(ways) => waiting.extend(ways.iter().rev()),
            }
        }
        false
    }
}

/// The fewest rows that do the same (Moore 1956); row 0 stays dead, row 1 the beginning.
fn minimal(rows: Vec<Vec<u16>>) -> Vec<Vec<u16>> {
    let mut groups = vec![0; rows.len()];
    let mut count = 1;
    loop {
        let mut numbers: HashMap<(usize, Vec<u16>), usize> = HashMap::new();
        let next: Vec<usize> = rows
            .iter()
            .enumerate()
            .map(|(row, entries)| {
                let by_group =
                    entries.iter().map(|entry| (groups[usize::from(entry >> 8)] << 1) as u16 | entry & MATCH);
                let known = numbers.len();
                *numbers.entry((groups[row], by_group.collect())).or_insert(known)
            })
            .collect();
        groups = next;
        if numbers.len() == count {
            break;
        }
        count = numbers.len();
    }
    let mut smaller = vec![Vec::new(); count];
    for (row, entries) in rows.iter().enumerate() {
        smaller[groups[row]] =
            entries.iter().map(|entry| (groups[usize::from(entry >> 8)] << 8) as u16 | entry & MATCH).collect();
    }
    smaller
}
