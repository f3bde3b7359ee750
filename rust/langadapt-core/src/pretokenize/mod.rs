//! Text to pieces: the regexes that byte-level tokenizers cut text with, compiled to tables.
//!
//! Promise: for every text the pieces equal what Hugging Face `tokenizers` makes of the same steps, that is Oniguruma's
//! semantics and its Unicode tables. Time is linear in the text, whatever the regex.
//!
//! | file | concern |
//! |---|---|
//! | `sets.rs` | which characters are letters, numbers, spaces |
//! | `syntax.rs` | a regex to a tree, or what in it is outside the subset |
//! | `brackets.rs` | its classes |
//! | `automaton.rs` | a tree to a table |
//! | `characters.rs` | UTF-8 to characters, runs of letters |
//! | `blocks.rs` | GPT-2's regex, 64 bytes at a time |
//! | `scanner.rs` | where the matches of a text are |
//! | `split.rs` | matches to pieces |
//! | `steps.rs`, `fusing.rs` | several steps in one pass, two steps as one |
//! | `patterns.rs` | regexes by name |

mod automaton;
mod blocks;
mod brackets;
mod characters;
mod fusing;
mod patterns;
mod scanner;
mod sets;
mod split;
mod steps;
mod syntax;

pub(crate) use characters::decode;
pub use patterns::Pattern;
pub use scanner::Scanner;
pub use split::{Behavior, Split};
pub(crate) use steps::Cuts;
pub use steps::Steps;
pub use syntax::Outside;

#[cfg(test)]
mod tests;
