//! Manifest, deaths files and key files of any content.

use std::io;

use crate::Damage;
use crate::block::{BlockWriter, Format, HEADER_ROOM_BYTES, PAYLOAD_BYTES};
use crate::deaths::{self, DeathsReader};
use crate::key_file::{self, ExpiryPosition, KeyFile};
use crate::manifest::{self, Manifest};
use crate::memory_disk::MemoryDisk;

/// The number of the files.
const NUMBER: u64 = 1;
/// A file of more blocks shows nothing new.
const BLOCKS_MAX: usize = 64;

const ROOM: &str = "a disk in memory has room";

/// Reads `bytes` as each of the formats: as they are, and again with all that has to fit them: magic, version, lengths, CRCs.
///
/// # Panics
///
/// If anything else than damage is found.
pub fn check_formats(bytes: &[u8]) {
    let disk = MemoryDisk::default();
    for format in [&deaths::FORMAT, &key_file::FORMAT] {
        disk.put(&format.file_name(NUMBER), bytes);
    }
    disk.put(manifest::NAME, bytes);
    read(&disk);
    write_blocks(&disk, &deaths::FORMAT, bytes, fit_deaths).expect(ROOM);
    write_blocks(&disk, &key_file::FORMAT, bytes, fit_key_file).expect(ROOM);
    disk.put(manifest::NAME, &manifest::with_sound_head(bytes));
    read(&disk);
}

/// Makes a file of sound blocks: the bytes are length and content of the header and of every block, one after the other, and
/// how often the block is there.
fn write_blocks(
    disk: &MemoryDisk,
    format: &'static Format,
    mut bytes: &[u8],
    fit: fn(&mut [u8], u32),
) -> io::Result<()> {
    let mut take_part = |longest: usize| {
        let (&[low, high, times], rest) = bytes.split_first_chunk()?;
        let len = usize::from(u16::from_le_bytes([low, high])) % (longest + 1);
        let (part, rest) = rest.split_at(len.min(rest.len()));
        bytes = rest;
        Some((part, usize::from(times) % 8))
    };
    let header = take_part(HEADER_ROOM_BYTES).map_or(&[][..], |(header, _)| header);
    let mut writer = BlockWriter::create(disk, format, NUMBER)?;
    while let Some((payload, times)) = take_part(PAYLOAD_BYTES) {
        for _ in 0..times.max(1) {
            writer.push(payload)?;
        }
        if writer.next_block() as usize > BLOCKS_MAX {
            break;
        }
    }
    let mut header = header.to_vec();
    if header.len() >= 40 {
        fit(&mut header, writer.next_block() - 1);
    }
    writer.finish(&header)?;
    Ok(())
}

/// Makes a header speak of as many blocks as there are: one of starts, the others of runs.
fn fit_deaths(header: &mut [u8], blocks: u32) {
    let (run_blocks, runs) = (blocks.saturating_sub(1), u32::from(header[0]) + 1);
    header[8..12].copy_from_slice(&run_blocks.to_le_bytes());
    header[12..16].copy_from_slice(&runs.to_le_bytes());
}

/// Makes a header speak of as many blocks as there are, divided among the lists by what it said before, and of a fence each.
fn fit_key_file(header: &mut [u8], blocks: u32) {
    let recovery_blocks = u32::from(header[12]) % (blocks + 1);
    let key_blocks = u32::from(header[16]) % (blocks - recovery_blocks + 1);
    let expiry_blocks = blocks - recovery_blocks - key_blocks;
    let records = (recovery_blocks * 341).saturating_sub(u32::from(header[0]));
    let each = u32::from(key_blocks > 0);
    for (at, field) in [
        (0, records),
        (12, recovery_blocks),
        (16, key_blocks),
        (20, expiry_blocks),
        (32, each),
        (36, key_blocks),
    ] {
        header[at..at + 4].copy_from_slice(&field.to_le_bytes());
    }
}

/// Reads all there is in all three files.
fn read(disk: &MemoryDisk) {
    for result in [
        Manifest::load(disk).map(|_| ()),
        read_deaths(disk),
        read_key_file(disk),
    ] {
        if let Err(error) = result {
            let damage = Damage::of(&error).unwrap_or_else(|| panic!("not a damage: {error}"));
            assert!(!damage.what.is_empty() && !damage.to_string().contains('\n'));
        }
    }
}

fn read_deaths(disk: &MemoryDisk) -> io::Result<()> {
    let mut reader = DeathsReader::open(disk, &[NUMBER])?;
    let mut before = None;
    while let Some(deaths) = reader.next_file()? {
        assert!(before < Some(deaths.file_id));
        assert!(deaths.dead.is_sorted() && deaths.shadowed.is_sorted());
        before = Some(deaths.file_id);
    }
    Ok(())
}

fn read_key_file(disk: &MemoryDisk) -> io::Result<()> {
    let file = KeyFile::open(disk, NUMBER)?;
    // What is damaged in one list does not keep the others from being read.
    let lists = [read_recovery(&file), read_keys(&file), read_expiries(&file)];
    lists.into_iter().collect()
}

fn read_recovery(file: &KeyFile) -> io::Result<()> {
    let (mut column, mut records) = (file.recovery(), Vec::new());
    let mut count = 0;
    loop {
        column.read(&mut records)?;
        if records.is_empty() {
            assert_eq!(count, file.records() as usize);
            return Ok(());
        }
        count += records.len();
    }
}

fn read_keys(file: &KeyFile) -> io::Result<()> {
    for reversed_hash in [0, u64::MAX / 3, u64::MAX] {
        let mut blocks = file.keys_from(reversed_hash);
        while blocks.read(|entry| assert!(entry.offset > 0))? {}
    }
    Ok(())
}

fn read_expiries(file: &KeyFile) -> io::Result<()> {
    let mut position = ExpiryPosition::default();
    for until_ms in [0, u64::MAX / 3, u64::MAX] {
        let next;
        (position, next) = file.expiries(position, until_ms, usize::MAX, |expiring| {
            assert!(expiring.expires_at_ms <= until_ms);
        })?;
        assert!(next.is_none_or(|next| next > until_ms));
    }
    Ok(())
}
