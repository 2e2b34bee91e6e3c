//! Data directories that somebody has made to do harm: every checksum is right, and fields say what they should not. Checking
//! one and repairing it ends with what was found or with an error, never with a panic.

use std::path::Path;

use super::Repair;
use crate::block::{self, BLOCK_BYTES};
use crate::check::{Report, check_unlocked};
use crate::command_log::log_name;
use crate::deaths::{self, DeathEntry, DeathsWriter, Mark};
use crate::disk::Disk;
use crate::key_file;
use crate::large::{PAGE_BYTES, page_key};
use crate::manifest::{self, Manifest};
use crate::memory_disk::MemoryDisk;
use crate::record::{self, HEADER_BYTES, flag};
use crate::segment;
use crate::survey::{Expected, survey};
use crate::tiering::segment_file_name;

const SEGMENT_BYTES: usize = 1 << 20;
/// Of the segment that is there at first. The repair that completes the directory writes it anew, with the next number.
const FIRST_ID: u64 = 1;
const FILE_ID: u64 = 2;
const DEATHS: u64 = 1;
const LARGE: u64 = 7;

/// So many bytes describe a change of a field.
const CHANGE_BYTES: usize = 8;

/// Makes a sound directory, changes fields of it as `bytes` say, and checks and repairs it.
///
/// # Panics
///
/// If that panics, or what has been repaired is damaged.
pub(crate) fn check_hostile_directory(bytes: &[u8]) {
    let disk = sound_directory();
    let Some((&which, changes)) = bytes.split_first() else {
        return;
    };
    for change in changes.chunks_exact(CHANGE_BYTES) {
        apply(&disk, change);
    }
    for (at, name) in [manifest::NAME, &key_file::file_name(FILE_ID)]
        .into_iter()
        .enumerate()
    {
        if which >> at & 1 == 1 {
            disk.remove(name).expect("it is there");
        }
    }
    if which & 4 == 4 {
        // Numbers behind which there is no other.
        disk.put(&segment_file_name(u64::MAX), &[]);
        disk.put(&segment_file_name(u64::MAX - 1), &[]);
        disk.put(&log_name(u64::MAX), &[]);
    }
    let directory = Path::new("/memory");
    let check = || {
        let mut damages = Vec::new();
        let checked = check_unlocked(&disk, directory, &mut |report| {
            if let Report::Damage(damage) = report {
                damages.push(damage.to_string());
            }
        });
        checked.expect("names are read");
        damages
    };
    check();
    if Repair::begin(&disk, &mut |_| {})
        .and_then(Repair::run)
        .is_ok()
    {
        assert_eq!(check(), Vec::<String>::new());
    }
}

/// A segment, its key file, a deaths file and the manifest.
fn sound_directory() -> MemoryDisk {
    let disk = MemoryDisk::default();
    disk.put(&segment_file_name(FIRST_ID), &segment_of_records());
    let completed = Repair::begin(&disk, &mut |_| {}).and_then(Repair::run);
    completed.expect("the records are sound");
    let mut deaths = [DeathEntry {
        file_id: FILE_ID,
        offset: places(&disk)[0] as u32,
        mark: Mark::Dead,
    }];
    let mut writer = DeathsWriter::create(&disk, DEATHS).expect("a disk in memory has room");
    let written = writer.write_run(&mut deaths).and_then(|()| writer.finish());
    written.expect("a disk in memory has room");
    let mut manifest = Manifest::load(&disk)
        .expect("it is sound")
        .expect("there is one");
    manifest.deaths.push(DEATHS);
    manifest.store(&disk).expect("a disk in memory has room");
    disk
}

fn segment_of_records() -> Vec<u8> {
    let mut bytes = segment::header(SEGMENT_BYTES, FIRST_ID).to_vec();
    for n in 0..20u8 {
        let expires_at_ms = (n % 3 == 0).then_some(u64::from(n) << 32);
        put_record(
            &mut bytes,
            0,
            expires_at_ms,
            &[b'k', n],
            &[n; 100][..usize::from(n)],
        );
    }
    let page_bytes = PAGE_BYTES as usize;
    for page in 0..2 {
        put_record(
            &mut bytes,
            flag::PAGE,
            None,
            &page_key(LARGE, page),
            &vec![1; page_bytes],
        );
    }
    let root = [2 * PAGE_BYTES, LARGE, PAGE_BYTES].map(u64::to_le_bytes);
    put_record(&mut bytes, flag::CHUNKED, None, b"large", &root.concat());
    bytes.resize(SEGMENT_BYTES, 0);
    bytes
}

