//! Pieces of BPE training: `cargo bench --bench bpe_training`. Text is made here, so that no file is needed.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use langadapt_core::Monitor;
use langadapt_core::bpe::cutting::Cutting;
use langadapt_core::bpe::train::{
    ByteLevelOptions, Counted, Cutter, SentencePieceOptions, Sentences, WordCounts, count_texts, learn_byte_level,
    learn_sentencepiece,
};
use langadapt_core::pretokenize::{Pattern, Scanner};

const SYLLABLES: [&str; 14] =
    ["ge", "schwin", "dig", "keit", "un", "über", "größ", "ten", "ver", "ständ", "nis", "se", "an", "er"];

/// About `bytes` of German-looking text; short words are frequent, long ones rare.
fn text(bytes: usize) -> String {
    let (mut out, mut state) = (String::new(), 1u64);
    let mut draw = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    while out.len() < bytes {
        let longest = 1 + draw(4);
        for _ in 0..1 + draw(longest) {
            out.push_str(SYLLABLES[draw(SYLLABLES.len())]);
        }
        out.push_str([" ", " ", " ", " ", ", ", ".\n", " 12 "][draw(7)]);
    }
    out
}

fn regex() -> Cutter {
    let cutting = Cutting::by(Pattern::Llama3.regex()).expect("a pattern of its own");
    Cutter::ByteLevel { normal: Vec::new(), cutting }
}

fn sentences() -> Cutter {
    Cutter::Sentences(Sentences::new(SentencePieceOptions::default().sentences()).expect("the defaults fit a matcher"))
}

fn words(cutter: &Cutter, text: &str) -> WordCounts {
    let counted: Counted =
        count_texts(&[text], cutter, None, 1, &Monitor::default()).expect("nobody stops the monitor");
    counted.words
}

fn benches(criterion: &mut Criterion) {
    let text = text(8 << 20);
    let monitor = Monitor::default();
    let mut group = criterion.benchmark_group("bpe_training");
    group.throughput(Throughput::Bytes(text.len() as u64)).sample_size(10);
    for pattern in Pattern::ALL {
        let scanner = Scanner::new(pattern.regex()).expect("a pattern of its own");
        group.bench_function(format!("pretokenize/{pattern:?}"), |bench| {
            bench.iter(|| {
                let mut pieces = 0u64;
                scanner.for_each(black_box(text.as_bytes()), |_, _| pieces += 1);
                pieces
            });
        });
    }
    for (name, cutter) in [("regex", regex()), ("sentences", sentences())] {
        group.bench_function(format!("count/{name}"), |bench| bench.iter(|| words(&cutter, &text).len()));
    }
    group.bench_function("learn/byte_level", |bench| {
        let options = ByteLevelOptions { vocab_size: 8000, accept_fewer: true, ..ByteLevelOptions::default() };
        let learn = |words| learn_byte_level(words, &options, &monitor).map(|trained| trained.merges.len());
        bench.iter_batched(|| words(&regex(), &text), learn, BatchSize::PerIteration);
    });
    group.bench_function("learn/sentencepiece", |bench| {
        let options = SentencePieceOptions { vocab_size: 8000, accept_fewer: true, ..SentencePieceOptions::default() };
        let learn = |words| learn_sentencepiece(words, &options, &monitor).map(|trained| trained.merges.len());
        bench.iter_batched(|| words(&sentences(), &text), learn, BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
