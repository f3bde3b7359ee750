//! Whether a text is in the language that most of a corpus is in.
//!
//! Two texts are enough to learn from, the corpus itself and some of another language: no model is shipped. A text is
//! foreign where most of its letters are of other scripts, where the other language explains it better, or where too
//! few of its n-grams are those of the corpus: so a third one is seen, too.
//!
//! **Method.** Naive Bayes over character n-grams of up to four letters (after Cavnar & Trenkle 1994) tells the two
//! apart. A third language is seen by how few of its n-grams the corpus has, and by how few of them are common in it:
//! the first is the finer test, the second holds where the corpus has some text of that language, too. Documents of
//! other languages among those that it learns from do little harm while they are the fewer.
//!
//! **Cost.** Eight look-ups for a letter, of the first [`LOOKED_AT`] of a document; 9 MiB for the tables.

use std::collections::HashMap;

use unicode_categories::UnicodeCategories;
use unicode_script::{Script, UnicodeScript};

use crate::{Error, Monitor, Result};

/// Letters of the longest n-gram.
const LONGEST: usize = 4;
/// Log2 of the rows that n-grams are hashed to.
const BITS: u32 = 21;
/// Letters of a document that are looked at.
const LOOKED_AT: usize = 20_000;
/// A text with fewer letters is not judged.
const FEWEST: usize = 40;
/// Letters of a document that are learnt from: long ones count for as much as others.
const LEARNT: usize = 4_000;
/// Letters of a piece of what is learnt from; every second piece shows what text looks like that was not.
const PIECE: usize = 500;
/// Letters of either text below which nothing is learnt.
const LEAST: usize = 8_000;
/// Count that an n-gram has before it is seen.
const UNSEEN: f32 = 0.1;
/// Share of the letters from which on a script is one of the language's own.
const SCRIPT_SHARE: f64 = 0.05;
/// How much better, in nats for each n-gram, a language has to explain its own text than the other does.
const APART: f64 = 0.05;
/// What a text's n-grams are asked, and when too few of them pass.
const TESTS: [Test; 2] =
    [Test { pieces: 0.0, known: 0.95, strange: 0.85 }, Test { pieces: 0.1, known: 0.7, strange: 0.7 }];
/// Multiplier of the hash, from the golden ratio.
const MIX: u64 = 0x9E37_79B9_7F4A_7C15;

/// What a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Judged {
    /// In the language.
    Own,
    /// In another one.
    Foreign,
    /// In another script.
    Script,
    /// Too short to tell.
    Short,
}
/// Whether n-grams are the corpus's.
struct Test {
    /// Share of its pieces that they have to be in; one piece, at least.
    pieces: f64,
    /// Share of its own unseen n-grams that pass; the test looks at the longest ones of which so many do.
    known: f64,
    /// Share of that share below which a text is strange.
    strange: f64,
}

/// A test that was learnt.
#[derive(Debug, Clone)]
struct Sieve {
    /// Which n-grams pass, a bit each.
    bits: Vec<u64>,
    /// By how many letters those that it looks at are longer than one.
    order: usize,
    least: f64,
}

/// A language that was learnt.
#[derive(Debug, Clone)]
pub struct Language {
    scripts: Vec<Script>,
    /// Log-likelihood of each n-gram in the language less that in the other.
    gains: Vec<f32>,
    sieves: Vec<Sieve>,
}

impl Language {
    /// Learns from texts of which most are in the language, and from texts of another one.
    ///
    /// # Errors
    /// [`Error::Argument`] where there is too little text on a side, or where they cannot be told apart;
    /// [`Error::Interrupted`] on a stop.
    pub fn learn(own: &[String], foreign: &[String], monitor: &Monitor) -> Result<Self> {
        let letters = |texts: &[String]| -> Result<Vec<Vec<char>>> {
            texts.iter().map(|text| monitor.check().map(|()| letters_of(text, LEARNT))).collect()
        };
        let (texts, foreign) = (letters(own)?, letters(foreign)?.concat());
        let own = texts.concat();
        let equal = own.len().min(foreign.len());
        if equal < LEAST {
            return Err(Error::argument(format!(
                "too little text to tell languages apart: {} letters of the one and {} of the other, and {LEAST} of each \
                 are needed",
                own.len(),
                foreign.len()
            )));
        }
        let gains = gains(&own[..equal], &foreign[..equal], monitor)?;
        let (here, there) = (median(&own, |piece| gain(&gains, piece)), median(&foreign, |piece| gain(&gains, piece)));
        if here - there < APART || here < 0.0 {
            return Err(Error::argument(
                "the text of another language reads like the text itself, so that they cannot be told apart; is it really \
                 of another language?",
            ));
        }
        // What is the other language's for sure would make its n-grams common ones.
        let own: Vec<char> = texts.into_iter().filter(|text| gain(&gains, text) >= 0.0).flatten().collect();
        let sieves = TESTS.iter().map(|test| Sieve::learn(test, &own, monitor)).collect::<Result<_>>()?;
        Ok(Self { scripts: scripts_of(&own), gains, sieves })
    }

    /// What `text` is, by its first letters.
    pub fn judge(&self, text: &str) -> Judged {
        let letters = letters_of(text, LOOKED_AT);
        let alphabetic = letters.iter().filter(|&&letter| letter != ' ');
        let (mut all, mut native) = (0usize, 0usize);
        for letter in alphabetic {
            all += 1;
            native += usize::from(is_of(&self.scripts, *letter));
        }
        if all < FEWEST {
            return Judged::Short;
        }
        if 2 * native < all {
            return Judged::Script;
        }
        let is_strange = gain(&self.gains, &letters) < 0.0
            || self.sieves.iter().any(|sieve| share(&sieve.bits, sieve.order, &letters) < sieve.least);
        if is_strange { Judged::Foreign } else { Judged::Own }
    }
}

