use super::*;

/// Texts of a made-up language, whose words are two to four of its syllables.
fn texts(syllables: &[&str], seed: u64, count: usize) -> Vec<String> {
    let mut state = seed;
    let mut below = |n: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    };
    let word = |below: &mut dyn FnMut(usize) -> usize| {
        (0..2 + below(3)).map(|_| syllables[below(syllables.len())]).collect::<String>()
    };
    (0..count).map(|_| (0..60).map(|_| word(&mut below)).collect::<Vec<_>>().join(" ")).collect()
}

const SOFT: [&str; 8] = ["la", "mi", "no", "re", "sa", "lu", "ne", "mo"];
const HARD: [&str; 8] = ["krat", "stop", "grik", "tlun", "prax", "drok", "bist", "zgor"];
const OTHER: [&str; 8] = ["yau", "wei", "hoo", "vai", "joe", "quu", "fey", "xiu"];
const GREEK: [&str; 4] = ["λα", "μι", "νο", "ρε"];

fn learn(own: &[String], foreign: &[String]) -> Result<Language> {
    Language::learn(own, foreign, &Monitor::default())
}

fn count_of(language: &Language, texts: &[String], wanted: Judged) -> usize {
    texts.iter().filter(|text| language.judge(text) == wanted).count()
}

#[test]
fn tells_the_two_a_third_and_another_script() {
    let language = learn(&texts(&SOFT, 1, 200), &texts(&HARD, 2, 200)).unwrap();
    assert_eq!(count_of(&language, &texts(&SOFT, 3, 50), Judged::Own), 50);
    assert_eq!(count_of(&language, &texts(&HARD, 4, 50), Judged::Foreign), 50);
    assert_eq!(count_of(&language, &texts(&OTHER, 5, 50), Judged::Foreign), 50);
    assert_eq!(count_of(&language, &texts(&GREEK, 6, 50), Judged::Script), 50);
    assert_eq!(language.judge("lami nore, 123"), Judged::Short);
    assert_eq!(language.judge(""), Judged::Short);
}

#[test]
fn a_third_of_foreign_documents_does_no_harm() {
    let mut own = texts(&SOFT, 1, 200);
    own.extend(texts(&HARD, 7, 60));
    own.extend(texts(&GREEK, 8, 40));
    // Other languages in between, as in a corpus.
    own.sort_by_key(|text| text.len() % 17);
    let language = learn(&own, &texts(&HARD, 2, 200)).unwrap();
    assert_eq!(count_of(&language, &texts(&SOFT, 3, 50), Judged::Own), 50);
    assert_eq!(count_of(&language, &texts(&HARD, 4, 50), Judged::Foreign), 50);
}

#[test]
fn letters_are_lower_cased_and_words_stand_apart() {
    let of = |text| letters_of(text, LOOKED_AT).into_iter().collect::<String>();
    assert_eq!(of("Der Tag, 24-mal!"), " der tag mal ");
    assert_eq!(of("नमस्ते दुनिया"), " नमस्ते दुनिया ");
    assert_eq!(of(" 1 2 "), " ");
    assert_eq!(letters_of(&"a".repeat(2 * LOOKED_AT), LOOKED_AT).len(), LOOKED_AT + 1);
}

#[test]
fn every_ngram_of_up_to_four_letters_has_a_row() {
    let rows = |text: &str| {
        let mut found = Vec::new();
        for_each(&text.chars().collect::<Vec<_>>(), |_, row| found.push(row));
        found
    };
    assert_eq!(rows("abcde").len(), 1 + 2 + 3 + 4 + 4);
    // The last four rows of a text are those of its endings, the shortest first, wherever they stand.
    assert_eq!(rows("xxbcde")[14..], rows("bcde")[6..]);
    assert_ne!(rows("ab")[2], rows("ba")[2]);
}

#[test]
fn refuses_what_teaches_nothing() {
    let (soft, hard) = (texts(&SOFT, 1, 200), texts(&HARD, 2, 200));
    let told = |found: Result<Language>| found.unwrap_err().to_string();
    assert!(told(learn(&soft[..5], &hard)).contains("too little text"));
    assert!(told(learn(&soft, &[])).contains("and 0 of the other"));
    assert!(told(learn(&soft, &texts(&SOFT, 9, 100))).contains("cannot be told apart"));
    let stopped = Monitor::default();
    stopped.stop();
    assert!(matches!(Language::learn(&soft, &hard, &stopped), Err(Error::Interrupted)));
}
