//! Changes of generation, and logs that follow upon each other.

use super::*;

#[test]
fn a_generation_changes_with_frames_of_both_in_flight() {
    let disk = TestDisk::default();
    let log = started(&disk, SyncPolicy::Never);
    log.append(1, b"old 1");
    log.begin_generation(2, true);
    let new = log.append(2, b"new 1");
    let old = log.append(1, b"old 2");
    assert!(old < new);
    log.wait_durable(old).unwrap();
    assert!(log.durable() < new);
    // The new generation's log is there only when the old one's is complete.
    assert!(disk.open(&log_name(2)).is_err());
    let last = log.append(1, b"old 3");
    log.append(2, b"new 2");
    log.end_generation().unwrap();
    assert!(last < log.durable() && log.durable() < new);
    assert!(log.durable() >= Position::new(2, 0));
    log.end_generation().unwrap();
    let newest = log.append(2, b"new 3");
    log.wait_durable(newest).unwrap();
    drop(log);
    let texts = |frames: Frames| -> Vec<String> {
        let text = |(generation, bytes): (u64, Vec<u8>)| {
            format!("{generation} {}", String::from_utf8(bytes).unwrap())
        };
        frames.into_iter().map(text).collect()
    };
    let (frames, replayed) = replay_frames(&disk, 0).unwrap();
    let expected = [
        "1 old 1", "1 old 2", "1 old 3", "2 new 1", "2 new 2", "2 new 3",
    ];
    assert_eq!(texts(frames), expected);
    assert_eq!(replayed.last.unwrap().generation, 2);
    assert_eq!(texts(replay_frames(&disk, 1).unwrap().0), expected[3..]);
    assert_eq!(replay_frames(&disk, 2).unwrap().1, Replayed::default());
}

#[test]
fn a_generation_that_cannot_end_is_tried_again() {
    let disk = TestDisk::default();
    let log = started(&disk, SyncPolicy::Never);
    log.begin_generation(2, true);
    log.append(1, b"old");
    let new = log.append(2, b"new");
    // Too little for the block, then for the next file.
    for room in [10, 52, 63] {
        disk.set_room(Some(room));
        assert!(log.end_generation().is_err(), "{room}");
        assert!(!log.has_room() && matches!(log.health(), Health::CannotWrite(_)));
    }
    disk.set_room(None);
    // Whether or not anybody asks for it again.
    until("the generation has ended", || {
        log.durable() >= Position::new(2, 0)
    });
    assert!(log.has_room() && log.health() == Health::Ok);
    log.end_generation().unwrap();
    log.wait_durable(new).unwrap();
    let expected = [(1, b"old".to_vec()), (2, b"new".to_vec())];
    assert_eq!(replay_frames(&disk, 0).unwrap().0, expected);
}

#[test]
fn what_could_not_be_written_is_part_of_the_generation_that_ends() {
    let disk = TestDisk::default();
    let log = started(&disk, SyncPolicy::Always);
    disk.set_room(Some(0));
    log.append(1, b"first");
    until("the write fails", || log.health() != Health::Ok);
    log.append(1, b"second");
    log.begin_generation(2, true);
    disk.set_room(None);
    log.end_generation().unwrap();
    let expected = [(1, b"first".to_vec()), (1, b"second".to_vec())];
    assert_eq!(replay_frames(&disk, 0).unwrap().0, expected);
}

#[test]
fn damage_at_the_end_of_a_log_is_known_by_the_next_one() {
    let disk = TestDisk::default();
    let log = started(&disk, SyncPolicy::Always);
    append_block(&log, 1, b"first");
    let begin = log.stats().file_bytes;
    append_block(&log, 1, b"last");
    log.begin_generation(2, true);
    log.end_generation().unwrap();
    drop(log);
    let whole = disk.bytes(&log_name(1));
    for at in begin as usize..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        for damaged in [flipped, whole[..at].to_vec()] {
            disk.put(&log_name(1), damaged);
            let damage = damage(replay_frames(&disk, 0));
            assert_eq!(damage.offset, begin, "byte {at}: {damage}");
        }
    }
    // Even if that was only being made.
    let header = disk.bytes(&log_name(2));
    disk.put(&log_name(2), vec![0; 10]);
    assert_eq!(damage(replay_frames(&disk, 0)).offset, begin);
    disk.put(&log_name(2), header);
    disk.put(
        &log_name(1),
        [&whole[..], &whole[begin as usize..]].concat(),
    );
    assert!(replay_frames(&disk, 0).is_err(), "longer than it was");
    disk.remove(&log_name(1)).unwrap();
    let damage = damage(replay_frames(&disk, 0));
    assert!(damage.to_string().contains(&log_name(1)), "{damage}");
    // What a checkpoint covers need not be there.
    assert_eq!(replay_frames(&disk, 1).unwrap().0, []);
}

