//! Ids to text, step by step as the decoders of `tokenizers` do it.

use super::spec::DecodeStep;

/// Joins `tokens` after `steps`; without a decoder, with a space between tokens.
pub fn decode(steps: Option<&[DecodeStep]>, mut tokens: Vec<String>) -> String {
    let Some(steps) = steps else { return tokens.join(" ") };
    for step in steps {
        tokens = step.apply(tokens);
    }
    tokens.concat()
}

impl DecodeStep {
    fn apply(&self, tokens: Vec<String>) -> Vec<String> {
        match self {
            Self::ByteLevel => vec![byte_level(&tokens)],
            Self::ByteFallback => byte_fallback(tokens),
            Self::Fuse => vec![tokens.concat()],
            Self::Metaspace { replacement, drop_first } => metaspace(&tokens, *replacement, *drop_first),
            Self::Strip { content, start, stop } => {
                tokens.iter().map(|token| strip(token, *content, *start, *stop).to_owned()).collect()
            }
            Self::Replace { from, to } => tokens.iter().map(|token| token.replace(from, to)).collect(),
        }
    }
}

fn byte_level(tokens: &[String]) -> String {
    let mut bytes = Vec::with_capacity(tokens.iter().map(String::len).sum());
    for token in tokens {
        let start = bytes.len();
        for character in token.chars() {
            match super::byte_level::byte_of(character) {
                Some(byte) => bytes.push(byte),
                None => {
                    // One character that stands for no byte, and the whole token is taken literally.
                    bytes.truncate(start);
                    bytes.extend_from_slice(token.as_bytes());
                    break;
                }
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn byte_fallback(tokens: Vec<String>) -> Vec<String> {
    let mut decoded = Vec::with_capacity(tokens.len());
    let mut run = Vec::new();
    for token in tokens {
        match byte_token(&token) {
            Some(byte) => run.push(byte),
            None => {
                flush_bytes(&mut run, &mut decoded);
                decoded.push(token);
            }
        }
    }
    flush_bytes(&mut run, &mut decoded);
    decoded
}

/// The byte of a token `<0xNN>`.
pub fn byte_token(token: &str) -> Option<u8> {
    if token.len() != 6 {
        return None;
    }
    u8::from_str_radix(token.strip_prefix("<0x")?.strip_suffix('>')?, 16).ok()
}

fn flush_bytes(run: &mut Vec<u8>, decoded: &mut Vec<String>) {
    if run.is_empty() {
        return;
    }
    match std::str::from_utf8(run) {
        Ok(text) => decoded.push(text.to_owned()),
        Err(_) => decoded.extend(run.iter().map(|_| "\u{FFFD}".to_owned())),
    }
    run.clear();
}

fn metaspace(tokens: &[String], replacement: char, drop_first: bool) -> Vec<String> {
    let mut decoded: Vec<String> = tokens.iter().map(|token| token.replace(replacement, " ")).collect();
    if let (true, Some(first)) = (drop_first, tokens.first()) {
        decoded[0] = first.replace(replacement, "");
    }
    decoded
}

fn strip(token: &str, content: char, start: usize, stop: usize) -> &str {
    let mut rest = token;
    for _ in 0..start {
        let Some(shorter) = rest.strip_prefix(content) else { break };
        rest = shorter;
    }
    for _ in 0..stop {
        let Some(shorter) = rest.strip_suffix(content) else { break };
        rest = shorter;
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(steps: &[DecodeStep], tokens: &[&str]) -> String {
        decode(Some(steps), tokens.iter().map(|token| (*token).to_owned()).collect())
    }

    #[test]
    fn llama() {
        let steps = [
            DecodeStep::Replace { from: "▁".into(), to: " ".into() },
            DecodeStep::ByteFallback,
            DecodeStep::Fuse,
            DecodeStep::Strip { content: ' ', start: 1, stop: 0 },
        ];
        assert_eq!(run(&steps, &["▁Gr", "<0xC3>", "<0xBC>", "n", "▁", "<0xC3>", "x"]), "Grün \u{FFFD}x");
        assert_eq!(run(&steps, &["▁▁a"]), " a");
        assert_eq!(run(&steps, &[]), "");
    }

    #[test]
    fn gpt2() {
        assert_eq!(run(&[DecodeStep::ByteLevel], &["GrÃ", "¼n", "Ġx", "▁"]), "Grün x▁");
        assert_eq!(run(&[DecodeStep::ByteLevel], &["Ã"]), "\u{FFFD}");
    }

    #[test]
    fn metaspace_goes_from_the_first_token() {
        let step = DecodeStep::Metaspace { replacement: '▁', drop_first: true };
        assert_eq!(run(&[step], &["▁a", "▁b"]), "a b");
        assert_eq!(decode(None, vec!["a".into(), "b".into()]), "a b");
    }

    #[test]
    fn byte_tokens() {
        assert_eq!(byte_token("<0x0A>"), Some(10));
        assert_eq!(byte_token("<0xZZ>"), None);
        assert_eq!(byte_token("<0x1>"), None);
    }
}
