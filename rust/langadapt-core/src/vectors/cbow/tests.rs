//! CBOW on small stores made for the purpose.

use super::*;

/// Two groups of tokens that never meet: 0..8 and 8..16; token 16 is too rare.
fn two_topics() -> (Vec<u16>, Vec<u64>) {
    let mut random = Random::new(5, 0);
    let mut tokens = Vec::new();
    let mut offsets = vec![0];
    for document in 0..400u32 {
        let topic = document % 2 * 8;
        tokens.extend((0..40).map(|_| (topic + random.below(8)) as u16));
        offsets.push(tokens.len() as u64);
    }
    tokens[7] = 16;
    (tokens, offsets)
}

fn surfaces(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("tok{i}")).collect()
}

fn small() -> Settings {
    Settings { dim: 20, min_count: 5, subsample: 0.0, ngrams: (0, 0), ..Settings::default() }
}

fn cosine(vectors: &[f32], dim: usize, a: usize, b: usize) -> f32 {
    let (a, b) = (&vectors[a * dim..][..dim], &vectors[b * dim..][..dim]);
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn tokens_of_one_topic_end_up_alike() {
    let (tokens, offsets) = two_topics();
    for threads in [1, 3] {
        let settings = Settings { threads, epochs: 30, ..small() };
        let trained = train(&tokens, &offsets, &surfaces(17), &settings, &Monitor::default()).unwrap();
        for a in 0..16 {
            let mean = |topic: usize| {
                let others = (topic * 8..topic * 8 + 8).filter(|&b| b != a);
                others.map(|b| cosine(&trained.data, 20, a, b)).sum::<f32>() / if a / 8 == topic { 7.0 } else { 8.0 }
            };
            let (own, other) = (mean(a / 8), mean(1 - a / 8));
            assert!(own > other + 0.3, "{threads} threads, token {a}: {own} {other}");
        }
    }
}

#[test]
fn rare_tokens_get_zeros_and_counts_are_right() {
    let (tokens, offsets) = two_topics();
    let trained = train(&tokens, &offsets, &surfaces(18), &small(), &Monitor::default()).unwrap();
    assert!(trained.data[16 * 20..].iter().all(|&value| value == 0.0));
    assert!(trained.data[..16 * 20].chunks(20).all(|row| row.iter().any(|&value| value != 0.0)));
    assert_eq!(trained.counts.iter().sum::<u64>(), tokens.len() as u64);
    assert_eq!(trained.counts[16..], [1, 0]);
}

#[test]
fn one_thread_gives_the_same_bits_and_the_seed_matters() {
    let (tokens, offsets) = two_topics();
    let wide: Vec<u32> = tokens.iter().map(|&token| token.into()).collect();
    let settings = Settings { ngrams: (3, 6), ..small() };
    let run =
        |seed| train(&tokens, &offsets, &surfaces(17), &Settings { seed, ..settings.clone() }, &Monitor::default());
    let first = run(1).unwrap();
    assert_eq!(first, run(1).unwrap());
    assert_ne!(first.data, run(2).unwrap().data);
    let same = train(&wide, &offsets, &surfaces(17), &Settings { seed: 1, ..settings.clone() }, &Monitor::default());
    assert_eq!(first, same.unwrap());
}

#[test]
fn all_instruction_sets_give_the_same_bits() {
    let (tokens, offsets) = two_topics();
    let settings = Settings { ngrams: (3, 6), epochs: 1, ..small() };
    let best = train(&tokens, &offsets, &surfaces(17), &settings, &Monitor::default()).unwrap();
    let counts = count(&tokens, 17, 1, &Monitor::default()).unwrap();
    let names = surfaces(17);
    let model = Model::new(&counts, &names, &settings).unwrap();
    let mut worker = Worker::new(&model, 0);
    let total = model.corpus as f32;
    let mut done = 0;
    for_each_line(&offsets, 0, tokens.len(), |from, to| {
        let rate = settings.learning_rate * (1.0 - done as f32 / total).max(0.0);
        done += worker.take_line(&tokens[from..to]);
        worker.fit_line_on_any(rate);
        Ok(())
    })
    .unwrap();
    assert_eq!(model.vectors(), best.data);
}

#[test]
fn lines_end_with_documents_and_threads_share_out_all_tokens() {
    let offsets = [0, 0, 3, 3, 1500, 1500];
    for border in [0, 1, 3, 1024, 1400, 1500] {
        let mut lines = Vec::new();
        for (from, to) in [(0, border), (border, 1500)] {
            for_each_line(&offsets, from, to, |from, to| {
                lines.push((from, to));
                Ok(())
            })
            .unwrap();
        }
        assert_eq!(lines.iter().map(|(from, to)| to - from).sum::<usize>(), 1500);
        assert!(lines.windows(2).all(|pair| pair[0].1 == pair[1].0));
        assert!(lines.iter().all(|&(from, to)| to - from <= LINE && !(from < 3 && to > 3)), "{lines:?}");
    }
}

#[test]
fn bad_input_is_named() {
    let names = surfaces(4);
    let fails = |tokens: &[u16], offsets: &[u64], settings: &Settings| {
        train(tokens, offsets, &names, settings, &Monitor::default()).unwrap_err().to_string()
    };
    let settings = Settings { min_count: 1, ..small() };
    assert!(fails(&[1, 9], &[0, 2], &settings).contains("token 9"));
    assert!(fails(&[1, 2], &[0, 3], &settings).contains("offsets"));
    assert!(fails(&[1, 2, 1], &[0, 2, 1, 3], &settings).contains("offsets"));
    assert!(fails(&[1, 1], &[0, 2], &settings).contains("only 1 of 4"));
    assert!(fails(&[1, 2], &[0, 2], &Settings { dim: 0, ..settings.clone() }).contains("dim"));
    assert!(fails(&[1, 2], &[0, 2], &Settings { ngrams: (4, 3), ..settings.clone() }).contains("n-gram"));
}

#[test]
fn a_stop_is_obeyed() {
    let (tokens, offsets) = two_topics();
    let monitor = Monitor::default();
    monitor.stop();
    assert!(matches!(train(&tokens, &offsets, &surfaces(17), &small(), &monitor), Err(Error::Interrupted)));
}
