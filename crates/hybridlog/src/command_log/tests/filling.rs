//! Logs that are filled with zeroes ahead of their end.

use super::*;

const FRAMES: u8 = 60;

/// A log that has been filled ahead, and where it ends.
fn filled(disk: &TestDisk) -> (CommandLog, usize) {
    let log = started(disk, SyncPolicy::Always);
    for number in 1..=FRAMES {
        append_block(&log, 1, &[number; 200]);
    }
    let (_, replayed) = replay_frames(disk, 0).unwrap();
    (log, replayed.bytes as usize)
}

#[test]
fn what_a_log_is_filled_with_is_no_part_of_it() {
    let disk = TestDisk::default();
    let (_log, end) = filled(&disk);
    let after = disk.after_power_cut(|| false);
    let mut bytes = after.bytes(&log_name(1));
    assert!(bytes.len() > end && bytes[end..].iter().all(|&byte| byte == 0));
    let (frames, replayed) = replay_frames(&after, 0).unwrap();
    assert_eq!((frames.len(), replayed.cut_bytes), (FRAMES.into(), 0));

    let log = CommandLog::new(Arc::new(after.clone()), SyncPolicy::Always, BUFFER_BYTES);
    log.start(2, true, replayed.last).unwrap();
    assert_eq!(after.bytes(&log_name(1)).len(), end);

    // The beginning of a block that was torn.
    bytes[end + 2] = 1;
    disk.put(&log_name(1), bytes);
    let (frames, replayed) = replay_frames(&disk, 0).unwrap();
    assert_eq!((frames.len(), replayed.cut_bytes), (FRAMES.into(), 3));
}

#[test]
fn what_was_durable_is_missed_where_the_file_is_filled() {
    let disk = TestDisk::default();
    let (_log, end) = filled(&disk);
    let whole = disk.bytes(&log_name(1));
    // The last block knows of all before it.
    for at in [100, end / 2, end - 600] {
        let mut bytes = whole.clone();
        bytes[at..at + 48].fill(0);
        disk.put(&log_name(1), bytes);
        assert!(damage(replay_frames(&disk, 0)).offset <= at as u64, "{at}");
    }
}

#[test]
fn a_log_that_is_complete_is_not_filled() {
    let disk = TestDisk::default();
    let (log, end) = filled(&disk);
    log.begin_generation(2, true);
    log.end_generation().unwrap();
    assert_eq!(disk.bytes(&log_name(1)).len(), end);
    for _ in 0..FRAMES {
        append_block(&log, 2, &[7; 200]);
    }
    log.shutdown().unwrap();
    let (frames, replayed) = replay_frames(&disk, 0).unwrap();
    assert_eq!(
        (frames.len(), replayed.cut_bytes),
        (2 * usize::from(FRAMES), 0)
    );
    let bytes = disk.bytes(&log_name(1)).len() + disk.bytes(&log_name(2)).len();
    assert_eq!(replayed.bytes as usize, bytes);
}

#[test]
fn a_log_without_space_to_fill_goes_on() {
    let disk = TestDisk::default();
    let log = started(&disk, SyncPolicy::Always);
    disk.set_room(Some(16 << 10));
    // Room for these, and not for what would be filled behind them.
    for number in 1..=FRAMES {
        append_block(&log, 1, &[number; 200]);
    }
    assert_eq!(replay_frames(&disk, 0).unwrap().0.len(), FRAMES.into());
}
