//! Reading: every format gives the same documents, at any number of threads, and damage is never silent.

mod corpora;

use std::io::Write;
use std::sync::Arc;

use corpora::{Folder, gzip, in_parts, json_lines, read, zstd};
use langadapt_core::corpus::{Batch, Inputs, ReadOptions, ReadReport, TextUnit, fold_documents, map_documents};
use langadapt_core::{Error, Monitor, Result};
use parquet::basic::{Compression, GzipLevel};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

/// In any order, through `fold_documents`.
fn fold(names: &[impl AsRef<str>], options: &ReadOptions, threads: usize) -> Result<(Vec<String>, ReadReport)> {
    let (inputs, monitor) = (Inputs::expand(names)?, Monitor::default());
    let (states, report) = fold_documents(&inputs, options, threads, &monitor, Vec::new, |all, batch| {
        all.extend(batch.texts().map(str::to_owned));
        Ok(())
    })?;
    let mut all = states.concat();
    all.sort();
    Ok((all, report))
}

fn small() -> ReadOptions {
    ReadOptions { batch_bytes: 64, ..ReadOptions::default() }
}

fn sample(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("Zeile {n}: „Grüße“\n{}\\ \"quoted\" — {}", "äöü".repeat(n % 17), n * 7919)).collect()
}

#[test]
fn every_format_gives_the_same_documents() {
    let (folder, texts) = (Folder::new(), sample(500));
    let lines = json_lines(&texts);
    let flat: Vec<String> = texts.iter().map(|text| text.replace('\n', " ")).collect();
    let plain = flat.join("\n").into_bytes();
    for (name, bytes, expected) in [
        ("a.jsonl", lines.clone(), &texts),
        ("a.jsonl.gz", gzip(&lines), &texts),
        ("b.jsonl.gz", in_parts(&lines, 7, gzip), &texts),
        ("padded.jsonl.gz", in_parts(&lines, 7, |part| [gzip(part), vec![0; 700]].concat()), &texts),
        ("a.jsonl.zst", zstd(&lines), &texts),
        ("b.ndjson.zst", in_parts(&lines, 7, zstd), &texts),
        ("c.json.gz", gzip(&lines), &texts),
        ("a.txt", plain.clone(), &flat),
        ("a.txt.gz", gzip(&plain), &flat),
        ("a.TXT.ZST", zstd(&plain), &flat),
        ("crlf.txt", flat.join("\r\n").into_bytes(), &flat),
        ("mark.txt", [b"\xEF\xBB\xBF", plain.as_slice()].concat(), &flat),
    ] {
        let path = folder.put(name, &bytes);
        for threads in [1, 2, 5] {
            assert_eq!(&read(&[&path], &small(), threads).unwrap().0, expected, "{name}");
        }
        let mut sorted = expected.clone();
        sorted.sort();
        assert_eq!(fold(&[&path], &small(), 3).unwrap().0, sorted, "{name}");
        assert_eq!(&read(&[&path], &ReadOptions::default(), 2).unwrap().0, expected, "{name}");
    }
    let path = folder.put("file.txt", &plain);
    let whole = ReadOptions { text_unit: TextUnit::File, ..small() };
    assert_eq!(read(&[&path], &whole, 2).unwrap().0, [flat.join("\n")]);
}

#[test]
fn many_files_come_in_order() {
    let folder = Folder::new();
    let mut expected = Vec::new();
    for n in 0..23 {
        // Files of very different lengths, some empty: threads finish them out of order.
        let texts: Vec<String> = sample((n * 37) % 101).iter().map(|text| format!("{n} {text}")).collect();
        folder.put(&format!("part/{n:02}.jsonl"), &json_lines(&texts));
        expected.extend(texts);
    }
    folder.put("part/.hidden.jsonl", b"not read");
    folder.put("part/README.md", b"not read");
    for threads in [1, 2, 3, 8] {
        assert_eq!(read(&[folder.name()], &small(), threads).unwrap().0, expected);
        assert_eq!(read(&[format!("{}/**/*.jsonl", folder.name())], &small(), threads).unwrap().0, expected);
    }
}

