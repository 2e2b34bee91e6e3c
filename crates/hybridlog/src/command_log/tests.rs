//! The log through its front door: appended, waited for, cut off or damaged, and replayed.

mod filling;
mod generations;

use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::commit::blobs::PIECE_MAX_BYTES;
use super::format::{BLOCK_HEADER_BYTES, log_name};
use super::test_disk::TestDisk;
use super::*;
use crate::damage::Damage;
use crate::disk::Directory;
use crate::random::Random;
use crate::{Meta, Namespace};

const BUFFER_BYTES: usize = 1 << 20;

/// A log on `disk` that has begun with generation 1.
fn started(disk: &TestDisk, sync: SyncPolicy) -> CommandLog {
    let log = CommandLog::new(Arc::new(disk.clone()), sync, BUFFER_BYTES);
    log.start(1, true, None).unwrap();
    log
}

/// Appends a frame that is a block of its own, and waits until it is durable.
fn append_block(log: &CommandLog, generation: u64, effects: &[u8]) {
    let position = log.append(generation, effects);
    log.wait_durable(position).unwrap();
    assert!(log.durable() >= position);
}

type Frames = Vec<(u64, Vec<u8>)>;

fn replay_frames(disk: &dyn Disk, checkpoint: u64) -> io::Result<(Frames, Replayed)> {
    let mut frames = Vec::new();
    let logs = Logs {
        checkpoint,
        last: 0,
    };
    let replayed = replay(disk, logs, &mut |generation, effects, _| {
        frames.push((generation, effects.to_vec()));
        Ok(())
    })?;
    assert_eq!(replayed.frames, frames.len() as u64);
    Ok((frames, replayed))
}

/// The damage that a replay has met.
fn damage(replayed: io::Result<(Frames, Replayed)>) -> Damage {
    let error = replayed.expect_err("damage is found");
    Damage::of(&error).expect("no other error").clone()
}

/// How long a file is without zeroes at its end, which it may have been filled with ahead.
fn len_without_zeroes(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .rposition(|&byte| byte != 0)
        .map_or(0, |last| last + 1)
}

/// Waits until `condition` holds, which it does soon.
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(20), "waiting: {what}");
        thread::yield_now();
    }
}

#[test]
fn frames_come_back_from_a_real_directory() {
    let directory = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(Directory::new(directory.path().to_owned()));
    let frame = |number: u64| vec![number as u8; number as usize % 300 + 1];
    for sync in [
        SyncPolicy::Always,
        SyncPolicy::EverySecond,
        SyncPolicy::Never,
    ] {
        let log = CommandLog::new(disk.clone(), sync, BUFFER_BYTES);
        log.start(1, true, None).unwrap();
        let positions: Vec<_> = (0..1000).map(|i| log.append(1, &frame(i))).collect();
        assert!(positions.is_sorted());
        log.wait_durable(positions[999]).unwrap();
        drop(log);
        let (frames, replayed) = replay_frames(&*disk, 0).unwrap();
        let expected: Frames = (0..1000).map(|i| (1, frame(i))).collect();
        assert_eq!(frames, expected);
        let file = fs::read(directory.path().join(log_name(1))).unwrap();
        let (_, filling) = file.split_at(replayed.bytes as usize);
        assert!(filling.iter().all(|&byte| byte == 0), "{sync:?}");
        assert!(filling.is_empty() || sync == SyncPolicy::Always);
        let last = Some(LogEnd {
            generation: 1,
            bytes: replayed.bytes,
        });
        assert_eq!((replayed.cut_bytes, replayed.last), (0, last));
    }
}

