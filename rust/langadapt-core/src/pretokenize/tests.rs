//! Compiled regexes beside Oniguruma, the engine that `tokenizers` runs them with.

use onig::Regex;
use proptest::prelude::*;

use super::scanner::Reader;
use super::*;

/// What published tokenizers cut with, beside [`Pattern`].
const PUBLISHED: [&str; 24] = [
    // DeepSeek V3, three in a row.
    r"\p{N}{1,3}",
    r"[一-龥぀-ゟ゠-ヿ]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
    // Bloom.
    r" ?[^(\s|[.,!?…。，、।۔،])]+",
    // Kimi K2.
    concat!(
        r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+",
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+",
        r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|",
        r"\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    // Falcon, behind ByteLevel.
    "[0-9][0-9][0-9]",
    // DeepSeek Coder.
    r"[\r\n]",
    r"\s?\p{L}+",
    r"\s?\p{P}+",
    r"[一-龥ࠀ-一가-퟿]+",
    // Seed, Bailing, EXAONE, Youtu, AFMoE, MiniCPM, UFAKZEKA, Laguna, Granite's embeddings.
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\r\n]+|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
    r"[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+",
    r"[一-鿿㐀-䶿豈-﫿぀-ゟ゠-ヿ･-ﾟ⼀-⿟เ-๿຀-໿ក-៿က-႟ꩠ-ꩿꧠ-꧿가-힯ᄀ-ᇿ]+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"[^\n]+|[\n]+",
    r"[^\r\n\p{L}\p{N}]?((?=[\p{L}\p{M}])([^a-z]))*((?=[\p{L}\p{M}])([^A-Z]))+|\p{N}{1,3}|\s+(?!\S)|\s+",
    // cl100k as tiktoken spells it.
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
    r"\S+",
    r"(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
    r"([\t\n]|    |  )",
    r"<sentinel:[0-9]+>",
];

/// What no tokenizer is known to use, and the subset has.
const OTHERS: [&str; 14] = [
    r"a|ab|abc",
    r"(?:a|ab)(?:c|bcd)(?:d*)",
    r"a+?b|a{2,4}?|b??c",
    r"(?:ab?){1,3}+c|b",
    r"[^a&&[^b]]c|a",
    r"[[\p{L}\d]&&[^\d_]]+|\d",
    r"(?:aa|a)*?b|a",
    r"(?=[ab])\p{L}(?!c)|c$|\x41\u0042\x{43}",
    r"(?i:[a-k]k|x)z|(?-i:S)",
    r"(?i)trays|'[S]",
    r"a(?:b|(?=c)|d$)|.",
    r"\p{^Lu}a|\P{L}b|\p{Greek}+|\p{Zs}",
    r"[a\-z\]\[\^]+|[-a]b|[b-]",
    r"a|a*b",
];

fn all() -> Vec<(&'static str, Scanner, Regex)> {
    let known = Pattern::ALL.map(Pattern::regex);
    let regexes = known.into_iter().chain(PUBLISHED).chain(OTHERS);
    let compiled = |regex| match Scanner::new(regex) {
        Ok(scanner) => (regex, scanner, Regex::new(regex).unwrap()),
        Err(outside) => panic!("{regex}: {outside}"),
    };
    regexes.map(compiled).collect()
}

fn matches(scanner: &Scanner, text: &str) -> Vec<(usize, usize)> {
    let (mut reader, mut found, mut from) = (Reader::new(scanner), Vec::new(), 0);
    while let Some((start, end)) = reader.find(text.as_bytes(), from) {
        found.push((start, end));
        from = end;
    }
    found
}

fn assert_same(all: &[(&str, Scanner, Regex)], text: &str) {
    for (regex, scanner, oracle) in all {
        assert_eq!(matches(scanner, text), oracle.find_iter(text).collect::<Vec<_>>(), "{regex} on {text:?}");
    }
}

#[test]
fn every_character_in_context() {
    let all = all();
    let contexts = ["a{}a", " {}{}", "'{}e", "1{}\n", "\u{301}{}中"];
    let is_tried =
        |c: &char| *c < '\u{3200}' || (*c as u32).is_multiple_of(17) || ('\u{E0000}'..='\u{E0200}').contains(c);
    let all_tried: Vec<char> = ('\0'..='\u{32400}').chain('\u{E0000}'..='\u{E0200}').filter(is_tried).collect();
    for characters in all_tried.chunks(500) {
        let text: String = (characters.iter())
            .flat_map(|c| contexts.map(|context| context.replace("{}", c.encode_utf8(&mut [0; 4]))))
            .collect();
        assert_same(&all, &text);
    }
}

