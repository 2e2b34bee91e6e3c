//! Deaths files: round trips, merging, and what is said of damaged ones.

use std::collections::BTreeMap;

use super::*;
use crate::Damage;
use crate::memory_disk::MemoryDisk;
use crate::random::Random;

/// What is expected of a reader: by file id and offset.
type Model = BTreeMap<u64, BTreeMap<u32, Mark>>;

fn note(model: &mut Model, death: DeathEntry) {
    let marks = model.entry(death.file_id).or_default();
    let mark = marks.entry(death.offset).or_insert(death.mark);
    *mark = death.mark.min(*mark);
}

fn random_death(random: &mut Random, files: u64) -> DeathEntry {
    DeathEntry {
        file_id: random.below(files),
        offset: 64 + random.below(100_000) as u32 * 8,
        mark: if random.below(5) == 0 {
            Mark::Shadowed
        } else {
            Mark::Dead
        },
    }
}

/// Writes a deaths file of `runs` runs and returns what it says.
fn write(disk: &MemoryDisk, generation: u64, random: &mut Random, runs: u64) -> Model {
    let mut model = Model::new();
    let mut writer = DeathsWriter::create(disk, generation).unwrap();
    for _ in 0..runs {
        let (deaths, files) = (random.below(3000), 1 + random.below(200));
        let mut run: Vec<_> = (0..deaths).map(|_| random_death(random, files)).collect();
        run.iter().for_each(|&death| note(&mut model, death));
        writer.write_run(&mut run).unwrap();
    }
    writer.finish().unwrap();
    model
}

fn read(disk: &MemoryDisk, generations: &[u64]) -> io::Result<Model> {
    let mut model = Model::new();
    let mut reader = DeathsReader::open(disk, generations)?;
    while let Some(FileDeaths {
        file_id,
        dead,
        shadowed,
    }) = reader.next_file()?
    {
        assert!(dead.is_sorted() && shadowed.is_sorted());
        let dead = dead.into_iter().map(|offset| (offset, Mark::Dead));
        let shadowed = shadowed.into_iter().map(|offset| (offset, Mark::Shadowed));
        let marks: BTreeMap<_, _> = dead.chain(shadowed).collect();
        assert!(model.insert(file_id, marks).is_none(), "twice: {file_id}");
    }
    Ok(model)
}

#[test]
fn what_several_files_say_is_read_as_one() {
    let mut random = Random::new();
    for _ in 0..10 {
        let disk = MemoryDisk::default();
        let mut expected = Model::new();
        for generation in 1..=random.below(4) {
            let runs = random.below(4);
            for (file_id, marks) in write(&disk, generation, &mut random, runs) {
                for (offset, mark) in marks {
                    note(
                        &mut expected,
                        DeathEntry {
                            file_id,
                            offset,
                            mark,
                        },
                    );
                }
            }
        }
        let generations: Vec<_> = (1..=disk.names().unwrap().len() as u64).collect();
        assert_eq!(read(&disk, &generations).unwrap(), expected, "{random}");
        let is_kept = |file_id: u64| !file_id.is_multiple_of(3);
        let mut writer = DeathsWriter::create(&disk, 9).unwrap();
        writer.merge(&disk, &generations, is_kept).unwrap();
        writer.finish().unwrap();
        expected.retain(|&file_id, _| is_kept(file_id));
        assert_eq!(read(&disk, &[9]).unwrap(), expected, "{random}");
    }
}

#[test]
fn a_file_that_an_earlier_try_left_is_replaced() {
    let mut random = Random::new();
    let disk = MemoryDisk::default();
    disk.put(&FORMAT.file_name(3), &[1; 100_000]);
    let expected = write(&disk, 3, &mut random, 2);
    assert_eq!(read(&disk, &[3]).unwrap(), expected, "{random}");
}

#[test]
fn every_changed_byte_and_every_truncation_is_noticed() {
    let mut random = Random::new();
    let disk = MemoryDisk::default();
    write(&disk, 1, &mut random, 2);
    let bytes = disk.content(&FORMAT.file_name(1));
    let notices = |bytes: &[u8]| {
        disk.put(&FORMAT.file_name(1), bytes);
        read(&disk, &[1]).is_err_and(|error| Damage::of(&error).is_some())
    };
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << random.below(8);
        assert!(notices(&damaged), "{random}, byte {at}");
    }
    for len in (0..bytes.len()).rev().step_by(97) {
        assert!(notices(&bytes[..len]), "{random}, {len} bytes");
    }
    let swapped = [
        &bytes[..4096],
        &bytes[8192..12288],
        &bytes[4096..8192],
        &bytes[12288..],
    ];
    assert!(
        notices(&swapped.concat()),
        "{random}: blocks in the wrong order"
    );
}

#[test]
fn errors_name_the_file_the_offset_and_what_is_wrong() {
    let disk = MemoryDisk::default();
    let told = |death: DeathEntry, change: &dyn Fn(&mut Vec<u8>)| {
        let mut writer = DeathsWriter::create(&disk, 1).unwrap();
        writer.write_run(&mut [death]).unwrap();
        writer.finish().unwrap();
        let mut bytes = disk.content(&FORMAT.file_name(1));
        change(&mut bytes);
        disk.put(&FORMAT.file_name(1), &bytes);
        read(&disk, &[1]).unwrap_err().to_string()
    };
    let death = DeathEntry {
        file_id: 1,
        offset: 64,
        mark: Mark::Dead,
    };
    assert_eq!(
        told(death, &|bytes| bytes[8] = 2),
        "/memory/0000000000000001.deaths at offset 8: has format version 2: this program reads version 1"
    );
    assert_eq!(
        told(death, &|bytes| bytes.truncate(4096)),
        "/memory/0000000000000001.deaths at offset 12: was 12288 bytes long and is 4096"
    );
    assert_eq!(
        told(death, &|bytes| bytes[5000] = 1),
        "/memory/0000000000000001.deaths at offset 4096: block CRC mismatch"
    );
    assert_eq!(
        told(
            DeathEntry {
                offset: 56,
                ..death
            },
            &|_| {}
        ),
        "/memory/0000000000000001.deaths at offset 4096: 14 is not the place of a record"
    );
}

/// It was written by the first version; later ones must read it.
#[test]
fn the_deaths_file_of_format_version_1_is_read() {
    let fixture = include_bytes!("../../tests/fixtures/0000000000000003.deaths");
    let disk = MemoryDisk::default();
    let expected = write(&disk, 3, &mut Random::from_seed(5), 2);
    assert!(
        disk.content(&FORMAT.file_name(3)) == fixture,
        "the format has changed"
    );
    disk.put(&FORMAT.file_name(3), fixture);
    assert_eq!(read(&disk, &[3]).unwrap(), expected);
}
