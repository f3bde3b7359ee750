//! Classes of characters in a regex: escapes, and what stands in brackets.

use regex_syntax::hir::{ClassUnicode, ClassUnicodeRange};

use super::sets::{self, lookup};
use super::syntax::{Parser, Result};

impl Parser {
    pub fn literal(&self, character: char, start: usize) -> Result<ClassUnicode> {
        if self.fold && !character.is_ascii() {
            return self.outside(format!("`{character}` without regard to case"), start);
        }
        let mut class = sets::of(character);
        if self.fold {
            class.case_fold_simple();
        }
        Ok(class)
    }

    /// A class after a `\`, or the one character that it stands for.
    pub fn class_escape(&mut self, start: usize) -> Result<(ClassUnicode, Option<char>)> {
        let Some(character) = self.peek() else { return self.outside("a `\\` at the end", start) };
        self.at += 1;
        let single = match character {
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'f' => '\u{c}',
            'v' => '\u{b}',
            'a' => '\u{7}',
            'e' => '\u{1b}',
            'x' | 'u' => self.code(character, start)?,
            's' | 'd' => return Ok((sets::perl(character), None)),
            'S' | 'D' => return Ok((sets::not(&sets::perl(character.to_ascii_lowercase())), None)),
            'p' | 'P' => return Ok((self.property(character == 'P', start)?, None)),
            _ if character.is_alphanumeric() => {
                return self.outside(format!("`\\{character}`"), start);
            }
            other => other,
        };
        Ok((sets::of(single), Some(single)))
    }

    /// `\xHH`, `\x{H...}` or `\uHHHH`, behind the letter.
    fn code(&mut self, letter: char, start: usize) -> Result<char> {
        let braced = letter == 'x' && self.eat("{");
        let from = self.at;
        let most = if braced {
            8
        } else if letter == 'x' {
            2
        } else {
            4
        };
        while self.at < from + most && self.peek().is_some_and(|c| c.is_ascii_hexdigit()) {
            self.at += 1;
        }
        let digits: String = self.text[from..self.at].iter().collect();
        let whole = if braced { self.eat("}") } else { digits.len() == most };
        // Above it `\xHH` is a byte, not a character.
        let code =
            u32::from_str_radix(&digits, 16).ok().filter(|code| whole && (braced || letter == 'u' || *code < 128));
        match code.and_then(char::from_u32) {
            Some(character) => Ok(character),
            None => self.outside(format!("`\\{letter}` that is no character"), start),
        }
    }

    /// `{Name}` or `{^Name}`.
    fn property(&mut self, negated: bool, start: usize) -> Result<ClassUnicode> {
        let close = self.text[self.at..].iter().position(|c| *c == '}');
        let (true, Some(length)) = (self.peek() == Some('{'), close) else {
            return self.outside("`\\p` without a name in braces", start);
        };
        let name: String = self.text[self.at + 1..self.at + length].iter().collect();
        self.at += length + 1;
        let (name, inner) = name.strip_prefix('^').map_or((name.as_str(), false), |name| (name, true));
        match lookup(name) {
            Some(class) if negated != inner => Ok(sets::not(&class)),
            Some(class) => Ok(class),
            None => self.outside(format!("the property `{name}`, which is no general category and no script,"), start),
        }
    }

    /// What follows a `[`.
    pub fn class(&mut self, start: usize) -> Result<ClassUnicode> {
        let negated = self.eat("^");
        if negated && self.fold {
            return self.outside("a negated class without regard to case", start);
        }
        if self.sees("]") {
            return self.outside("a class that begins with `]`", start);
        }
        let mut operands = Vec::new();
        let mut union = ClassUnicode::empty();
        loop {
            if self.eat("]") {
                break;
            } else if self.eat("&&") {
                operands.push(std::mem::replace(&mut union, ClassUnicode::empty()));
            } else if self.at >= self.text.len() {
                return self.outside("unmatched `[`", start);
            } else {
                self.item(&mut union)?;
            }
        }
        for operand in operands {
            union.intersect(&operand);
        }
        Ok(if negated { sets::not(&union) } else { union })
    }

    /// A member of a class: another class, a range or a character.
    fn item(&mut self, union: &mut ClassUnicode) -> Result<()> {
        let start = self.at;
        if self.sees("[:") {
            return self.outside("a POSIX class", start);
        }
        if self.eat("[") {
            let inner = self.deeper(|parser| parser.class(start))?;
            union.union(&inner);
            return Ok(());
        }
        let (class, single) = self.member()?;
        let is_range = self.sees("-") && self.text.get(self.at + 1).is_some_and(|c| *c != ']');
        let Some(first) = single.filter(|_| is_range) else {
            if is_range {
                return self.outside("a range that begins with a class", start);
            }
            if self.fold && single.is_none() {
                return self.outside("a class without regard to case", start);
            }
            union.union(&match single {
                Some(character) => self.literal(character, start)?,
                None => class,
            });
            return Ok(());
        };
        self.at += 1;
        let (_, last) = self.member()?;
        let Some(last) = last.filter(|last| first <= *last) else { return self.outside("an empty range", start) };
        if self.sees("-") && self.text.get(self.at + 1).is_some_and(|c| *c != ']') {
            return self.outside("a `-` behind a range", self.at);
        }
        let mut range = ClassUnicode::new([ClassUnicodeRange::new(first, last)]);
        if self.fold {
            if !last.is_ascii() {
                return self.outside("a range without regard to case", start);
            }
            range.case_fold_simple();
        }
        union.union(&range);
        Ok(())
    }

    fn member(&mut self) -> Result<(ClassUnicode, Option<char>)> {
        let start = self.at;
        let Some(character) = self.peek() else { return self.outside("unmatched `[`", start) };
        self.at += 1;
        match character {
            '\\' if self.peek().is_some_and(|c| c.is_ascii_digit() || c == 'b') => {
                self.outside("a code by number", start)
            }
            '\\' => self.class_escape(start),
            '[' => self.outside("a range that ends with a class", start),
            _ => Ok((sets::of(character), Some(character))),
        }
    }
}