#[test]
fn a_log_goes_on_behind_a_torn_one() {
    let disk = TestDisk::default();
    let log = started(&disk, SyncPolicy::Always);
    append_block(&log, 1, b"first");
    let sound = log.stats().file_bytes;
    append_block(&log, 1, b"torn");
    drop(log);
    let mut torn = disk.bytes(&log_name(1));
    torn.pop();
    disk.put(&log_name(1), torn);
    disk.put(&log_name(7), b"left over".to_vec());

    let mut expected = vec![(1, b"first".to_vec())];
    for generation in 2..5 {
        let (frames, replayed) = replay_frames(&disk, 0).unwrap();
        assert_eq!(frames, expected);
        let log = CommandLog::new(Arc::new(disk.clone()), SyncPolicy::Always, BUFFER_BYTES);
        log.start(generation, true, replayed.last).unwrap();
        append_block(&log, generation, b"next");
        expected.push((generation, b"next".to_vec()));
        assert_eq!(disk.bytes(&log_name(1)).len() as u64, sound);
    }
    assert!(disk.open(&log_name(7)).is_err());
}

#[test]
fn a_log_whose_making_was_cut_off_is_no_damage() {
    for len in 0..=64 {
        let disk = TestDisk::default();
        let log = started(&disk, SyncPolicy::Always);
        append_block(&log, 1, b"first");
        log.begin_generation(2, true);
        log.end_generation().unwrap();
        drop(log);
        let header = disk.bytes(&log_name(2));
        disk.put(&log_name(2), header[..len].to_vec());
        let (_, replayed) = replay_frames(&disk, 0).unwrap();
        assert_eq!(replayed.cut_bytes, if len < 64 { len as u64 } else { 0 });
        let log = CommandLog::new(Arc::new(disk.clone()), SyncPolicy::Always, BUFFER_BYTES);
        log.start(3, true, replayed.last).unwrap();
        append_block(&log, 3, b"third");
        let expected = [(1, b"first".to_vec()), (3, b"third".to_vec())];
        assert_eq!(replay_frames(&disk, 0).unwrap().0, expected, "{len}");
    }
}

#[test]
fn a_generation_without_a_log_stores_nothing() {
    let disk = TestDisk::default();
    let log = CommandLog::new(Arc::new(disk.clone()), SyncPolicy::Always, BUFFER_BYTES);
    log.start(1, false, None).unwrap();
    let position = log.append(1, &vec![0; 2 * BUFFER_BYTES]);
    assert!(log.durable() >= position && log.has_room());
    log.append_blob(1, b"blob").unwrap();
    assert_eq!(disk.names().unwrap(), [""; 0]);

    // Logging begins: its log counts only behind a checkpoint of the generation that was not logged.
    log.begin_generation(2, true);
    let logged = log.append(2, b"logged");
    let syncs = log.stats().syncs;
    log.end_generation().unwrap();
    until("it is synced", || log.stats().syncs > syncs);
    log.checkpointed(0);
    assert!(log.is_held() && log.durable() < logged);
    log.checkpointed(1);
    log.wait_durable(logged).unwrap();
    let durable = log.durable();
    append_block(&log, 2, b"and waited for");
    assert!(!log.is_held() && log.durable() > durable);
    let (frames, replayed) = replay_frames(&disk, 0).unwrap();
    assert_eq!((frames.len(), replayed.unreachable_from), (0, Some(2)));
    assert_eq!(replay_frames(&disk, 1).unwrap().0.len(), 2);

    // And ends: what was logged is durable, nothing more is stored.
    let last = log.append(2, b"last");
    log.begin_generation(3, false);
    log.append(3, b"not logged");
    log.end_generation().unwrap();
    assert!(log.durable() > last);
    assert_eq!(disk.names().unwrap(), [log_name(2)]);
    assert_eq!(replay_frames(&disk, 1).unwrap().0.len(), 3);
    log.shutdown().unwrap();
}

#[test]
fn a_blob_of_the_next_generation_is_refused_until_its_log_begins() {
    let disk = TestDisk::default();
    let log = started(&disk, SyncPolicy::Never);
    log.begin_generation(2, true);
    let early = log.append_blob(2, b"next").unwrap_err();
    assert_eq!(early.kind(), io::ErrorKind::WouldBlock);
    let old = log.append_blob(1, b"old").unwrap();
    log.end_generation().unwrap();
    assert_ne!(log.append_blob(2, b"next").unwrap(), old);
    let late = log.append_blob(1, b"late").unwrap_err();
    assert_eq!(late.kind(), io::ErrorKind::Interrupted);
}