#[test]
fn sets_are_those_of_the_engine() {
    let text: String = ('\0'..=char::MAX).collect();
    let categories =
        "L Lu Ll Lt Lm Lo M Mn Mc Me N Nd Nl No P Pc Pd Ps Pe Pi Pf Po S Sm Sc Sk So Z Zs Zl Zp C Cc Cf Cn Co LC";
    let scripts =
        "Latin Greek Cyrillic Armenian Hebrew Arabic Syriac Thaana Devanagari Bengali Gurmukhi Gujarati Oriya Tamil
        Telugu Kannada Malayalam Sinhala Thai Lao Tibetan Myanmar Georgian Hangul Ethiopic Cherokee Khmer Mongolian
        Hiragana Katakana Bopomofo Han Common Inherited Tifinagh Javanese Balinese Vai Adlam Nko";
    let properties =
        categories.split_whitespace().chain(scripts.split_whitespace()).map(|name| format!(r"\p{{{name}}}"));
    for regex in properties.chain([r"\s", r"\d", r"\S", r"\D", "."].map(str::to_owned)) {
        let theirs: Vec<_> = Regex::new(&regex).unwrap().find_iter(&text).collect();
        let ours = matches(&Scanner::new(&regex).unwrap(), &text);
        let differing = ours.iter().zip(&theirs).find(|(ours, theirs)| ours != theirs);
        assert!(ours == theirs, "{regex}: {:?}", differing.map(|(a, b)| (&text[a.0..a.1], &text[b.0..b.1])));
    }
}

#[test]
fn case_is_folded_as_the_engine_does() {
    let text: String = ('\0'..=char::MAX).collect();
    for letter in ('a'..='z').chain('A'..='Z').chain(['\'', '1', '[']) {
        for regex in [format!(r"(?i:\x{{{:x}}})", letter as u32), format!(r"(?i:[\x{{{:x}}}!])", letter as u32)] {
            let theirs: Vec<_> = Regex::new(&regex).unwrap().find_iter(&text).collect();
            assert_eq!(matches(&Scanner::new(&regex).unwrap(), &text), theirs, "{regex}");
        }
    }
}

#[test]
fn what_is_outside_is_named_with_its_place() {
    for (regex, expected) in [
        (r"\p{N}|\b", r"the anchor `\b` at character 7"),
        (r"ä(?<=a)b", "looking behind at character 2"),
        (r"\d{1,3}(?=(?:\d{3})*\b)", r"the anchor `\b` at character 21"),
        (r"a(?!bc)", "looking ahead at more than one character at character 2"),
        (r"(a)\1", "a reference to a group at character 4"),
        (r"a|\w+", r"`\w` at character 3"),
        (r"(?>ab)+", "an atomic group at character 1"),
        (r"(?:ab)++", "a possessive repetition of more than one character at character 7"),
        (r"(?:a*)*", "an endless repetition of what may be empty at character 7"),
        (r"a*", "a regex that may match nothing at character 1"),
        (r"a(b", "unmatched `(` at character 2"),
        (r"a)b", "unmatched `)` at character 2"),
        (r"[a-z", "unmatched `[` at character 1"),
        (r"\p{Alphabetic}", "the property `Alphabetic`, which is no general category and no script, at character 1"),
        (r"(?i:große)", "`ß` without regard to case at character 8"),
        (r"(?i:miss)", "a pair of letters that folds to one, without regard to case, at character 7"),
        (r".{1,900}", "a regex with too many states at character 1"),
    ] {
        assert_eq!(Scanner::new(regex).unwrap_err().to_string(), expected, "{regex}");
    }
}

#[test]
fn reading_ahead_in_vain_stays_linear() {
    for regex in ["a|a*b", r"\s|\s*x", "(?:a+)+b|aa", "(?:a|aa)+$|b"] {
        let scanner = Scanner::new(regex).unwrap();
        let unit = if regex.starts_with('\\') { " " } else { "a" };
        let short = unit.repeat(6_000);
        let oracle: Vec<_> = if regex.contains("+)+") || regex.contains('$') {
            vec![]
        } else {
            Regex::new(regex).unwrap().find_iter(&short).collect()
        };
        let ours = matches(&scanner, &short);
        assert!(oracle.is_empty() || ours == oracle, "{regex}");
        let started = std::time::Instant::now();
        matches(&scanner, &unit.repeat(300_000));
        assert!(started.elapsed().as_secs() < 20, "{regex}");
    }
}