#[test]
fn bad_lines_are_counted_and_the_first_ten_named() {
    let folder = Folder::new();
    let mut bytes = Vec::new();
    for n in 0..1000 {
        match n % 100 {
            3 => bytes.extend(b"{\"text\": \"torn\n"),
            4 => bytes.extend(b"{\"text\": null}\n"),
            5 => bytes.extend(b"{\"text\": \"\xff\xfe\"}\n"),
            6 => bytes.extend(b"  \r\n"),
            _ => bytes.extend(json_lines(&[format!("document {n}")])),
        }
    }
    let path = folder.put("a.jsonl", &bytes);
    let mut reports = Vec::new();
    for threads in [1, 4] {
        let (texts, report) = read(&[&path], &small(), threads).unwrap();
        assert_eq!((texts.len(), report.documents), (960, 960));
        let skipped = report.skipped;
        assert_eq!((skipped.malformed_json, skipped.missing_text, skipped.invalid_utf8), (10, 10, 10));
        let lines: Vec<_> = report.first_problems.iter().map(|problem| problem.line.unwrap()).collect();
        assert_eq!(lines, [4, 5, 6, 104, 105, 106, 204, 205, 206, 304]);
        assert_eq!(fold(&[&path], &small(), threads).unwrap().1, report);
        reports.push(report);
    }
    assert_eq!(reports[0], reports[1]);
    let strict = ReadOptions { strict: true, ..small() };
    for threads in [1, 4] {
        let error = read(&[&path], &strict, threads).unwrap_err().to_string();
        assert!(error.contains("a.jsonl:4: malformed JSON"), "{error}");
    }
}

#[test]
fn the_first_failure_in_order_is_reported() {
    let folder = Folder::new();
    for n in 0..8 {
        let mut bytes = json_lines(&sample(50));
        if n >= 2 {
            bytes.extend(b"oops\n");
        }
        folder.put(&format!("{n}.jsonl"), &bytes);
    }
    let strict = ReadOptions { strict: true, ..small() };
    for _ in 0..20 {
        let error = fold(&[folder.name()], &strict, 4).unwrap_err().to_string();
        assert!(error.contains("2.jsonl:51: "), "{error}");
        let error = read(&[folder.name()], &strict, 4).unwrap_err().to_string();
        assert!(error.contains("2.jsonl:51: "), "{error}");
    }
}

#[test]
fn truncated_and_damaged_streams_are_errors() {
    let folder = Folder::new();
    let lines = json_lines(&sample(3000));
    for (ending, whole) in [("gz", gzip(&lines)), ("zst", zstd(&lines)), ("gz", in_parts(&lines, 3, gzip))] {
        for keep in [1, 3, 8, whole.len() / 2, whole.len() - 1] {
            let path = folder.put(&format!("a.jsonl.{ending}"), &whole[..keep]);
            let error = read(&[&path], &small(), 2).unwrap_err();
            assert!(matches!(error, Error::Data { .. }), "{ending} {keep}: {error}");
        }
        let mut damaged = whole.clone();
        let middle = damaged.len() / 2;
        damaged[middle..middle + 40].fill(0x55);
        let path = folder.put(&format!("b.jsonl.{ending}"), &damaged);
        // A damaged stream may by chance still decompress; what comes out is then no JSON.
        assert!(read(&[&path], &ReadOptions { strict: true, ..small() }, 2).is_err(), "{ending}");
    }
    let path = folder.put("cut.jsonl.gz", &gzip(&lines)[..2000]);
    let error = read(&[&path], &small(), 2).unwrap_err().to_string();
    assert!(error.contains("cut.jsonl.gz: truncated gzip stream"), "{error}");
}

/// Of two faults of a file the earlier one is named, however many rows a batch has.
#[test]
fn rows_before_a_damaged_page_are_read() {
    let schema = Arc::new(parse_message_type("message rows { optional binary text (UTF8); }").unwrap());
    let properties = WriterProperties::builder()
        .set_compression(Compression::GZIP(GzipLevel::default()))
        .set_dictionary_enabled(false)
        .set_data_page_row_count_limit(32)
        .set_write_batch_size(32)
        .build();
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let levels: Vec<i16> = (0..128).map(|row| i16::from(row != 8)).collect();
    let values: Vec<ByteArray> = sample(127).iter().map(|text| text.as_str().into()).collect();
    column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).unwrap();
    column.close().unwrap();
    let end = group.close().unwrap().column(0).byte_range();
    writer.close().unwrap();
    // In the last page's checksum.
    bytes[(end.0 + end.1) as usize - 6] ^= 1;
    let folder = Folder::new();
    let path = folder.put("a.parquet", &bytes);
    for batch_bytes in [1, 200, 1 << 20] {
        let options = ReadOptions { batch_bytes, ..ReadOptions::default() };
        let error = read(&[&path], &options, 2).unwrap_err().to_string();
        assert!(error.contains("damaged or truncated"), "{error}");
        let error = read(&[&path], &ReadOptions { strict: true, ..options }, 2).unwrap_err().to_string();
        assert!(error.contains("a.parquet:9: the text is null"), "{batch_bytes}: {error}");
    }
}