fn put_record(
    segment: &mut Vec<u8>,
    flags: u8,
    expires_at_ms: Option<u64>,
    key: &[u8],
    value: &[u8],
) {
    let start = segment.len();
    let expiry = if expires_at_ms.is_some() {
        flag::EXPIRY
    } else {
        0
    };
    segment.extend((value.len() as u32).to_le_bytes());
    segment.extend([0, 0, flags | expiry, 0, 0, 0, 0, 0]);
    segment.extend((key.len() as u16).to_le_bytes());
    segment.extend([0, 0]);
    segment.extend(expires_at_ms.into_iter().flat_map(u64::to_le_bytes));
    segment.extend(key);
    segment.extend(value);
    segment.resize(segment.len().next_multiple_of(8), 0);
    record::reseal(&mut segment[start..]);
}

/// Where records begin in the segment.
fn places(disk: &MemoryDisk) -> Vec<usize> {
    let expected = Expected {
        file_id: FILE_ID,
        segment_bytes: None,
        seed: None,
        records: None,
    };
    let sound = survey(disk, expected).sound;
    sound.iter().map(|listed| listed.offset as usize).collect()
}

/// Changes one field of one file, and the checksum over it.
fn apply(disk: &MemoryDisk, change: &[u8]) {
    let &[file, low, high, at, width, choice, value, _] = change else {
        return;
    };
    let (which, at) = (
        usize::from(u16::from_le_bytes([low, high])),
        usize::from(at),
    );
    let set = |bytes: &mut [u8], at: usize| {
        let value = [
            0,
            1,
            u64::MAX,
            u64::MAX - 1,
            u64::MAX >> 1,
            SEGMENT_BYTES as u64,
            u64::from(value),
            u64::from(value) << 16,
        ][usize::from(choice) % 8];
        let width = 1 << (width % 4);
        if let Some(field) = bytes.get_mut(at..at + width) {
            field.copy_from_slice(&value.to_le_bytes()[..width]);
        }
    };
    match file % 4 {
        0 => {
            let name = segment_file_name(FILE_ID);
            let places = places(disk);
            let Some(&place) = places.get(which % places.len().max(1)) else {
                return;
            };
            let mut bytes = disk.content(&name);
            set(&mut bytes[place..], at % (HEADER_BYTES + 8));
            record::reseal(&mut bytes[place..]);
            disk.put(&name, &bytes);
        }
        file @ (1 | 2) => {
            let (name, number) = match file {
                1 => (key_file::file_name(FILE_ID), FILE_ID),
                _ => (deaths::FORMAT.file_name(DEATHS), DEATHS),
            };
            let mut bytes = disk.content(&name);
            let block = which % (bytes.len() / BLOCK_BYTES);
            set(&mut bytes[block * BLOCK_BYTES..], at);
            block::reseal(&mut bytes, number);
            disk.put(&name, &bytes);
        }
        _ => {
            let mut content = manifest::content_of(&disk.content(manifest::NAME));
            let at = (which % 8 * 256 + at) % content.len();
            set(&mut content, at);
            disk.put(manifest::NAME, &manifest::with_sound_head(&content));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    const ROUNDS: usize = 300;

    /// Four thousand million pages, looked for one by one, would take minutes.
    #[test]
    fn a_root_that_claims_more_pages_than_there_can_be_is_not_believed() {
        let disk = sound_directory();
        let name = segment_file_name(FILE_ID);
        let mut bytes = disk.content(&name);
        let find = |bytes: &[u8], what: &[u8]| {
            let found = bytes.windows(what.len()).position(|at| at == what);
            found.expect("it is in the segment")
        };
        let key = find(&bytes, b"large");
        let pages = u64::from(u32::MAX) * PAGE_BYTES;
        bytes[key + 5..key + 13].copy_from_slice(&pages.to_le_bytes());
        record::reseal(&mut bytes[key - HEADER_BYTES..]);
        // A lost page makes it look for the values that it belongs to.
        let page = find(&bytes, &page_key(LARGE, 1));
        bytes[page + 100] ^= 1;
        disk.put(&name, &bytes);
        let repaired = Repair::begin(&disk, &mut |_| {}).and_then(Repair::run);
        let repaired = repaired.expect("it can be repaired");
        assert!(repaired.was_damaged && repaired.records > 0, "{repaired}");
    }

    #[test]
    fn whatever_fields_say_a_check_and_a_repair_end() {
        let mut random = Random::new();
        println!("{random}");
        for _ in 0..ROUNDS {
            let mut bytes = vec![[0, 0, 0, 1, 2, 3, 4, 7][random.below(8) as usize]];
            for _ in 0..=random.below(4) {
                bytes.extend(random.next().to_le_bytes());
            }
            check_hostile_directory(&bytes);
        }
    }
}
