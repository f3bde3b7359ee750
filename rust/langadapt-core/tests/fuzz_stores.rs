//! Token stores: what was written is read; what was damaged afterwards is refused, or read within its bounds.

mod fuzzing;

use std::path::Path;

use fuzzing::{Random, a_second, for_long};
use langadapt_core::store::{OFFSETS, Packed, StoreReader, StoreWriter, TOKENS};

/// Documents of random lengths, some of them empty, as the store is to give them back.
fn write(folder: &Path, random: &mut Random) -> (Vec<Vec<u32>>, bool) {
    let limit = if random.below(2) == 0 { 1 << 16 } else { 1 << 18 };
    let vocabulary = 1 + random.below(limit);
    let mut writer = StoreWriter::create(folder, vocabulary).unwrap();
    let mut all = Vec::new();
    for _ in 0..random.below(4) {
        let lengths: Vec<u64> = (0..random.below(6)).map(|_| random.below(9) as u64).collect();
        let ids: Vec<u32> = (0..lengths.iter().sum()).map(|_| random.below(vocabulary) as u32).collect();
        let mut rest = ids.as_slice();
        for &length in &lengths {
            let (document, others) = rest.split_at(length as usize);
            all.push(document.to_vec());
            rest = others;
        }
        writer.append(&Packed::new(&ids, lengths.clone(), vocabulary).unwrap()).unwrap();
        let beyond = vocabulary as u32 + random.below(9) as u32;
        assert!(Packed::new(&[beyond], vec![1], vocabulary).is_err());
        assert!(Packed::new(&ids, lengths.into_iter().chain([1]).collect(), vocabulary).is_err());
    }
    let narrow = writer.is_narrow();
    let tokens = all.iter().map(Vec::len).sum::<usize>();
    assert_eq!(writer.finish().unwrap(), (all.len() as u64, tokens as u64));
    (all, narrow)
}

/// All documents, by every way to them.
fn read(folder: &Path) -> langadapt_core::Result<Vec<Vec<u32>>> {
    let store = StoreReader::open(folder)?;
    let all: Vec<Vec<u32>> = (0..store.documents()).map(|at| store.document(at).iter().collect()).collect();
    let flat: Vec<u32> = store.tokens().iter().collect();
    assert_eq!(all.concat(), flat);
    assert!(flat.iter().enumerate().all(|(at, id)| store.tokens().get(at) == *id));
    Ok(all)
}

fn damage(random: &mut Random, folder: &Path) {
    let path = folder.join(random.pick(&[TOKENS, OFFSETS]));
    let mut bytes = std::fs::read(&path).unwrap();
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len());
        match random.below(6) {
            0 if !bytes.is_empty() => bytes[at] = random.next() as u8,
            1 => bytes.truncate(at),
            2 => bytes.extend_from_slice(&random.next().to_le_bytes()[..random.below(9)]),
            3 => bytes.drain(at..bytes.len().min(at + 8)).for_each(drop),
            // A whole offset of any size.
            4 if bytes.len() >= 8 => {
                let offset = random.next() >> random.below(64);
                let at = at.min(bytes.len() - 8) / 8 * 8;
                bytes[at..at + 8].copy_from_slice(&offset.to_le_bytes());
            }
            _ => bytes.splice(at..at, [random.next() as u8; 8]).for_each(drop),
        }
    }
    std::fs::write(&path, bytes).unwrap();
}

fn step(folder: &Path, random: &mut Random) -> u64 {
    let (all, _) = write(folder, random);
    match read(folder) {
        Ok(found) => assert_eq!(found, all),
        // Two bytes and four are told apart by the sizes of the files; nothing has both.
        Err(error) => assert!(all.concat().is_empty(), "{error}"),
    }
    damage(random, folder);
    if let Err(error) = read(folder) {
        assert!(!error.to_string().contains('\n'), "{error}");
    }
    2
}

fn with_folder(name: &str, run: impl FnOnce(&Path)) {
    let folder = std::env::temp_dir().join(format!("langadapt-fuzz-stores-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    run(&folder);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_second_of_stores() {
    with_folder("second", |folder| a_second(|random| step(folder, random)));
}

#[test]
#[ignore = "runs for FUZZ_SECONDS, a minute by default"]
fn fuzz_stores() {
    with_folder("long", |folder| for_long(|random| step(folder, random)));
}