impl Sieve {
    fn learn(test: &Test, letters: &[char], monitor: &Monitor) -> Result<Self> {
        let bits = in_pieces(test.pieces, letters, monitor)?;
        let mut found = None;
        for order in (0..LONGEST).rev() {
            monitor.check()?;
            let known = median(letters, |piece| share(&bits, order, piece));
            if known >= test.known || order == 0 {
                found = Some((order, test.strange * known));
                break;
            }
        }
        let (order, least) = found.unwrap_or_default();
        Ok(Self { bits, order, least })
    }
}

/// The median over the pieces that were not learnt from: the few that are of another language do not move it.
fn median(letters: &[char], value: impl Fn(&[char]) -> f64) -> f64 {
    let mut values: Vec<f64> = letters.chunks(PIECE).skip(1).step_by(2).map(value).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Mean over all n-grams of `letters`.
fn gain(gains: &[f32], letters: &[char]) -> f64 {
    let (mut all, mut sum) = (0u32, 0.0);
    for_each(letters, |_, row| {
        all += 1;
        sum += f64::from(gains[row]);
    });
    sum / f64::from(all.max(1))
}

/// Share of the n-grams of one length that pass.
fn share(bits: &[u64], wanted: usize, letters: &[char]) -> f64 {
    let (mut all, mut passed) = (0u32, 0u32);
    for_each(letters, |order, row| {
        let is_one = u32::from(order == wanted);
        all += is_one;
        passed += is_one & (bits[row / 64] >> (row % 64)) as u32;
    });
    f64::from(passed) / f64::from(all.max(1))
}

/// Lower-cased letters of the beginning of `text`, `most` of them; a space in place of everything between two words,
/// and at both ends.
fn letters_of(text: &str, most: usize) -> Vec<char> {
    let mut letters = vec![' '];
    for character in text.chars() {
        if letters.len() >= most {
            break;
        }
        if character.is_alphabetic() || is_mark(character) {
            letters.push(character.to_lowercase().next().unwrap_or(character));
        } else if letters.last() != Some(&' ') && !matches!(character, '\u{200c}' | '\u{200d}') {
            letters.push(' ');
        }
    }
    if letters.last() != Some(&' ') {
        letters.push(' ');
    }
    letters
}

/// Signs that belong to the letter before them, such as viramas, which are not alphabetic.
fn is_mark(character: char) -> bool {
    !character.is_ascii() && (character.is_mark_nonspacing() || character.is_mark_spacing_combining())
}

/// Calls `row` with the row of each n-gram, and by how many letters that is longer than one.
fn for_each(letters: &[char], mut row: impl FnMut(usize, usize)) {
    for end in 0..letters.len() {
        let mut hash = 0u64;
        for (order, &letter) in letters[(end + 1).saturating_sub(LONGEST)..=end].iter().rev().enumerate() {
            hash = (hash.rotate_left(23) ^ u64::from(u32::from(letter) + 1)).wrapping_mul(MIX);
            row(order, (hash >> (u64::BITS - BITS)) as usize);
        }
    }
}

/// How much likelier each n-gram is in the one text than in the other, as long one; counted in every second piece.
fn gains(own: &[char], foreign: &[char], monitor: &Monitor) -> Result<Vec<f32>> {
    let count = |letters: &[char]| -> Result<Vec<f32>> {
        let mut counts = vec![UNSEEN; 1 << BITS];
        for piece in letters.chunks(PIECE).step_by(2) {
            monitor.check()?;
            for_each(piece, |_, row| counts[row] += 1.0);
        }
        Ok(counts)
    };
    let (mut gains, foreign) = (count(own)?, count(foreign)?);
    gains.iter_mut().zip(foreign).for_each(|(own, foreign)| *own = (*own / foreign).ln());
    Ok(gains)
}

/// Which n-grams are in a `share` of every second piece, and in one at least; a bit each.
fn in_pieces(share: f64, letters: &[char], monitor: &Monitor) -> Result<Vec<u64>> {
    let (mut pieces, mut last, mut all) = (vec![0u32; 1 << BITS], vec![0u32; 1 << BITS], 0);
    for piece in letters.chunks(PIECE).step_by(2) {
        monitor.check()?;
        all += 1;
        for_each(piece, |_, row| {
            pieces[row] += u32::from(last[row] != all);
            last[row] = all;
        });
    }
    let least = (share * f64::from(all)).max(1.0) as u32;
    let mut bits = vec![0; pieces.len() / 64];
    pieces.iter().enumerate().filter(|&(_, &in_so_many)| in_so_many >= least).for_each(|(row, _)| {
        bits[row / 64] |= 1 << (row % 64);
    });
    Ok(bits)
}

/// Scripts of more than [`SCRIPT_SHARE`] of the letters.
fn scripts_of(letters: &[char]) -> Vec<Script> {
    let mut counts = HashMap::<Script, u64>::new();
    letters.iter().filter(|&&letter| letter != ' ').for_each(|letter| *counts.entry(letter.script()).or_default() += 1);
    let all: u64 = counts.values().sum();
    counts
        .into_iter()
        .filter(|&(_, count)| count as f64 > SCRIPT_SHARE * all as f64)
        .map(|(script, _)| script)
        .collect()
}

/// Whether a letter is of one of `scripts`, or of none.
fn is_of(scripts: &[Script], letter: char) -> bool {
    let script = letter.script();
    matches!(script, Script::Common | Script::Inherited) || scripts.contains(&script)
}

#[cfg(test)]
mod tests;
