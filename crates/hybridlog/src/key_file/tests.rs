//! Key files: what is written is read, and what is said of damaged ones.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64;

use super::*;
use crate::address::SlotKind;
use crate::block::BLOCK_BYTES;
use crate::memory_disk::MemoryDisk;
use crate::random::Random;
use crate::{Damage, Meta, Namespace};

const FILE_ID: u64 = 0xabc;

/// A segment's records by offset.
#[derive(Default)]
struct Records {
    records: BTreeMap<u32, Owned>,
}

#[derive(Clone)]
struct Owned {
    hash: u64,
    kind: SlotKind,
    size_class: u8,
    namespace: Namespace,
    meta: Meta,
    large: bool,
    key: Vec<u8>,
}

/// A [`KeyEntry`] of its own.
#[derive(Debug, PartialEq, Eq)]
struct Key {
    offset: u32,
    namespace: Namespace,
    meta: Meta,
    large: bool,
    key: Vec<u8>,
}

impl SegmentRecords for Records {
    fn for_each(&self, each: &mut dyn FnMut(Listed<'_>)) {
        self.records
            .keys()
            .for_each(|&offset| each(self.at(offset)));
    }

    fn at(&self, offset: u32) -> Listed<'_> {
        let record = &self.records[&offset];
        Listed {
            offset,
            size_class: record.size_class,
            kind: record.kind,
            namespace: record.namespace,
            meta: record.meta,
            large: record.large,
            look_at_ms: record.meta.expires_at_ms,
            key: &record.key,
        }
    }

    fn prefetch(&self, _offset: u32) {}

    fn hash(&self, record: &Listed<'_>) -> u64 {
        self.records[&record.offset].hash
    }
}

impl Records {
    /// Random records, of which a few have long keys.
    fn random(random: &mut Random, count: u64) -> Records {
        let mut offset = 64;
        let mut records = BTreeMap::new();
        for _ in 0..count {
            let key_len = match random.below(100) {
                0 => random.below(20_000),
                1 => 4060 + random.below(40),
                _ => random.below(40),
            };
            let key: Vec<u8> = (0..key_len).map(|_| random.next() as u8).collect();
            let expires = random.below(4) == 0;
            let record = Owned {
                // Some hashes are equal.
                hash: match random.below(20) {
                    0 => random.below(3).reverse_bits(),
                    _ => xxh3_64(&key),
                },
                kind: if random.below(10) == 0 {
                    SlotKind::Page
                } else {
                    SlotKind::Root
                },
                size_class: random.below(8) as u8,
                namespace: Namespace(random.below(3) as u16),
                meta: Meta {
                    kind: random.below(3) as u8,
                    expires_at_ms: expires.then(|| random.next() >> random.below(60)),
                },
                large: random.below(5) == 0,
                key,
            };
            records.insert(offset, record);
            offset += 16 + random.below(4) as u32 * 8;
        }
        Records { records }
    }

    fn recovery(&self) -> Vec<RecoveryRecord> {
        let listed = self.records.iter().map(|(&offset, record)| RecoveryRecord {
            hash: record.hash,
            offset,
            size_class: record.size_class,
            kind: record.kind,
        });
        listed.collect()
    }

    fn roots(&self) -> impl Iterator<Item = Listed<'_>> {
        let listed = self.records.keys().map(|&offset| self.at(offset));
        listed.filter(|record| record.kind == SlotKind::Root)
    }

    /// The keys in the order of the key blocks, from a reversed hash on.
    fn keys_from(&self, reversed_hash: u64) -> Vec<Key> {
        let mut keys: Vec<_> = self.roots().collect();
        keys.retain(|record| self.hash(record).reverse_bits() >= reversed_hash);
        keys.sort_by_key(|record| (self.hash(record).reverse_bits(), record.offset));
        let key = |record: &Listed<'_>| Key {
            offset: record.offset,
            namespace: record.namespace,
            meta: record.meta,
            large: record.large,
            key: record.key.to_vec(),
        };
        keys.iter().map(key).collect()
    }

    fn expiring(&self) -> Vec<Expiring> {
        let mut expiring: Vec<_> = self
            .roots()
            .filter_map(|record| {
                Some(Expiring {
                    expires_at_ms: record.meta.expires_at_ms?,
                    hash: self.hash(&record),
                    offset: record.offset,
                    namespace: record.namespace,
                    large: record.large,
                })
            })
            .collect();
        expiring.sort_by_key(|expiring| (expiring.expires_at_ms, expiring.offset));
        expiring
    }
}

fn written(records: &Records) -> MemoryDisk {
    let disk = MemoryDisk::default();
    // In the place of what an earlier try has left.
    disk.put(&file_name(FILE_ID), &[7; 10_000]);
    write(&disk, FILE_ID, records).unwrap();
    disk
}