#[test]
fn long_blocks_end_with_a_page_and_are_cut_and_replayed_like_others() {
    let directory = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(Directory::new(directory.path().to_owned()));
    let log = CommandLog::new(disk.clone(), SyncPolicy::EverySecond, BUFFER_BYTES);
    log.start(1, true, None).unwrap();
    let frames: Vec<_> = [5, 100_000, 7, 200_000, 70_000, 9, 66_000]
        .map(|len| vec![len as u8; len])
        .to_vec();
    let mut ends = Vec::new();
    for frame in &frames {
        append_block(&log, 1, frame);
        let end = log.stats().file_bytes;
        assert_eq!(end.is_multiple_of(4096), frame.len() > 1000, "{end}");
        ends.push(end);
    }
    drop(log);
    let padding = ends[6] - ends[5] - BLOCK_HEADER_BYTES as u64 - 3 - 66_000;
    let expected: Frames = frames.into_iter().map(|frame| (1, frame)).collect();
    let (found, replayed) = replay_frames(&*disk, 0).unwrap();
    assert_eq!(found, expected);
    assert_eq!((replayed.bytes, replayed.cut_bytes), (ends[6], 0));
    // Torn within the padding of the last block.
    let file = disk.open(&log_name(1)).unwrap();
    file.truncate(ends[6] - 1).unwrap();
    let (found, replayed) = replay_frames(&*disk, 0).unwrap();
    assert_eq!(found, expected[..6]);
    assert_eq!(replayed.cut_bytes, ends[6] - padding - ends[5]);
}

#[test]
fn a_torn_tail_is_cut_wherever_it_is_torn() {
    let disk = TestDisk::default();
    let log = started(&disk, SyncPolicy::Always);
    append_block(&log, 1, b"first");
    let sound = log.stats().file_bytes as usize;
    append_block(&log, 1, &[7; 700]);
    drop(log);
    let whole = disk.bytes(&log_name(1));
    for len in 0..whole.len() {
        let (short, mut zeroed) = (whole[..len].to_vec(), whole.clone());
        zeroed[len..].fill(0);
        for torn in [short, zeroed] {
            // Cut within the header: it was never synced, so there is nothing behind it.
            let torn = if len < 64 { torn[..len].to_vec() } else { torn };
            let torn_disk = TestDisk::default();
            torn_disk.put(&log_name(1), torn.clone());
            let (frames, replayed) = replay_frames(&torn_disk, 0).unwrap();
            let left = match len {
                0..64 => 0,
                _ if len < sound => 64,
                _ => sound,
            };
            assert_eq!(frames.len(), usize::from(left == sound), "{len}");
            assert_eq!(replayed.bytes, left as u64, "{len}");
            let cut = match len {
                0..64 => len,
                _ => len_without_zeroes(&torn).saturating_sub(left),
            };
            assert_eq!(replayed.cut_bytes, cut as u64, "{len}");
        }
    }
}

#[test]
fn every_flipped_byte_that_was_durable_is_damage() {
    let disk = TestDisk::default();
    let log = started(&disk, SyncPolicy::Always);
    let mut begins = vec![0];
    for frame in [&b"first"[..], b"\0", &[3; 100], &[4; 50], b"last"] {
        begins.push(log.stats().file_bytes);
        append_block(&log, 1, frame);
    }
    drop(log);
    let whole = disk.bytes(&log_name(1));
    let last = begins[begins.len() - 1];
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x40;
        disk.put(&log_name(1), flipped);
        let replayed = replay_frames(&disk, 0);
        if at < last as usize {
            let damage = damage(replayed);
            let block = begins.iter().rfind(|&&begin| begin <= at as u64).unwrap();
            assert_eq!(damage.offset, *block, "byte {at}: {damage}");
            assert_eq!(damage.file, disk.path(&log_name(1)));
        } else {
            let (frames, replayed) = replayed.unwrap();
            assert_eq!(
                (frames.len(), replayed.cut_bytes),
                (4, whole.len() as u64 - last)
            );
        }
    }
}

#[test]
fn after_a_shutdown_every_flipped_byte_is_damage() {
    let disk = TestDisk::default();
    let log = started(&disk, SyncPolicy::Never);
    log.append(1, b"frame");
    log.shutdown().unwrap();
    assert!(log.wait_durable(log.durable()).is_ok());
    let late = log.append(1, b"late");
    assert!(log.wait_durable(late).is_err() && !log.has_room());
    drop(log);
    let whole = disk.bytes(&log_name(1));
    assert_eq!(replay_frames(&disk, 0).unwrap().0, [(1, b"frame".to_vec())]);
    for at in 0..whole.len() - 48 {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        disk.put(&log_name(1), flipped);
        assert!(replay_frames(&disk, 0).is_err(), "byte {at}");
    }
}

