//! Tables over all code points, kept in the sources as runs of few bytes.
//!
//! A run is the number of code points since the end of the run before, its length less one, both LEB128, and its value.
//! What lies in no run has the value that the reader of the table names.

/// The table of the code points below `N`; `rest` is the value of what lies in no run.
pub(crate) const fn unpack<const N: usize>(packed: &[u8], rest: u8) -> [u8; N] {
    let mut table = [rest; N];
    let (mut at, mut code) = (0, 0);
    while at < packed.len() {
        let (gap, after) = number(packed, at);
        let (length, after) = number(packed, after);
        code += gap;
        let end = code + length + 1;
        while code < end {
            if code < N {
                table[code] = packed[after];
            }
            code += 1;
        }
        at = after + 1;
    }
    table
}

/// The LEB128 number at `at`, and where it ends.
const fn number(packed: &[u8], mut at: usize) -> (usize, usize) {
    let (mut number, mut shift) = (0, 0);
    while packed[at] >= 0x80 {
        number |= (packed[at] as usize & 0x7F) << shift;
        shift += 7;
        at += 1;
    }
    (number | (packed[at] as usize) << shift, at + 1)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Each code point with the value of `values`, `rest` for surrogates.
    pub(crate) fn by_code(rest: u8, mut value: impl FnMut(char) -> u8) -> Vec<u8> {
        (0..=u32::from(char::MAX)).map(|code| char::from_u32(code).map_or(rest, &mut value)).collect()
    }

    /// Fails unless `packed`, which is the file `name` of the sources, holds `values`; `WRITE_TABLES=1` writes it anew.
    pub(crate) fn check(name: &str, packed: &[u8], values: &[u8], rest: u8) {
        let made = pack(values, rest);
        if std::env::var_os("WRITE_TABLES").is_some() {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(name);
            std::fs::write(path, &made).unwrap();
            panic!("src/{name} is written; run the tests again without WRITE_TABLES");
        }
        assert!(made == packed, "src/{name} is not what its source says; `WRITE_TABLES=1 cargo test` writes it anew");
    }

    fn pack(values: &[u8], rest: u8) -> Vec<u8> {
        let mut packed = Vec::new();
        let number = |packed: &mut Vec<u8>, mut number: usize| {
            while number >= 0x80 {
                packed.push(number as u8 | 0x80);
                number >>= 7;
            }
            packed.push(number as u8);
        };
        let (mut at, mut written) = (0, 0);
        while at < values.len() {
            let end = at + values[at..].iter().take_while(|value| **value == values[at]).count();
            if values[at] != rest {
                number(&mut packed, at - written);
                number(&mut packed, end - at - 1);
                packed.push(values[at]);
                written = end;
            }
            at = end;
        }
        packed
    }

    #[test]
    fn what_is_packed_is_unpacked() {
        const VALUES: [u8; 9] = [7, 7, 0, 0, 0, 3, 4, 0, 9];
        assert_eq!(unpack::<9>(&pack(&VALUES, 0), 0), VALUES);
        assert_eq!(unpack::<4>(&pack(&VALUES, 7), 7), VALUES[..4]);
        let long: Vec<u8> = (0..100_000).map(|n| u8::from(n > 300)).collect();
        assert_eq!(unpack::<100_000>(&pack(&long, 0), 0)[..], long);
    }
}