/// Regexes of the subset: short ones, so that alternatives and repetitions get in each other's way.
fn regexes() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "a",
        "b",
        "c",
        "ab",
        "[ab]",
        "[^a]",
        r"\s",
        r"\p{L}",
        r"(?!a)",
        "(?=[bc])",
        r"(?!\S)",
        "$",
        "a+",
        "b*",
        "c?",
        "[ab]{1,2}",
        "[^b]++",
        "a?+",
        "b*+",
        "a+?",
        "b??",
        r"[^\s]{2}",
        "(?i:a)",
        "[a-c&&[^b]]",
    ]);
    leaf.prop_map(str::to_owned).prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4).prop_map(|parts| parts.concat()),
            prop::collection::vec(inner.clone(), 2..4).prop_map(|parts| format!("(?:{})", parts.join("|"))),
            (inner, prop::sample::select(vec!["*", "+", "?", "*?", "+?", "??", "{1,2}", "{2}", "{0,2}", "{1,2}+"]))
                .prop_map(|(part, often)| format!("(?:{part}){often}")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn any_regex_of_the_subset(regex in regexes(), text in "[abcA \n\u{e4}]{0,14}") {
        // Oniguruma takes no repetition of a mere place, such as `(?:$)*`.
        if let (Ok(scanner), Ok(oracle)) = (Scanner::new(&regex), Regex::new(&regex)) {
            prop_assert_eq!(matches(&scanner, &text), oracle.find_iter(&text).collect::<Vec<_>>(), "{} on {:?}", regex, text);
        }
    }
}

fn pieces(steps: &Steps, text: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    steps.for_each(text.as_bytes(), |from, to| found.push((from, to)));
    found
}

/// Steps twice, as they are and fused to `left` of them.
fn both(steps: impl Fn() -> Vec<Split>, left: usize) -> (Steps, Steps) {
    let fused = Steps(steps()).fused();
    assert_eq!(fused.0.len(), left);
    (Steps(steps()), fused)
}

fn published_steps() -> Vec<(Steps, Steps)> {
    let isolated = |regex: &str| Split::new(regex, Behavior::Isolated, false).unwrap();
    let characters = |is: fn(char) -> bool, behavior| Split::at_characters(is, behavior).unwrap();
    let gpt2 = || isolated(Pattern::Gpt2.regex());
    vec![
        // DeepSeek, Falcon, StarCoder.
        both(|| PUBLISHED[..3].iter().map(|regex| isolated(regex)).collect(), 1),
        both(|| vec![characters(|c| c.is_ascii_punctuation() || c == '،', Behavior::Contiguous), gpt2()], 1),
        both(|| vec![characters(char::is_numeric, Behavior::Isolated), gpt2()], 1),
        both(|| vec![characters(char::is_numeric, Behavior::Contiguous), isolated(r"\p{L}+'?|[1-3]")], 1),
        // A piece of several spaces is cut by the regex inside, and not by what it would be fused to.
        both(|| vec![isolated(r"\s{1,2}"), gpt2()], 2),
        both(|| vec![characters(char::is_numeric, Behavior::MergedWithNext), gpt2()], 2),
        // What the regex inside leaves out is removed, and would be kept.
        both(|| vec![isolated(r"\s"), Split::new(r"\p{Lu}*\p{Ll}+", Behavior::Removed, true).unwrap()], 2),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn fused_steps_cut_as_one_within_the_other(
        regex in regexes(), outer in prop::sample::select(vec!["[ab]", "[ab]+", r"\s", r"\p{L}+", "[ac]{1,2}"]),
        contiguous in any::<bool>(), text in "[abcA \n\u{e4}]{0,14}",
    ) {
        let behavior = if contiguous { Behavior::Contiguous } else { Behavior::Isolated };
        let steps = || Some(vec![
            Split::new(outer, behavior, false).ok()?, Split::new(&regex, Behavior::Isolated, false).ok()?,
        ]);
        if let (Some(apart), Some(fused)) = (steps(), steps()) {
            let (apart, fused) = (Steps(apart), Steps(fused).fused());
            prop_assert_eq!(pieces(&fused, &text), pieces(&apart, &text), "{} in {} on {:?}", regex, outer, text);
        }
    }

    #[test]
    fn published_steps_cut_alike_when_fused(
        text in r"[a-cA-D'stlrevmd1² \t\r\n.,/\u{a0}\u{301}\u{7f}\u{3000}\u{3040}\u{30fb}äßλ中あ，0-9ॐ़ไ😀]{0,60}", any in any::<String>(),
    ) {
        thread_local!(static ALL: Vec<(Steps, Steps)> = published_steps());
        ALL.with(|all| for (number, (apart, fused)) in all.iter().enumerate() {
            for text in [&text, &any] {
                assert_eq!(pieces(fused, text), pieces(apart, text), "{number} on {text:?}");
            }
        });
    }
}

proptest! {
    #[test]
    fn published_regexes_on_any_text(
        text in r"[a-cA-D'stlrevmd1² \t\r\n.,/\u{a0}\u{301}\u{17f}\u{212a}\u{2028}\u{3000}äßλ中ॐ़ไ😀]{0,60}", any in any::<String>(),
    ) {
        thread_local!(static ALL: Vec<(&'static str, Scanner, Regex)> = all());
        ALL.with(|all| [text, any].iter().for_each(|text| assert_same(all, text)));
    }
}
