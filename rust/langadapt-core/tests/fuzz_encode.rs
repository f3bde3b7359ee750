//! Random mutations of tokenizer files, and texts. Nothing may panic; what is read must be encoded the same in every
//! way.

mod fuzzing;

use fuzzing::{Random, a_second, for_long};
use langadapt_core::Monitor;
use langadapt_core::bpe::{Cache, CachePool, Load, NativeTokenizer, Shares};

const SENTENCEPIECE: &str = r#"{"added_tokens": [{"id": 0, "content": "<s>", "single_word": false, "lstrip": true,
    "rstrip": false, "normalized": true, "special": true}, {"id": 9, "content": "ab", "single_word": true,
    "lstrip": false, "rstrip": true, "normalized": false, "special": false}], "normalizer": {"type": "Sequence",
    "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "},
    "content": "▁"}]}, "pre_tokenizer": null, "post_processor": null, "decoder": {"type": "Sequence", "decoders":
    [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
    {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}, "model": {"type": "BPE", "unk_token": "<s>",
    "fuse_unk": true, "byte_fallback": true, "vocab": {"<s>": 0, "▁": 1, "a": 2, "b": 3, "▁a": 4, "ab": 5, "aa": 6,
    "▁▁": 7, "ü": 8, "<0x0A>": 9, "bü": 10}, "merges": [["▁", "a"], ["a", "a"], "a b", ["▁", "▁"], ["b", "ü"]]}}"#;

const BYTE_LEVEL: &str = r#"{"added_tokens": [{"id": 0, "content": "<s>", "single_word": false, "lstrip": false,
    "rstrip": true, "normalized": false, "special": true}], "normalizer": {"type": "NFC"}, "pre_tokenizer":
    {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true}, {"type": "ByteLevel",
    "add_prefix_space": true, "use_regex": true}]}, "post_processor": {"type": "RobertaProcessing", "sep": ["a", 1],
    "cls": ["b", 2]}, "decoder": {"type": "ByteLevel"}, "model": {"type": "BPE", "ignore_merges": true, "vocab":
    {"<s>": 0, "a": 1, "b": 2, "Ġ": 3, "Ċ": 4, "Ã": 5, "¼": 6, "Ã¼": 7, "Ġa": 8, "ab": 9, "1": 10},
    "merges": ["Ã ¼", "Ġ a", "a b"]}}"#;

const TEXTS: [&str; 17] = [
    "a",
    "b",
    "ü",
    "u\u{308}",
    " ",
    "  ",
    "\n",
    "▁",
    "<s>",
    "ab",
    "1",
    "½",
    "👩‍👩‍👧",
    "\u{0}",
    "\u{10ffff}",
    "aaaaaaaaaaaaaaaaa",
    "abababababababababababababababababababababababababababababababababababababababab",
];

/// Parts of tokenizer files, to be put in the place of others.
const PARTS: [&str; 26] = [
    "null",
    "true",
    "false",
    "0",
    "-1",
    "4294967296",
    "1e99",
    "\"\"",
    "[]",
    "{}",
    "\"▁\"",
    "\"a\"",
    "\"a b\"",
    "\"a b c\"",
    "[\"a\"]",
    "[\"a\", \"b\", \"c\"]",
    "\"BPE\"",
    "\"Unigram\"",
    "\"Metaspace\"",
    "\"ByteLevel\"",
    "\"Sequence\"",
    "\"Split\"",
    "{\"type\": \"NFKC\"}",
    "{\"type\": \"Metaspace\", \"replacement\": \"▁\", \"prepend_scheme\": \"first\"}",
    "\"\\ud83d\"",
    "{\"type\": \"Digits\"}",
];

fn text(random: &mut Random) -> String {
    (0..random.below(40)).map(|_| random.pick(&TEXTS)).collect()
}

fn mutated(random: &mut Random, file: &str) -> Vec<u8> {
    let mut bytes = file.as_bytes().to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(6) {
            0 => bytes[at] = random.next() as u8,
            1 => bytes.truncate(at.max(1)),
            2 => drop(bytes.drain(at..bytes.len().min(at + 1 + random.below(12)))),
            _ => {
                // The JSON value that begins at or behind a colon or comma.
                let from = bytes[at..].iter().position(|byte| b":,[".contains(byte)).map_or(at, |n| at + n + 1);
                let until = bytes[from..].iter().position(|byte| b",}]".contains(byte)).map_or(from, |n| from + n);
                bytes.splice(from..until, random.pick(&PARTS).bytes());
            }
        }
        if bytes.is_empty() {
            bytes.push(b'{');
        }
    }
    bytes
}

/// All ways to the ids of a text agree, and they decode without a panic; returns how many texts.
fn encode_all_ways(tokenizer: &NativeTokenizer, random: &mut Random, cache: &mut Cache) -> u64 {
    let texts: Vec<String> = (0..4 + random.below(16)).map(|_| text(random)).collect();
    let pool = CachePool::default();
    let batch = tokenizer.encode_batch(&texts, &Shares::new(&texts, 2), false, &pool, &Monitor::default()).unwrap();
    for (at, text) in texts.iter().enumerate() {
        let (mut warm, mut cold) = (Vec::new(), Vec::new());
        tokenizer.encode_into(text, cache, &mut warm);
        tokenizer.encode_into(text, &mut Cache::default(), &mut cold);
        let batched = &batch.ids[batch.offsets[at] as usize..batch.offsets[at + 1] as usize];
        assert_eq!(warm, cold, "{text:?}");
        assert_eq!(warm, batched, "{text:?}");
        assert!(warm.iter().all(|id| (*id as usize) < tokenizer.vocab_size()));
        tokenizer.decode(&warm, random.below(2) == 0);
    }
    let wild: Vec<u32> = (0..20).map(|_| random.next() as u32 >> random.below(32)).collect();
    tokenizer.decode(&wild, false);
    tokenizer.unreachable();
    texts.len() as u64
}

#[derive(Default)]
struct Target {
    runs: u64,
    native: u64,
    cache: Cache,
}

impl Target {
    fn step(&mut self, random: &mut Random) -> u64 {
        self.runs += 1;
        let file = random.pick(&[SENTENCEPIECE, BYTE_LEVEL]);
        let bytes = if random.below(4) == 0 { file.as_bytes().to_vec() } else { mutated(random, file) };
        match NativeTokenizer::load(&bytes, "tokenizer.json".as_ref()) {
            Ok(Load::Native(tokenizer)) => {
                self.native += 1;
                1 + encode_all_ways(&tokenizer, random, &mut self.cache)
            }
            Ok(Load::Foreign(reason)) => {
                assert!(!reason.contains('\n'), "{reason}");
                1
            }
            Err(error) => {
                assert!(!error.to_string().contains('\n'), "{error}");
                1
            }
        }
    }
}

#[test]
fn a_second_of_mutations() {
    let mut target = Target::default();
    a_second(|random| target.step(random));
    assert!(target.native > 10, "{} of {} files were read", target.native, target.runs);
}

#[test]
#[ignore = "runs for FUZZ_SECONDS, a minute by default"]
fn fuzz_encoder() {
    let mut target = Target::default();
    for_long(|random| target.step(random));
}