#[test]
fn a_copy_of_a_block_in_a_value_is_no_witness() {
    let disk = TestDisk::default();
    let log = started(&disk, SyncPolicy::Always);
    append_block(&log, 1, b"first");
    append_block(&log, 1, b"second");
    append_block(&log, 1, b"third");
    let copy = disk.bytes(&log_name(1));
    append_block(&log, 1, &copy);
    drop(log);
    let mut bytes = disk.bytes(&log_name(1));
    bytes[copy.len() + 1] ^= 1;
    disk.put(&log_name(1), bytes);
    assert_eq!(replay_frames(&disk, 0).unwrap().0.len(), 3);
}

#[test]
fn a_full_disk_is_survived() {
    let disk = TestDisk::default();
    let log = started(&disk, SyncPolicy::Always);
    append_block(&log, 1, b"before");
    let sound = log.stats().file_bytes;
    disk.set_room(Some(100));
    let mut last = log.append(1, &[1; 1000]);
    until("the write fails", || {
        matches!(log.health(), Health::CannotWrite(_))
    });
    assert!(!log.has_room());
    for number in 2..10 {
        last = log.append(1, &[number; 1000]);
    }
    assert!(log.durable() < last);
    // What was written of the block is given back, so that the space is there for others.
    until("the tail is cut", || {
        disk.bytes(&log_name(1)).len() as u64 == sound
    });
    assert!(log.append_blob(1, &[0; 1000]).is_err());
    disk.set_room(None);
    log.wait_durable(last).unwrap();
    assert_eq!(log.health(), Health::Ok);
    until("there is room", || log.has_room());
    drop(log);
    let (frames, replayed) = replay_frames(&disk, 0).unwrap();
    let expected: Frames = [(1, b"before".to_vec())]
        .into_iter()
        .chain((1..10).map(|number| (1, vec![number; 1000])))
        .collect();
    assert_eq!((frames, replayed.cut_bytes), (expected, 0));
}

#[test]
fn a_blob_that_finds_no_space_stops_writes_until_there_is_some() {
    let disk = TestDisk::default();
    let log = started(&disk, SyncPolicy::Never);
    append_block(&log, 1, b"before");
    let sound = log.stats().file_bytes;
    disk.set_room(Some(40));
    assert!(log.append_blob(1, &[0; 1000]).is_err());
    assert!(!log.has_room() && matches!(log.health(), Health::CannotWrite(_)));
    assert_eq!(disk.bytes(&log_name(1)).len() as u64, sound);
    disk.set_room(Some(4000));
    until("there is room", || log.has_room());
    assert_eq!(log.health(), Health::Ok);
    log.append_blob(1, &[0; 1000]).unwrap();
    append_block(&log, 1, b"after");
    assert_eq!(replay_frames(&disk, 0).unwrap().0.len(), 2);
}

#[test]
fn a_failed_sync_is_for_good() {
    let disk = TestDisk::default();
    let log = started(&disk, SyncPolicy::Always);
    let first = log.append(1, b"first");
    log.wait_durable(first).unwrap();
    disk.fail_syncs();
    let second = log.append(1, b"second");
    let error = log.wait_durable(second).unwrap_err();
    assert!(error.contains("the device has failed"), "{error}");
    assert!(matches!(log.health(), Health::Poisoned(_)));
    assert!(!log.has_room());
    let bytes = disk.bytes(&log_name(1));
    let third = log.append(1, b"third");
    assert!(log.wait_durable(third).is_err());
    assert!(log.append_blob(1, b"blob").is_err());
    log.begin_generation(2, true);
    assert!(log.end_generation().is_err() && log.shutdown().is_err());
    assert_eq!(
        disk.bytes(&log_name(1)),
        bytes,
        "written after a failed sync"
    );
    assert!(log.wait_durable(first).is_ok() && log.durable() < second);
    assert_eq!(log.stats().pending_bytes, 0);
}

#[test]
fn a_failed_sync_ends_every_wait() {
    let disk = TestDisk::default();
    let log = started(&disk, SyncPolicy::Always);
    disk.hold_syncs();
    let position = log.append(1, b"frame");
    disk.wait_for_held_sync();
    log.begin_generation(2, true);
    thread::scope(|scope| {
        let blob = scope.spawn(|| log.append_blob(2, b"for the next generation"));
        let waiter = scope.spawn(|| log.wait_durable(position));
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let task = scope.spawn(|| runtime.unwrap().block_on(log.until_durable(position)));
        disk.fail_syncs();
        disk.release_syncs();
        assert!(blob.join().unwrap().is_err());
        assert!(waiter.join().unwrap().is_err() && task.join().unwrap().is_err());
    });
}