fn read_recovery(file: &KeyFile) -> io::Result<Vec<RecoveryRecord>> {
    let (mut all, mut some) = (Vec::new(), Vec::new());
    let mut column = file.recovery();
    loop {
        column.read(&mut some)?;
        if some.is_empty() {
            return Ok(all);
        }
        all.append(&mut some);
    }
}

fn read_keys(file: &KeyFile, reversed_hash: u64) -> io::Result<Vec<Key>> {
    let mut keys = Vec::new();
    let mut blocks = file.keys_from(reversed_hash);
    while blocks.read(|entry| {
        keys.push(Key {
            offset: entry.offset,
            namespace: entry.namespace,
            meta: entry.meta,
            large: entry.large,
            key: entry.key.to_vec(),
        });
    })? {}
    Ok(keys)
}

fn read_expiring(file: &KeyFile) -> io::Result<Vec<Expiring>> {
    let mut expiring = Vec::new();
    file.expiries(ExpiryPosition::default(), u64::MAX, usize::MAX, |entry| {
        expiring.push(entry);
    })?;
    Ok(expiring)
}

/// Reads all there is.
fn read_all(disk: &MemoryDisk) -> io::Result<()> {
    let file = KeyFile::open(disk, FILE_ID)?;
    read_recovery(&file)?;
    read_keys(&file, 0)?;
    read_expiring(&file)?;
    Ok(())
}

#[test]
fn all_three_lists_are_read_as_they_were_written() {
    let mut random = Random::new();
    for round in 0..30 {
        let count = random.below(if round < 20 { 300 } else { 3000 });
        let records = Records::random(&mut random, count);
        let disk = written(&records);
        let file = KeyFile::open(&disk, FILE_ID).unwrap();

        let expected = records.recovery();
        assert_eq!(read_recovery(&file).unwrap(), expected, "{random}");
        assert_eq!(file.records() as usize, expected.len());

        let expected = records.keys_from(0);
        assert!(read_keys(&file, 0).unwrap() == expected, "{random}: keys");
        assert_eq!(file.keys() as usize, expected.len());

        let expected = records.expiring();
        assert_eq!(read_expiring(&file).unwrap(), expected, "{random}");
        let next = expected.first().map(|first| first.expires_at_ms);
        assert_eq!(file.next_expiry_ms(), next, "{random}");
    }
}

#[test]
fn keys_are_found_from_any_hash_on_without_reading_many_before_it() {
    let mut random = Random::new();
    let records = Records::random(&mut random, 3000);
    let disk = written(&records);
    let file = KeyFile::open(&disk, FILE_ID).unwrap();
    let some_hash = |random: &mut Random| match random.below(3) {
        0 => random.next(),
        1 => random.below(3),
        _ => {
            let at = random.below(records.records.len() as u64) as usize;
            let record = records.records.values().nth(at).unwrap();
            record
                .hash
                .reverse_bits()
                .wrapping_add(random.below(3))
                .wrapping_sub(1)
        }
    };
    for _ in 0..200 {
        let from = some_hash(&mut random);
        let expected = records.keys_from(from);
        let found = read_keys(&file, from).unwrap();
        assert!(found.ends_with(&expected), "{random}: keys from {from:x}");
        // Entries of a block take 8 bytes and more.
        let before = found.len() - expected.len();
        assert!(
            before <= 2 * BLOCK_BYTES / 8,
            "{random}: {before} before {from:x}"
        );
    }
}

/// The directory and the groups of the key file, as they are read by other means.
fn groups_of(disk: &MemoryDisk) -> (KeyDirectory, Vec<KeyGroup>) {
    let bytes = disk.content(&file_name(FILE_ID));
    let part = |place: Range<u64>| &bytes[place.start as usize..place.end as usize];
    let directory = KeyDirectory::decode(FILE_ID, part(DIRECTORY)).ok().unwrap();
    let groups = directory.groups(&(0..=u64::MAX)).map(|group| {
        let bytes = part(directory.place(&(group..group + 1)));
        directory.decode_group(group, bytes).ok().unwrap()
    });
    let groups = groups.collect();
    (directory, groups)
}

