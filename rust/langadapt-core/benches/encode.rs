//! Pieces of encoding: `cargo bench --bench encode`. Tokenizer and text are made here, so that no file is needed.
//!
//! `cold` starts with an empty cache, `warm` with one that has seen the text; `no space` is one word of a megabyte.

use std::collections::HashMap;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use langadapt_core::bpe::{Cache, Load, NativeTokenizer};

const SYLLABLES: [&str; 12] = ["ge", "schwin", "dig", "keit", "un", "ober", "groß", "ten", "ver", "stand", "nis", "se"];

/// A SentencePiece-style tokenizer whose pieces are the beginnings of the syllables.
fn tokenizer() -> NativeTokenizer {
    let mut vocab: HashMap<String, usize> = (0..256).map(|byte| (format!("<0x{byte:02X}>"), byte)).collect();
    let mut merges = Vec::new();
    for character in "▁abcdefghijklmnopqrstuvwxyzß.".chars() {
        vocab.insert(character.to_string(), vocab.len());
    }
    for syllable in SYLLABLES {
        for (at, character) in syllable.char_indices().skip(1) {
            let joined = format!("{}{character}", &syllable[..at]);
            if !vocab.contains_key(&joined) {
                vocab.insert(joined, vocab.len());
                merges.push(vec![syllable[..at].to_owned(), character.to_string()]);
            }
        }
    }
    let json = serde_json::json!({
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "model": {"type": "BPE", "byte_fallback": true, "vocab": vocab, "merges": merges},
    });
    match NativeTokenizer::load(json.to_string().as_bytes(), "tokenizer.json".as_ref()) {
        Ok(Load::Native(tokenizer)) => *tokenizer,
        other => panic!("not native: {other:?}"),
    }
}

fn text(bytes: usize, space: &str) -> String {
    let (mut out, mut state) = (String::new(), 1u64);
    while out.len() < bytes {
        for _ in 0..3 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            out.push_str(SYLLABLES[(state >> 33) as usize % SYLLABLES.len()]);
        }
        out.push_str(space);
    }
    out
}

fn benches(criterion: &mut Criterion) {
    let tokenizer = tokenizer();
    let mut group = criterion.benchmark_group("encode");
    group.sample_size(10);
    for (name, text) in [("words", text(4 << 20, " ")), ("no space", text(1 << 20, ""))] {
        group.throughput(Throughput::Bytes(text.len() as u64));
        let mut ids = Vec::with_capacity(text.len());
        group.bench_function(format!("{name}, cold"), |bencher| {
            bencher.iter(|| {
                ids.clear();
                tokenizer.encode_into(black_box(&text), &mut Cache::default(), &mut ids);
            });
        });
        let mut cache = Cache::default();
        group.bench_function(format!("{name}, warm"), |bencher| {
            bencher.iter(|| {
                ids.clear();
                tokenizer.encode_into(black_box(&text), &mut cache, &mut ids);
            });
        });
    }
    group.finish();
}

criterion_group!(encode, benches);
criterion_main!(encode);