#[test]
fn a_log_of_a_newer_version_is_refused() {
    let disk = TestDisk::default();
    drop(started(&disk, SyncPolicy::Always));
    let mut bytes = disk.bytes(&log_name(1));
    bytes[8] = 2;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..64]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    disk.put(&log_name(1), bytes);
    let damage = damage(replay_frames(&disk, 0));
    assert!(damage.to_string().contains("version 2"), "{damage}");
}

#[test]
fn blobs_go_ahead_of_the_frames_that_name_them() {
    let disk = TestDisk::default();
    let log = started(&disk, SyncPolicy::Always);
    let large: Vec<u8> = (0..PIECE_MAX_BYTES * 5 / 2)
        .map(|i| (i / 7) as u8)
        .collect();
    let values = [&large[..], b"", &large[..PIECE_MAX_BYTES], b"small"];
    let mut positions = Vec::new();
    log.append_blob(1, b"of a command that never came").unwrap();
    thread::scope(|scope| {
        let writers = values.map(|value| {
            let log = &log;
            scope.spawn(move || {
                let blob = log.append_blob(1, value).unwrap();
                let mut frame = Vec::new();
                let (namespace, key) = (Namespace(1), &[value.len() as u8][..]);
                let meta = Meta::default();
                Effect::SetBlob {
                    namespace,
                    key,
                    meta,
                    blob,
                }
                .encode(&mut frame);
                log.append(1, &frame)
            })
        });
        positions.extend(writers.map(|writer| writer.join().unwrap()));
    });
    positions
        .into_iter()
        .for_each(|position| log.wait_durable(position).unwrap());
    drop(log);
    let mut found = Vec::new();
    let mut each = |_: u64, effects: &[u8], blobs: &mut Blobs<'_>| {
        let Some(Ok(Effect::SetBlob { blob, .. })) = Effects::new(effects).next() else {
            return Err("another effect".to_owned());
        };
        found.push(blobs.read(blob)?);
        assert!(blobs.read(blob).is_err(), "named twice");
        Ok(())
    };
    replay(&disk, Logs::default(), &mut each).unwrap();
    found.sort_unstable();
    let mut expected = values.map(<[u8]>::to_vec);
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn each_thread_finds_its_frames_in_its_order() {
    let disk = TestDisk::default();
    let log = started(&disk, SyncPolicy::EverySecond);
    let (threads, frames_each) = (4, 5000_u32);
    thread::scope(|scope| {
        for number in 0..threads {
            let log = &log;
            scope.spawn(move || {
                for i in 0..frames_each {
                    let mut frame = vec![number];
                    frame.extend_from_slice(&i.to_le_bytes());
                    log.append(1, &frame);
                }
            });
        }
    });
    log.shutdown().unwrap();
    let (frames, _) = replay_frames(&disk, 0).unwrap();
    for number in 0..threads {
        let of_thread = frames.iter().filter(|(_, frame)| frame[0] == number);
        let numbers =
            of_thread.map(|(_, frame)| u32::from_le_bytes(frame[1..].try_into().unwrap()));
        assert!(numbers.eq(0..frames_each));
    }
}

#[test]
fn one_sync_serves_all_that_wait() {
    let disk = TestDisk::default();
    let log = started(&disk, SyncPolicy::Always);
    let (threads, rounds) = (16, 5);
    let before = disk.syncs();
    for round in 0..rounds {
        // While the first frame is synced the others are appended.
        disk.hold_syncs();
        let first = log.append(1, b"first");
        disk.wait_for_held_sync();
        thread::scope(|scope| {
            let waiting: Vec<_> = (0..threads)
                .map(|number| {
                    let position = log.append(1, &[round, number]);
                    let log = &log;
                    scope.spawn(move || log.wait_durable(position))
                })
                .collect();
            disk.release_syncs();
            log.wait_durable(first).unwrap();
            for waiter in waiting {
                waiter.join().unwrap().unwrap();
            }
        });
    }
    assert_eq!(disk.syncs() - before, 2 * usize::from(rounds));
}

