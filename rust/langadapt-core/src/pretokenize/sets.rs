//! Sets of characters as Oniguruma 6.9 sees them: Unicode 16, which is what `regex-syntax` has; the tests compare them.

use regex_syntax::hir::{ClassUnicode, ClassUnicodeRange, HirKind};

/// General categories by their short names.
const CATEGORIES: [&str; 37] = [
    "L", "Lu", "Ll", "Lt", "Lm", "Lo", "M", "Mn", "Mc", "Me", "N", "Nd", "Nl", "No", "P", "Pc", "Pd", "Ps", "Pe", "Pi",
    "Pf", "Po", "S", "Sm", "Sc", "Sk", "So", "Z", "Zs", "Zl", "Zp", "C", "Cc", "Cf", "Cn", "Co", "LC",
];

/// One character.
pub(super) fn of(character: char) -> ClassUnicode {
    ClassUnicode::new([ClassUnicodeRange::new(character, character)])
}

/// All others.
pub(super) fn not(class: &ClassUnicode) -> ClassUnicode {
    let mut class = class.clone();
    class.negate();
    class
}

/// Whether a code point is in a set.
pub(super) fn holds(set: &ClassUnicode, code: u32) -> bool {
    let at = set.ranges().partition_point(|range| (range.end() as u32) < code);
    set.ranges().get(at).is_some_and(|range| range.start() as u32 <= code)
}

/// Behind it there is no number and no punctuation.
const LAST: char = '\u{32400}';

/// The characters up to [`LAST`] that `is` says; a million more would take as long as all else together.
pub(super) fn that(is: impl Fn(char) -> bool) -> ClassUnicode {
    ClassUnicode::new(('\0'..=LAST).filter(|c| is(*c)).map(|c| ClassUnicodeRange::new(c, c)))
}

/// `\s` or `\d`. What is `\w` to Oniguruma is no set of Unicode's, and no published tokenizer asks for it.
pub(super) fn perl(letter: char) -> ClassUnicode {
    match letter {
        's' => read(r"[\t-\r\x20\x{85}\p{Z}]"),
        _ => read(r"\p{Nd}"),
    }
    .unwrap_or_else(ClassUnicode::empty)
}

/// The general category or script of that name.
pub(super) fn lookup(name: &str) -> Option<ClassUnicode> {
    if CATEGORIES.contains(&name) {
        return read(&format!(r"\p{{gc={name}}}"));
    }
    let is_name = name.len() > 1 && name.chars().all(|c| c.is_ascii_alphabetic() || c == '_');
    if is_name { read(&format!(r"\p{{sc={name}}}")) } else { None }
}

fn read(class: &str) -> Option<ClassUnicode> {
    match regex_syntax::parse(class).ok()?.into_kind() {
        HirKind::Class(regex_syntax::hir::Class::Unicode(class)) => Some(class),
        HirKind::Literal(literal) => std::str::from_utf8(&literal.0).ok()?.chars().next().map(of),
        _ => None,
    }
}