#[test]
fn frames_are_read_side_by_side_and_lines_cross_them() {
    let folder = Folder::new();
    let mut lines = json_lines(&sample(40_000));
    for n in 0..12 {
        let at = lines.iter().skip(n * 400_000).position(|&byte| byte == b'\n').unwrap() + n * 400_000 + 1;
        lines.splice(at..at, *b"oops\n");
    }
    let plain = read(&[folder.put("a.jsonl", &lines)], &ReadOptions::default(), 1).unwrap();
    let places = |report: &ReadReport| report.first_problems.iter().map(|problem| problem.line).collect::<Vec<_>>();
    let sized = |part: &[u8]| zstd::bulk::compress(part, 1).unwrap();
    for (name, parts, compress) in [("b", 13, zstd as fn(&[u8]) -> Vec<u8>), ("c", 13, sized), ("d", 300, sized)] {
        let path = folder.put(&format!("{name}.jsonl.zst"), &in_parts(&lines, parts, compress));
        for threads in [1, 2, 5] {
            let (texts, report) = read(&[&path], &ReadOptions::default(), threads).unwrap();
            assert!(texts == plain.0 && places(&report) == places(&plain.1), "{name} {threads}");
            let mut sorted = fold(&[&path], &ReadOptions::default(), threads).unwrap().0;
            sorted.sort_by_key(|text| text[6..].split_once(':').unwrap().0.parse::<u32>().unwrap());
            assert!(sorted == plain.0, "{name} {threads}");
        }
        // One file among others, and many files of many frames.
        let copies: Vec<String> =
            (0..3).map(|n| folder.put(&format!("{name}{n}.jsonl.zst"), &std::fs::read(&path).unwrap())).collect();
        let (texts, report) = read(&copies, &ReadOptions::default(), 4).unwrap();
        assert!(texts == [plain.0.clone(), plain.0.clone(), plain.0.clone()].concat(), "{name}");
        assert_eq!(report.skipped.total(), 36);
        let whole = std::fs::read(&path).unwrap();
        let error = |bytes: &[u8], threads| {
            read(&[folder.put("cut.jsonl.zst", bytes)], &ReadOptions::default(), threads).unwrap_err().to_string()
        };
        for cut in [whole.len() / 2, whole.len() - 1] {
            let said = error(&whole[..cut], 1);
            assert!(said.contains("cut.jsonl.zst: truncated zstd stream"), "{said}");
            assert_eq!(error(&whole[..cut], 4), said);
        }
    }
}

#[test]
fn names_that_cannot_be_read_say_why() {
    let folder = Folder::new();
    let message = |name: &str| Inputs::expand(&[name]).unwrap_err().to_string();
    let missing = folder.0.join("missing.jsonl");
    assert!(matches!(Inputs::expand(&[missing.to_str().unwrap()]), Err(Error::Io { .. })));
    assert!(message(&folder.put("a.docx", b"x")).ends_with("and .parquet"));
    for (name, hint) in [("a.txt.xz", "xzcat FILE |"), ("a.csv", "as Parquet"), ("a.tar.gz", "unpack it")] {
        assert!(message(&folder.put(name, b"x")).contains(hint), "{name}");
    }
    assert!(message(&format!("{}/*.jsonl", folder.name())).contains("no file matches"));
    assert!(message(folder.name()).contains("no file with a known ending"));
    assert!(Inputs::expand(&[] as &[&str]).is_err());

    let error = |name: &str, bytes: &[u8]| read(&[folder.put(name, bytes)], &small(), 2).unwrap_err().to_string();
    assert!(error("empty.jsonl", b"").contains("the input is empty"));
    assert!(error("empty.txt.zst", b"").contains("empty"));
    assert!(error("blank.jsonl", b"\n\n \n").contains("the input is empty"));
    let text = error("content.jsonl", b"{\"content\":\"a\"}\n");
    assert!(text.contains("content.jsonl:1: no field `text` (fields: `content`)"), "{text}");
    assert!(error("plain.jsonl.gz", b"{\"text\":\"a\"}\n").contains("no gzip data"));
    assert!(error("packed.jsonl", &gzip(b"{\"text\":\"a\"}\n")).contains("let the name end in `.gz`"));
    let array = error("array.json", b"[\n{\"text\":\"a\"},\n{\"text\":\"b\"}\n]\n");
    assert!(array.contains("array.json:1: a JSON array") && array.contains("jq"), "{array}");
    assert!(error("old.txt", b"gut\nGr\xfc\xdfe\nsch\xf6n\n").contains("old.txt:2: not UTF-8 at byte 3 (0xfc)"));
    assert!(error("a.parquet", b"PAR1 is not enough").contains("Parquet"));
}

