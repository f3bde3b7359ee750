//! Pieces of corpus reading: `cargo bench --bench corpus`. Text is made here, so that no file is needed.

use std::hint::black_box;
use std::io::Write;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use langadapt_core::Monitor;
use langadapt_core::corpus::{
    Batch, BuildSettings, Filters, Inputs, ReadOptions, RepetitionLimits, build, fold_documents,
};

const SYLLABLES: [&str; 12] = ["ge", "schwin", "dig", "keit", "un", "über", "größ", "ten", "ver", "ständ", "nis", "se"];

/// About `bytes` of German-looking text as JSON Lines.
fn lines(bytes: usize) -> Vec<u8> {
    let (mut out, mut state) = (Vec::new(), 1u64);
    while out.len() < bytes {
        out.extend_from_slice(b"{\"id\": 17, \"text\": \"");
        for word in 0..400 {
            for _ in 0..3 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                out.extend_from_slice(SYLLABLES[(state >> 33) as usize % SYLLABLES.len()].as_bytes());
            }
            out.extend_from_slice(if word % 12 == 11 { b".\\n" } else { b" " });
        }
        out.extend_from_slice(b"\", \"source\": {\"name\": \"bench\"}}\n");
    }
    out
}

fn benches(criterion: &mut Criterion) {
    let folder = std::env::temp_dir().join(format!("langadapt-bench-{}", std::process::id()));
    let made = std::fs::create_dir_all(&folder).and_then(|()| write_all(&folder));
    made.expect("the temporary folder can be written");
    let mut group = criterion.benchmark_group("corpus");
    group.throughput(Throughput::Bytes(16 << 20)).sample_size(10);
    for name in ["a.jsonl", "a.jsonl.zst", "a.jsonl.gz"] {
        let inputs = Inputs::expand(&[folder.join(name).to_string_lossy()]).expect("it was just written");
        for threads in [1, 2] {
            group.bench_function(format!("read {name}, {threads} threads"), |bench| {
                bench.iter(|| text_bytes(&inputs, threads));
            });
        }
    }
    let inputs = Inputs::expand(&[folder.join("a.jsonl").to_string_lossy()]).expect("it was just written");
    let none = Filters::default();
    for (what, filters) in [
        ("no filter", none.clone()),
        ("near duplicates", Filters { near_duplicates: true, ..none.clone() }),
        ("repetition", Filters { repetition: Some(RepetitionLimits::default()), ..none }),
    ] {
        let settings = BuildSettings { filters, validation_share: 0.01, ..BuildSettings::default() };
        group.bench_function(format!("build, {what}"), |bench| {
            bench.iter(|| build(&inputs, &ReadOptions::default(), &settings, &folder, 2, &Monitor::default()));
        });
    }
    group.finish();
    let _ = std::fs::remove_dir_all(&folder);
}

fn text_bytes(inputs: &Inputs, threads: usize) -> u64 {
    let fold = |sum: &mut u64, batch: &Batch| {
        *sum += black_box(batch.text_bytes());
        Ok(())
    };
    let read = fold_documents(inputs, &ReadOptions::default(), threads, &Monitor::default(), || 0, fold);
    read.map_or(0, |(sums, _)| sums.iter().sum())
}

fn write_all(folder: &std::path::Path) -> std::io::Result<()> {
    let text = lines(16 << 20);
    std::fs::write(folder.join("a.jsonl"), &text)?;
    std::fs::write(folder.join("a.jsonl.zst"), zstd::stream::encode_all(text.as_slice(), 3)?)?;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(&text)?;
    std::fs::write(folder.join("a.jsonl.gz"), encoder.finish()?)
}

criterion_group!(all, benches);
criterion_main!(all);