#[test]
fn every_second_syncs_by_itself() {
    let disk = TestDisk::default();
    let log = started(&disk, SyncPolicy::EverySecond);
    let position = log.append(1, b"frame");
    until("the sync", || log.durable() >= position);
    // A change of policy counts for what has been written before it.
    log.set_sync(SyncPolicy::Never);
    let position = log.append(1, b"frame");
    until("the write", || log.stats().pending_bytes == 0);
    assert!(log.durable() < position);
    log.set_sync(SyncPolicy::Always);
    until("the sync", || log.durable() >= position);
}

#[test]
fn a_log_that_is_left_alone_says_how_far_it_was_synced() {
    let disk = TestDisk::default();
    let log = started(&disk, SyncPolicy::Always);
    append_block(&log, 1, b"frame");
    let end = log.stats().file_bytes as usize;
    let mark_bytes = 48;
    until("the mark", || {
        disk.bytes(&log_name(1)).len() == end + mark_bytes
    });
    let mut whole = disk.bytes(&log_name(1));
    let damaged = TestDisk::default();
    for at in 64..end {
        whole[at] ^= 1;
        damaged.put(&log_name(1), whole.clone());
        assert_eq!(damage(replay_frames(&damaged, 0)).offset, 64, "byte {at}");
        whole[at] ^= 1;
    }
    append_block(&log, 1, b"another");
    log.begin_generation(2, true);
    log.end_generation().unwrap();
    assert_eq!(replay_frames(&disk, 0).unwrap().0.len(), 2);
}

#[test]
fn the_buffer_says_when_it_is_full_and_takes_all_the_same() {
    let disk = TestDisk::default();
    let log = started(&disk, SyncPolicy::Always);
    disk.hold_syncs();
    log.append(1, b"first");
    disk.wait_for_held_sync();
    assert!(log.has_room());
    log.append(1, &vec![1; BUFFER_BYTES]);
    assert!(!log.has_room());
    let last = log.append(1, &vec![2; 3 * BUFFER_BYTES]);
    assert!(log.stats().pending_bytes > 4 * BUFFER_BYTES as u64);
    disk.release_syncs();
    log.wait_durable(last).unwrap();
    assert!(log.has_room());
    assert_eq!(replay_frames(&disk, 0).unwrap().0.len(), 3);
}

#[tokio::test]
async fn tasks_wait_without_a_thread() {
    let disk = TestDisk::default();
    let log = started(&disk, SyncPolicy::EverySecond);
    for number in 0..10 {
        let position = log.append(1, &[number]);
        log.until_durable(position).await.unwrap();
        assert!(log.durable() >= position);
    }
}

#[test]
fn what_was_durable_survives_any_power_cut() {
    let mut random = Random::new();
    for _ in 0..200 {
        let disk = TestDisk::default();
        let policies = [SyncPolicy::EverySecond, SyncPolicy::Always];
        let log = started(&disk, policies[random.below(2) as usize]);
        let (mut generation, mut appended, mut durable) = (1, Vec::new(), 0);
        for _ in 0..random.below(60) {
            match random.below(8) {
                0 => {
                    let Some(&(_, position)) = appended.last() else {
                        continue;
                    };
                    log.wait_durable(position).unwrap();
                    durable = appended.len();
                }
                1 => {
                    generation += 1;
                    log.begin_generation(generation, true);
                    log.end_generation().unwrap();
                    durable = appended.len();
                }
                2 => {
                    log.append_blob(generation, &vec![9; random.below(3000) as usize])
                        .unwrap();
                }
                _ => {
                    let frame = vec![random.below(256) as u8; random.below(900) as usize + 1];
                    let position = log.append(generation, &frame);
                    appended.push(((generation, frame), position));
                }
            }
        }
        if random.below(2) == 0 {
            until("written", || log.stats().pending_bytes == 0);
        }
        let after = disk.after_power_cut(|| random.below(2) == 0);
        let replayed = replay_frames(&after, 0);
        let (frames, _) = replayed.unwrap_or_else(|error| panic!("{random}: {error}"));
        assert!(frames.len() >= durable, "{random}");
        let expected = appended.iter().map(|(frame, _)| frame).take(frames.len());
        assert!(frames.iter().eq(expected), "{random}");
    }
}