#[test]
fn a_folder_with_a_split_stands_for_its_training_part() {
    let folder = Folder::new();
    folder.put("train.jsonl.zst", &zstd(&json_lines(&["train"])));
    folder.put("validation.jsonl.zst", &zstd(&json_lines(&["validation"])));
    folder.put("manifest.json", b"{}");
    assert_eq!(read(&[folder.name()], &small(), 2).unwrap().0, ["train"]);
}

#[test]
fn windows_beyond_the_default_of_the_library_are_read() {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(28).unwrap();
    encoder.write_all(&json_lines(&["a"])).unwrap();
    let folder = Folder::new();
    let path = folder.put("a.jsonl.zst", &encoder.finish().unwrap());
    assert_eq!(read(&[&path], &small(), 1).map_err(|error| error.to_string()).unwrap().0, ["a"]);
}

#[test]
fn one_huge_line_is_one_document() {
    let folder = Folder::new();
    let huge = "lang ä\n".repeat(7 << 20);
    let path = folder.put("a.jsonl.zst", &zstd(&json_lines(&["before", &huge, "after"])));
    let (texts, _) = read(&[&path], &ReadOptions::default(), 2).unwrap();
    assert_eq!(texts.len(), 3);
    assert!(texts[0] == "before" && texts[1] == huge && texts[2] == "after");
}

#[test]
fn closures_may_fail_and_panic() {
    let folder = Folder::new();
    let path = folder.put("a.jsonl", &json_lines(&sample(500)));
    let inputs = Inputs::expand(&[path]).unwrap();
    let monitor = Monitor::default();
    let stop = |(): &mut (), _: &Batch| Err(Error::argument("enough"));
    assert!(matches!(fold_documents(&inputs, &small(), 3, &monitor, || (), stop), Err(Error::Argument(_))));
    let keep = |(): &mut (), batch: &Batch| Ok(batch.len());
    let result = map_documents(&inputs, &small(), 3, &monitor, || (), keep, |_| Err(Error::argument("disk full")));
    assert!(matches!(result, Err(Error::Argument(_))));
    let panic = std::panic::catch_unwind(|| {
        let _ = map_documents(&inputs, &small(), 3, &Monitor::default(), || (), keep, |_| panic!("fell over"));
    });
    assert!(panic.is_err());
    monitor.stop();
    assert!(matches!(fold_documents(&inputs, &small(), 3, &monitor, || (), |(), _| Ok(())), Err(Error::Interrupted)));
}

#[test]
fn lines_that_are_too_long_are_counted() {
    let folder = Folder::new();
    let (long, fits) = ("x".repeat(200_000), "y".repeat(1989));
    for end in ["\n", "\r\n", "\r"] {
        let lines = ["a", &long, &fits, &long, &long, "b"].join(end);
        let json = ["a", &long, &fits].map(|text| serde_json::json!({ "text": text }).to_string()).join(end);
        let whole = ReadOptions { text_unit: TextUnit::File, ..ReadOptions::default() };
        for batch_bytes in [1, 100, 1990, 2001, 64 << 10, 1 << 20] {
            let options = ReadOptions { batch_bytes, max_line_bytes: 1989, ..ReadOptions::default() };
            // `fits` is as long as a line may be; in JSON, 11 bytes longer.
            for (name, bytes, more, expected, skipped) in [
                ("a.txt", &lines, 0, vec!["a", &fits, "b"], vec![2, 4, 5]),
                ("a.jsonl", &json, 11, vec!["a", &fits], vec![2]),
            ] {
                let options = ReadOptions { max_line_bytes: 1989 + more, ..options.clone() };
                let (texts, report) = read(&[folder.put(name, bytes.as_bytes())], &options, 2).unwrap();
                assert_eq!(texts, expected);
                assert_eq!(report.skipped.too_long, skipped.len() as u64);
                let lines: Vec<_> = report.first_problems.iter().filter_map(|problem| problem.line).collect();
                assert_eq!(lines, skipped, "{name} {end:?} {batch_bytes}");
            }
            let path = folder.put("whole.txt", lines.as_bytes());
            let options = ReadOptions { allow_empty: true, text_unit: TextUnit::File, ..options };
            assert_eq!(read(&[&path], &options, 1).unwrap().1.skipped.too_long, 1);
            assert_eq!(read(&[&path], &whole, 1).unwrap().0, [lines.as_str()]);
        }
    }
}
