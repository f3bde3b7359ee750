//! The extractor against `serde_json`.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn ours(line: &str) -> Result<String, Fault> {
    let mut bytes = line.as_bytes().to_vec();
    extract(&mut bytes, "text").map(|range| String::from_utf8(bytes[range].to_vec()).unwrap())
}

/// The same through `serde_json`; `None` where the line holds no document.
fn oracle(line: &str) -> Option<String> {
    match serde_json::from_str::<Value>(line).ok()? {
        Value::Object(map) => Some(map.get("text")?.as_str()?.to_owned()),
        _ => None,
    }
}

#[test]
fn reads_what_serde_json_reads() {
    for line in [
        r#"{"text":"plain"}"#,
        r#" { "a" : [1,-2.5e+3,{"b":[]},{}] , "text" : "Gr\u00fc\u00dfe\n\"\\\/\b\f\r\t" , "z":null } "#,
        r#"{"text":"\ud83d\ude00 und \u20ac"}"#,
        r#"{"te\u0078t":"escaped key"}"#,
        r#"{"text":"first","text":"second"}"#,
        r#"{"text":""}"#,
        r#"{"text":"ein recht langer Text ohne jedes Zeichen, das eine Rolle spielen könnte — außer am Ende\n"}"#,
    ] {
        assert_eq!(ours(line).ok(), oracle(line), "{line}");
    }
}

#[test]
fn refuses_what_is_no_document() {
    for (line, kind) in [
        (r#"{"text":"torn"#, Kind::MalformedJson),
        (r#"{"text":"a"} x"#, Kind::MalformedJson),
        (r#"{"text":"a",}"#, Kind::MalformedJson),
        (r#"{"text":"a" "b":1}"#, Kind::MalformedJson),
        (r#"{"text":"\x"}"#, Kind::MalformedJson),
        (r#"{"text":"\u12"}"#, Kind::MalformedJson),
        (r#"{"text":"\ud83d"}"#, Kind::MalformedJson),
        (r#"{"text":"\ude00"}"#, Kind::MalformedJson),
        (r#"{"text":"\ud83dx\ude00"}"#, Kind::MalformedJson),
        ("{\"text\":\"a\tb\"}", Kind::MalformedJson),
        (r#"{"n":01,"text":"a"}"#, Kind::MalformedJson),
        (r#"{"n":1.,"text":"a"}"#, Kind::MalformedJson),
        (r#"{"n":tru,"text":"a"}"#, Kind::MalformedJson),
        (r#"["text"]"#, Kind::MalformedJson),
        (r#"{"text":null}"#, Kind::MissingText),
        (r#"{"text":["a"]}"#, Kind::MissingText),
        (r#"{"content":"a"}"#, Kind::MissingText),
        (r#"{}"#, Kind::MissingText),
    ] {
        assert_eq!(ours(line).unwrap_err().kind, kind, "{line}");
        assert_eq!(oracle(line), None, "{line}");
    }
    let fault = ours(r#"{"content":"a","id":{"text":"inner"}}"#).unwrap_err();
    assert!(fault.reason.contains("`content`, `id`"), "{}", fault.reason);
}

#[test]
fn deep_nesting_is_an_error_and_not_a_stack_overflow() {
    let deep = format!(r#"{{"a":{}{},"text":"b"}}"#, "[".repeat(120), "]".repeat(120));
    assert_eq!(ours(&deep).unwrap(), "b");
    let deeper = format!(r#"{{"a":{}{},"text":"b"}}"#, "[".repeat(1_000_000), "]".repeat(1_000_000));
    assert_eq!(ours(&deeper).unwrap_err().kind, Kind::MalformedJson);
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..5)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

/// Escapes every UTF-16 unit where `choose` says so: valid JSON that `serde_json` itself would not write.
fn escape(text: &str, choose: u64) -> String {
    let mut out = String::new();
    for (n, character) in text.chars().enumerate() {
        if choose >> (n % 64) & 1 == 1 || character < ' ' || character == '"' || character == '\\' {
            for unit in character.encode_utf16(&mut [0; 2]) {
                out += &format!("\\u{unit:04x}");
            }
        } else {
            out.push(character);
        }
    }
    out
}

proptest! {
    #[test]
    fn written_lines_are_read_by_serde_json(text in any::<String>(), control in "[\\x00-\\x1f\"\\\\a]{0,40}") {
        let text = text + &control;
        let mut line = Vec::new();
        write_line(&text, &mut line);
        prop_assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1);
        prop_assert_eq!(oracle(std::str::from_utf8(&line).unwrap()), Some(text));
    }

    #[test]
    fn whole_lines_equal_serde_json(text in any::<String>(), before in json(), after in json(), choose in any::<u64>()) {
        let line = format!(r#"{{"a":{before},"text":"{}","b":{after}}}"#, escape(&text, choose));
        prop_assert_eq!(ours(&line).unwrap(), text);
    }

    #[test]
    fn damaged_lines_equal_serde_json(value in json(), text in any::<String>(), cut in any::<prop::sample::Index>(),
                                      put in prop::sample::select(vec!["", "\"", "{", "}", "]", ",", ":", "\\", "0", "e", " ", "\\u", "d800"])) {
        let line = format!(r#"{{"a":{value},"text":{}}}"#, Value::from(text));
        let mut at = cut.index(line.len());
        while !line.is_char_boundary(at) { at -= 1; }
        let end = at + line[at..].chars().next().map_or(0, char::len_utf8);
        let damaged = format!("{}{put}{}", &line[..at], &line[end..]);
        match serde_json::from_str::<Value>(&damaged) {
            // Where we are more liberal on purpose.
            Err(error) if error.to_string().contains("out of range") => {}
            Err(error) if error.to_string().contains("surrogate") || error.to_string().contains("hex escape") => {}
            _ => prop_assert_eq!(ours(&damaged).ok(), oracle(&damaged), "{}", damaged),
        }
    }
}