#[test]
fn a_key_is_found_by_its_offset_in_the_groups_of_its_hash() {
    let mut random = Random::new();
    let records = Records::random(&mut random, 3000);
    let disk = written(&records);
    let (directory, groups) = groups_of(&disk);
    assert!(groups.len() > 10, "{random}");
    let keys = records.keys_from(0);
    for round in 0..6000 {
        // In order, then anywhere.
        let key = match keys.get(round) {
            Some(key) => key,
            None => &keys[random.below(keys.len() as u64) as usize],
        };
        let hash = records.hash(&records.at(key.offset)).reverse_bits();
        let range =
            hash.saturating_sub(random.next() >> 20)..=hash.saturating_add(random.next() >> 20);
        let numbers = directory.groups(&range);
        let found = numbers
            .clone()
            .filter_map(|group| groups[group as usize].find(key.offset));
        let found: Vec<_> = found.collect();
        if found.is_empty() {
            let len = key.key.len();
            assert!(
                len > BLOCK_BYTES - 40,
                "{random}: {len} bytes and in no block"
            );
            continue;
        }
        let [entry] = found[..] else {
            panic!("{random}: {} in groups {numbers:?}", found.len())
        };
        let expected = (key.namespace, key.meta, key.large, &key.key[..]);
        assert_eq!(
            (entry.namespace, entry.meta, entry.large, entry.key),
            expected,
            "{random}"
        );
    }
    let mut offsets = 0;
    for group in &groups {
        group.for_each_offset(|_| offsets += 1);
    }
    let short = keys.iter().filter(|key| key.key.len() < 4000).count();
    assert!(
        (short..=keys.len()).contains(&offsets),
        "{random}: {offsets} of {short}"
    );
}

#[test]
fn expiries_are_read_up_to_a_time_and_on_from_there() {
    let mut random = Random::new();
    let records = Records::random(&mut random, 3000);
    let disk = written(&records);
    let file = KeyFile::open(&disk, FILE_ID).unwrap();
    let all = records.expiring();
    let mut position = ExpiryPosition::default();
    let mut found = Vec::new();
    let mut next = file.next_expiry_ms();
    while let Some(next_ms) = next {
        let behind = all.iter().map(|expiring| expiring.expires_at_ms);
        let behind: Vec<_> = behind.filter(|&at| at >= next_ms).collect();
        let until_ms = behind[random.below(behind.len().min(400) as u64) as usize];
        let most = random.below(300) as usize;
        let due = all.partition_point(|expiring| expiring.expires_at_ms <= until_ms);
        let expected = due.min(found.len() + most);
        (position, next) = file
            .expiries(position, until_ms, most, |expiring| found.push(expiring))
            .unwrap();
        assert_eq!(found, all[..expected], "{random}: up to {until_ms}");
        let after = all.get(expected).map(|expiring| expiring.expires_at_ms);
        assert_eq!(next, after, "{random}: after {until_ms}");
    }
    assert_eq!(found.len(), all.len());
}

#[test]
fn every_changed_byte_and_every_truncation_is_noticed() {
    let mut random = Random::new();
    let disk = written(&Records::random(&mut random, 120));
    let bytes = disk.content(&file_name(FILE_ID));
    let notices = |bytes: &[u8]| {
        disk.put(&file_name(FILE_ID), bytes);
        read_all(&disk).is_err_and(|error| Damage::of(&error).is_some())
    };
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << random.below(8);
        assert!(notices(&damaged), "{random}, byte {at}");
    }
    for len in (0..bytes.len()).rev().step_by(97) {
        assert!(notices(&bytes[..len]), "{random}, {len} bytes");
    }
}

#[test]
fn errors_name_the_file_the_offset_and_what_is_wrong() {
    let mut random = Random::new();
    let disk = written(&Records::random(&mut random, 120));
    let name = file_name(FILE_ID);
    let bytes = disk.content(&name);
    let told = |at: usize| {
        let mut damaged = bytes.clone();
        damaged[at] = 99;
        disk.put(&name, &damaged);
        read_all(&disk).unwrap_err().to_string()
    };
    assert_eq!(
        told(8),
        "/memory/0000000000000abc.keys at offset 8: has format version 99: this program reads version 1"
    );
    assert_eq!(
        told(24),
        "/memory/0000000000000abc.keys at offset 0: block CRC mismatch"
    );
    assert_eq!(
        told(9000),
        "/memory/0000000000000abc.keys at offset 8192: block CRC mismatch"
    );
    // Another segment's key file under this name.
    disk.put(&file_name(1), &bytes);
    let error = KeyFile::open(&disk, 1).err().unwrap();
    assert_eq!(
        error.to_string(),
        "/memory/0000000000000001.keys at offset 16: is number 0000000000000abc"
    );
}

/// It was written by the first version; later ones must read it.
#[test]
fn the_key_file_of_format_version_1_is_read() {
    let fixture = include_bytes!("../../tests/fixtures/0000000000000abc.keys");
    let records = Records::random(&mut Random::from_seed(1), 40);
    let disk = written(&records);
    assert!(
        disk.content(&file_name(FILE_ID)) == fixture,
        "the format has changed"
    );
    disk.put(&file_name(FILE_ID), fixture);
    let file = KeyFile::open(&disk, FILE_ID).unwrap();
    assert_eq!(read_recovery(&file).unwrap(), records.recovery());
    assert!(read_keys(&file, 0).unwrap() == records.keys_from(0));
    assert_eq!(read_expiring(&file).unwrap(), records.expiring());
}
