//! Random texts and the ways in which they travel: encodings, line ends, members and frames, Parquet.

use std::io::Write;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use parquet::basic::{BrotliLevel, Compression as Codec, GzipLevel, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, Int32Type};
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

use crate::fuzzing::Random;

const PARTS: [&str; 30] = [
    "\"",
    "\\",
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\n",
    "\r",
    "\0",
    "\\u",
    "\\ud83d",
    "\\ude00",
    "text",
    "\"text\": ",
    "null",
    "1e999",
    "\u{feff}",
    "ü",
    "Straße",
    "中文",
    "😀",
    " ",
    "\t",
    "\u{85}",
    "\u{2028}",
    "\u{1c}",
    "\u{a0}",
    "NaN",
];

pub fn text(random: &mut Random) -> String {
    let parts = random.below(12);
    (0..parts).map(|_| random.pick(&PARTS)).collect()
}

/// `one`, or any of the three where it is empty.
pub fn line_end(random: &mut Random, one: &'static str) -> &'static str {
    if one.is_empty() { random.pick(&["\n", "\r\n", "\r"]) } else { one }
}

/// UTF-8 with or without a mark, or UTF-16 with one.
pub fn encoded(random: &mut Random, lines: &str) -> Vec<u8> {
    let wide = |mark: [u8; 2], bytes: fn(u16) -> [u8; 2]| {
        mark.into_iter().chain(lines.encode_utf16().flat_map(bytes)).collect()
    };
    match random.below(5) {
        0 => [b"\xef\xbb\xbf", lines.as_bytes()].concat(),
        1 => wide([0xff, 0xfe], u16::to_le_bytes),
        2 => wide([0xfe, 0xff], u16::to_be_bytes),
        _ => lines.as_bytes().to_vec(),
    }
}

fn gzip(random: &mut Random, bytes: &[u8]) -> Vec<u8> {
    let header = match random.below(3) {
        0 => flate2::GzBuilder::new().filename("a name").comment("with a comment").extra([7; 20]),
        _ => flate2::GzBuilder::new(),
    };
    let mut encoder: GzEncoder<Vec<u8>> = header.write(Vec::new(), Compression::new(random.below(7) as u32));
    for part in bytes.chunks(1 + random.below(300)) {
        encoder.write_all(part).unwrap();
        if random.below(4) == 0 {
            encoder.flush().unwrap();
        }
    }
    encoder.finish().unwrap()
}

fn zst(random: &mut Random, bytes: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), random.below(6) as i32 - 1).unwrap();
    encoder.include_checksum(random.below(2) == 0).unwrap();
    encoder.include_contentsize(random.below(2) == 0).unwrap();
    if random.below(4) == 0 {
        encoder.window_log(10 + random.below(14) as u32).unwrap();
        encoder.long_distance_matching(true).unwrap();
    }
    for part in bytes.chunks(1 + random.below(300)) {
        encoder.write_all(part).unwrap();
        if random.below(4) == 0 {
            encoder.flush().unwrap();
        }
    }
    encoder.finish().unwrap()
}

/// A frame that readers skip.
fn skippable(random: &mut Random) -> Vec<u8> {
    let size = random.below(20);
    let magic = 0x184D_2A50 + random.below(16) as u32;
    [&magic.to_le_bytes()[..], &(size as u32).to_le_bytes(), &vec![0x28; size]].concat()
}

/// The ending of the name, and the bytes: as they are, or in members and frames with what may lie between them.
pub fn packed(random: &mut Random, bytes: Vec<u8>) -> (&'static str, Vec<u8>) {
    let ending = random.pick(&["", ".gz", ".zst"]);
    if ending.is_empty() {
        return (ending, bytes);
    }
    let size = (bytes.len() / (1 + random.below(3)) + random.below(2)).max(1);
    let mut out = Vec::new();
    let parts = bytes.chunks(size).chain(bytes.is_empty().then_some(&[][..]));
    for part in parts {
        if ending == ".zst" && random.below(3) == 0 {
            out.extend(skippable(random));
        }
        out.extend(if ending == ".gz" { gzip(random, part) } else { zst(random, part) });
        if ending == ".gz" && random.below(3) == 0 {
            out.extend(vec![0; random.below(2000)]);
        }
    }
    if ending == ".zst" && random.below(4) == 0 {
        out.extend(skippable(random));
    }
    (ending, out)
}

pub fn damage(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(5) {
            _ if bytes.is_empty() => {}
            0 => bytes[at] = random.next() as u8,
            1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..bytes.len().min(at + 1 + random.below(20)))),
            _ => drop(bytes.splice(at..at, random.pick(&PARTS).bytes())),
        }
    }
}

fn properties(random: &mut Random) -> WriterProperties {
    let codec = match random.below(7) {
        0 => Codec::SNAPPY,
        1 => Codec::GZIP(GzipLevel::default()),
        2 => Codec::BROTLI(BrotliLevel::try_new(1).unwrap()),
        3 => Codec::LZ4,
        4 => Codec::LZ4_RAW,
        5 => Codec::ZSTD(ZstdLevel::default()),
        _ => Codec::UNCOMPRESSED,
    };
    let version = if random.below(2) == 0 { WriterVersion::PARQUET_1_0 } else { WriterVersion::PARQUET_2_0 };
    WriterProperties::builder()
        .set_compression(codec)
        .set_writer_version(version)
        .set_dictionary_enabled(random.below(2) == 0)
        .set_data_page_row_count_limit(1 + random.below(20))
        .set_write_batch_size(1 + random.below(8))
        .build()
}

/// A file of some row groups; nulls are no documents.
pub fn parquet(random: &mut Random) -> (Vec<u8>, Vec<String>) {
    let schema = "message rows { required int32 id; optional binary text (UTF8); }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let (mut out, mut documents) = (Vec::new(), Vec::new());
    let mut writer = SerializedFileWriter::new(&mut out, schema, Arc::new(properties(random))).unwrap();
    for _ in 0..random.below(3) {
        let rows: Vec<Option<String>> =
            (0..random.below(70)).map(|_| (random.below(8) > 0).then(|| text(random))).collect();
        let mut group = writer.next_row_group().unwrap();
        write_rows(&mut group, &rows);
        group.close().unwrap();
        documents.extend(rows.into_iter().flatten());
    }
    writer.close().unwrap();
    (out, documents)
}

fn write_rows(group: &mut SerializedRowGroupWriter<'_, &mut Vec<u8>>, rows: &[Option<String>]) {
    let mut column = group.next_column().unwrap().unwrap();
    let ids: Vec<i32> = (0..rows.len() as i32).collect();
    column.typed::<Int32Type>().write_batch(&ids, None, None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let levels: Vec<i16> = rows.iter().map(|row| i16::from(row.is_some())).collect();
    let values: Vec<ByteArray> = rows.iter().flatten().map(|row| row.as_str().into()).collect();
    column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).unwrap();
    column.close().unwrap();
}
