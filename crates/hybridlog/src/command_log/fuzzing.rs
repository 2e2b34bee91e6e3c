//! What fuzzing does with logs and effects; built for that only.

use super::format::{
    BLOCK_HEADER_BYTES, BLOCK_MAGIC, BlockHeader, BlockKind, FILE_HEADER_BYTES, FileHeader,
    log_name,
};
use super::{BlobId, Blobs, Effect, Effects, Logs, replay};
use crate::damage::Damage;
use crate::disk::Disk;
use crate::memory_disk::MemoryDisk;

const LOG_ID: u64 = 0x1122_3344_5566_7788;

/// Blobs that a mended log may have.
const BLOBS: u64 = 4;

/// Decodes `bytes` as the effects of a frame, and what comes of them again after encoding it.
///
/// # Panics
///
/// If the second time gives something else, or an error is followed by anything.
pub fn check_effects(bytes: &[u8]) {
    let mut frame = Vec::new();
    let mut decoded = Vec::new();
    let mut effects = Effects::new(bytes);
    while let Some(Ok(effect)) = effects.next() {
        effect.encode(&mut frame);
        decoded.push(effect);
    }
    assert!(effects.next().is_none());
    assert!(frame.len() <= bytes.len());
    let again: Result<Vec<_>, _> = Effects::new(&frame).collect();
    assert_eq!(again, Ok(decoded));
}

/// Replays `bytes` as a log, then what they are behind a sound header and with headers and CRCs that fit, then that with one
/// byte changed.
///
/// # Panics
///
/// If the replay panics, finds more than there is, or does not say where the damage is.
pub fn check_log(bytes: &[u8]) {
    replay_log(bytes);
    let mut log = mended(bytes);
    replay_log(&log);
    if let [low, high, ..] = *bytes {
        let at = usize::from(u16::from_le_bytes([low, high])) % log.len();
        log[at] ^= 0x10;
        replay_log(&log);
    }
}

/// A log of generation 1 whose blocks are sound, as far as `bytes` go.
fn mended(bytes: &[u8]) -> Vec<u8> {
    let header = FileHeader {
        generation: 1,
        log_id: LOG_ID,
        previous_end: None,
    };
    let mut log = [&header.encode()[..], bytes].concat();
    let mut at = FILE_HEADER_BYTES;
    while log.len() - at >= BLOCK_HEADER_BYTES {
        let (head, rest) = log[at..].split_at_mut(BLOCK_HEADER_BYTES);
        let payload_bytes = usize::from(u16::from_le_bytes([head[0], head[1]])) % (rest.len() + 1);
        let kind = if head[2] & 1 == 0 {
            BlockKind::Frames
        } else {
            BlockKind::Piece
        };
        let payload = &mut rest[..payload_bytes];
        if let (BlockKind::Piece, Some(blob)) = (kind, payload.first_chunk_mut::<8>()) {
            *blob = (u64::from_le_bytes(*blob) % BLOBS).to_le_bytes();
        }
        let header = BlockHeader {
            kind,
            log_id: LOG_ID,
            offset: at as u64,
            payload_bytes: payload_bytes as u64,
            durable: u64::from(head[3]) % (at as u64 + 1),
            payload_crc: crc32c::crc32c(payload),
        };
        head.copy_from_slice(&header.encode());
        assert_eq!(head[..4], BLOCK_MAGIC);
        at += BLOCK_HEADER_BYTES + payload_bytes;
    }
    log
}

fn replay_log(log: &[u8]) {
    let disk = MemoryDisk::default();
    disk.put(&log_name(1), log);
    let mut frames = 0;
    let mut each = |generation: u64, effects: &[u8], blobs: &mut Blobs<'_>| {
        assert_eq!(generation, 1);
        frames += 1;
        for effect in Effects::new(effects) {
            if let Some(blob) = effect?.blob() {
                let bytes = blobs.read(BlobId(blob.0 % BLOBS))?;
                assert!(bytes.len() < log.len());
            }
        }
        Ok(())
    };
    match replay(&disk, Logs::default(), &mut each) {
        Ok(replayed) => {
            assert_eq!(replayed.frames, frames);
            assert_eq!(replayed.bytes + replayed.cut_bytes, log.len() as u64);
            assert!(
                replayed
                    .last
                    .is_some_and(|last| last.bytes == replayed.bytes)
            );
        }
        Err(error) => {
            let damage = Damage::of(&error).expect("no other error");
            assert_eq!(damage.file, disk.path(&log_name(1)));
            assert!(damage.offset <= log.len() as u64 && !damage.what.is_empty());
        }
    }
}
