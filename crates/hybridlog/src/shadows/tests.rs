use super::*;
use crate::index::sealed::Slots;
use crate::manifest;
use crate::operation::{KeyRef, Meta};
use crate::tiering::SecondChance;
use crate::{BucketIndex, Options, Store};

const PLAIN: Namespace = Namespace(0);
const KEYS: u64 = 10_000;

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "not so for 30 s: {what}"
        );
        std::thread::yield_now();
    }
}

/// A key whose record is cold, and one that is not there whose tag its slot has.
fn colliding(store: &Store<BucketIndex>) -> ([u8; 8], [u8; 8]) {
    let slots = |key: u64| {
        let hash = store.shared.hash(PLAIN, &key.to_le_bytes());
        store.shared.index.candidates(hash, SlotKind::Root)
    };
    let pair = (KEYS..KEYS + 10_000_000).find_map(|stranger| {
        let slots_there = slots(stranger);
        let is_same = |key: &u64| slots_there.len() == 1 && slots(*key) == slots_there;
        let key = (!slots_there.is_empty()).then(|| (0..KEYS).find(is_same));
        Some((key??.to_le_bytes(), stranger.to_le_bytes()))
    });
    pair.expect("some tag is the same")
}

/// What happens after writes have not been noted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    Nothing,
    Restart,
    /// A restart of a directory that an older version has left.
    Upgrade,
}

/// As if there had been no room for what is noted. The tiering lock is held.
fn forget_notes(store: &Store<BucketIndex>) {
    let forgotten = store.shared.shadows.forget(|_| true);
    forgotten
        .iter()
        .for_each(|_| store.shared.shadows.one_is_unnoted());
}

/// The bucket index keeps tags, the other one whole hashes. A key that was written blindly over a stranger, then over itself,
/// and then removed, has been counted nowhere: what is noted about its first write must survive what is found out about its
/// second.
fn a_stranger_is_counted_once(removed: bool) {
    let directory = tempfile::tempdir().expect("a directory");
    let options = Options::new(directory.path()).memory_bytes(64 << 20);
    let store = Store::<BucketIndex>::open(options).expect("the directory opens");
    for n in 0..KEYS {
        store.set(&n.to_le_bytes(), b"some").expect("it is set");
    }
    store.force_cold().expect("it goes cold");
    let (_, stranger) = colliding(&store);
    for _ in 0..2 {
        store.set(&stranger, b"new").expect("it is set");
        store.force_cold().expect("it goes cold");
    }
    assert!(store.stats().shadows > 0, "a write was blind");
    if removed {
        assert!(store.delete(&stranger).expect("it can be read"));
    }
    let keys = KEYS + u64::from(!removed);
    eventually("the count is right", || store.len(PLAIN) == keys);
    eventually("nothing is noted", || store.shared.shadows.bytes() == 0);
    assert_eq!(store.len(PLAIN), keys);
}

/// What lies behind a blind write is marked, and a restart puts it last: a live record and its own shadow must not both be.
#[test]
fn a_restart_tells_a_live_record_from_its_shadow() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = || Options::new(directory.path()).memory_bytes(64 << 20);
    let store = Store::<BucketIndex>::open(options()).expect("the directory opens");
    for n in 0..KEYS {
        store.set(&n.to_le_bytes(), b"some").expect("it is set");
    }
    store.force_cold().expect("it goes cold");
    let (key, stranger) = colliding(&store);
    store.set(&key, b"newer").expect("it is set");
    store.force_cold().expect("it goes cold");
    store.set(&stranger, b"other").expect("it is set");
    store.force_cold().expect("it goes cold");
    eventually("the count is right", || store.len(PLAIN) == KEYS + 1);
    store.checkpoint().expect("a checkpoint");
    drop(store);
    let store = Store::<BucketIndex>::open(options()).expect("the directory opens");
    for when in ["after the restart", "after compaction"] {
        let found = |key| store.get(key).expect("it can be read");
        assert_eq!(found(&key).as_deref(), Some(&b"newer"[..]), "{when}");
        assert_eq!(found(&stranger).as_deref(), Some(&b"other"[..]), "{when}");
        assert!(store.compact(Duration::from_secs(60)));
    }
    assert_eq!(store.len(PLAIN), KEYS + 1);
}

#[test]
fn a_key_over_a_strangers_tag_is_counted_once() {
    for removed in [false, true] {
        a_stranger_is_counted_once(removed);
    }
}

/// A write over several slots with the tag, of a key and its shadow among them, must not leave both marked: the shadow may lie
/// in a later file, since compaction has moved it there.
#[test]
fn a_restart_takes_no_shadow_for_its_live_record() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = || Options::new(directory.path()).memory_bytes(64 << 20);
    let store = Store::<BucketIndex>::open(options()).expect("the directory opens");
    for n in 0..KEYS {
        store.set(&n.to_le_bytes(), b"oldest").expect("it is set");
    }
    store.force_cold().expect("it goes cold");
    let (key, stranger) = colliding(&store);
    // This opens the segment that the key's live record will be in.
    store.set(b"other", b"some").expect("it is set");
    assert!(store.compact(Duration::from_secs(60)));
    let of_key = |store: &Store<BucketIndex>| {
        let hash = store.shared.hash(PLAIN, &key);
        store.shared.index.candidates(hash, SlotKind::Root)
    };
    let file_id = |slot: Slot| store.shared.log.table.file_id(slot.address());
    let (live, shadow) = {
        // Nobody looks into it, as if more had been noted than there is room for.
        let _paused = store.shared.compaction.pause();
        let _alone = store.shared.tiering.lock();
        store.set(&key, b"newer").expect("it is set");
        forget_notes(&store);
        match of_key(&store)[..] {
            [live, shadow] => (file_id(live), file_id(shadow)),
            ref other => panic!("{other:?}"),
        }
    };
    assert!(
        live < shadow,
        "the live record is in file {live}, its shadow in {shadow}"
    );
    store.force_cold().expect("it goes cold");
    store.set(b"from", b"moved").expect("it is set");
    let latched = [&b"from"[..], &stranger].map(|key| KeyRef {
        namespace: PLAIN,
        key,
        mode: LatchMode::Exclusive,
    });
    let renamed = store.blocking(&latched, 0, |op| {
        op.rename((PLAIN, b"from"), (PLAIN, &stranger))
    });
    assert!(renamed.expect("nothing fails"));
    store.checkpoint().expect("a checkpoint");
    drop(store);
    let store = Store::<BucketIndex>::open(options()).expect("the directory opens");
    let found = |key: &[u8]| store.get(key).expect("it can be read");
    assert_eq!(found(&key).as_deref(), Some(&b"newer"[..]));
    assert_eq!(found(&stranger).as_deref(), Some(&b"moved"[..]));
}

/// A second chance is given to what has been read while it was its key's newest record, and is a shadow now.
#[test]
fn a_restart_takes_no_second_chance_of_a_shadow_for_its_live_record() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = || Options::new(directory.path()).memory_bytes(64 << 20);
    let store = Store::<BucketIndex>::open(options()).expect("the directory opens");
    for n in 0..KEYS {
        store.set(&n.to_le_bytes(), b"some").expect("it is set");
    }
    store.force_cold().expect("it goes cold");
    let (key, stranger) = colliding(&store);
    // Not blindly, so that nobody has to find out about it.
    let stored = store.update(&stranger, |_| Some(b"other".to_vec()));
    assert!(stored.expect("nothing fails"));
    store.force_cold().expect("it goes cold");
    let is_promoted = || {
        let _ = store.get(&key).expect("it can be read");
        store.stats().promotions > 0
    };
    eventually("what is read again comes back to memory", is_promoted);
    // Marked as read.
    let _ = store.get(&key).expect("it can be read");
    store.shared.seal_all().expect("it is written");
    let latched = [&b"first"[..], &key].map(|key| KeyRef {
        namespace: PLAIN,
        key,
        mode: LatchMode::Exclusive,
    });
    // What an operation writes after its first change it writes blindly, over the stranger's record.
    let written = store.blocking(&latched, 0, |op| {
        op.set(PLAIN, b"first", b"changes", Meta::default())?;
        op.set(PLAIN, &key, b"newer", Meta::default())
    });
    written.expect("nothing fails");
    {
        let _alone = store.shared.tiering.lock();
        while store.shared.cool_oldest(SecondChance::Give) {}
    }
    store.checkpoint().expect("a checkpoint");
    drop(store);
    let store = Store::<BucketIndex>::open(options()).expect("the directory opens");
    let found = |key: &[u8]| store.get(key).expect("it can be read");
    assert_eq!(found(&key).as_deref(), Some(&b"newer"[..]));
    assert_eq!(found(&stranger).as_deref(), Some(&b"other"[..]));
}

/// What is noted is lost in a restart, and where there is no room for it. What is unresolved is not.
fn a_write_that_is_not_noted_is_resolved_all_the_same(after: After) {
    let directory = tempfile::tempdir().expect("a directory");
    let options = || Options {
        command_log: false,
        ..Options::new(directory.path()).memory_bytes(64 << 20)
    };
    let mut store = Store::<BucketIndex>::open(options()).expect("the directory opens");
    for n in 0..KEYS {
        store.set(&n.to_le_bytes(), b"some").expect("it is set");
    }
    store.force_cold().expect("it goes cold");
    let (key, stranger) = colliding(&store);
    {
        let _calm = store.shared.tiering.lock();
        store.set(&stranger, b"new").expect("it is set");
        let of_shadow = |n: &u64| n.is_multiple_of(3) && n.to_le_bytes() != key;
        for n in (0..KEYS).filter(of_shadow) {
            store.set(&n.to_le_bytes(), b"newer").expect("it is set");
        }
        forget_notes(&store);
    }
    assert!(store.stats().index_slots > KEYS + KEYS / 4);
    store.checkpoint().expect("a checkpoint");
    if after != After::Nothing {
        let unresolved = store.shared.checkpoints.manifest.lock().unresolved.clone();
        drop(store);
        if after == After::Upgrade {
            let path = directory.path().join(manifest::NAME);
            let manifest = std::fs::read(&path).expect("a manifest");
            let unresolved = unresolved.expect("it tells");
            let manifest = manifest::in_format_version_1(&manifest, &unresolved);
            std::fs::write(&path, manifest).expect("it is written");
        }
        store = Store::open(options()).expect("the directory opens");
    }
    eventually("the count is right", || {
        // What is marked after the last checkpoint is known to the next.
        store.checkpoint().expect("a checkpoint");
        store.len(PLAIN) == KEYS + 1
    });
    eventually("no shadow is left", || {
        store.stats().index_slots == KEYS + 1
    });
    eventually("nothing is unresolved", || {
        store.shared.key_counts.unresolved().is_empty()
    });
    for n in 0..KEYS {
        assert!(store.delete(&n.to_le_bytes()).expect("it can be removed"));
    }
    assert_eq!(store.len(PLAIN), 1);
}

#[test]
fn writes_that_were_not_noted_are_resolved() {
    a_write_that_is_not_noted_is_resolved_all_the_same(After::Nothing);
}

#[test]
fn writes_that_a_restart_has_forgotten_are_resolved() {
    a_write_that_is_not_noted_is_resolved_all_the_same(After::Restart);
}

#[test]
fn writes_that_a_directory_of_format_version_1_does_not_tell_of_are_resolved() {
    a_write_that_is_not_noted_is_resolved_all_the_same(After::Upgrade);
}

/// What was remembered may lead to another record by now, or between two.
#[test]
fn a_slot_that_the_index_does_not_hold_is_not_followed() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = Options::new(directory.path()).memory_bytes(64 << 20);
    let store = Store::<BucketIndex>::open(options).expect("the directory opens");
    store.set(b"key", &[0xff; 1000]).expect("it is set");
    let shared = &store.shared;
    let hash = shared.hash(PLAIN, b"key");
    let slot = shared
        .index
        .newest(hash, SlotKind::Root)
        .expect("it is there");
    let (segment, offset) = {
        let geometry = shared.log.geometry;
        (
            geometry.segment(slot.address()),
            geometry.offset(slot.address()),
        )
    };
    let within = shared.log.geometry.address(segment, offset + 64);
    let reads = ColdReads::default();
    let looked = shared.drop_shadow(hash, Slot::new(within, 0, 64), &reads);
    assert!(looked == Looked::Gone);
}

/// Nobody knows what is a shadow while what is in front of it cannot be read.
#[test]
fn behind_what_cannot_be_read_nothing_is_resolved() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = Options::new(directory.path()).memory_bytes(64 << 20);
    let store = Store::<BucketIndex>::open(options).expect("the directory opens");
    for n in 0..KEYS {
        store.set(&n.to_le_bytes(), b"some").expect("it is set");
    }
    store.force_cold().expect("it goes cold");
    let key = 1u64.to_le_bytes();
    let shared = &store.shared;
    let hash = shared.hash(PLAIN, &key);
    let shadow = {
        let _calm = shared.tiering.lock();
        store.set(&key, b"newer").expect("it is set");
        forget_notes(&store);
        shared.index.candidates(hash, SlotKind::Root)[1]
    };
    store.force_cold().expect("it goes cold");
    let newest = shared
        .index
        .newest(hash, SlotKind::Root)
        .expect("it is there");
    let file_id = shared.log.table.file_id(newest.address());
    let path = shared
        .disk
        .path(&crate::tiering::segment_file_name(file_id));
    let bytes = std::fs::metadata(&path).expect("a segment").len();
    std::fs::write(&path, vec![0xaa; bytes as usize]).expect("it is overwritten");
    let mut last = Looked::Later;
    let left = shared.look_into(vec![shadow], |&slot, reads| {
        last = shared.drop_shadow(hash, slot, reads);
        last
    });
    assert!(left.is_empty() && last == Looked::Unreadable);
    assert!(
        shared
            .index
            .candidates(hash, SlotKind::Root)
            .contains(&shadow)
    );
}

/// A key that nobody has counted, and that is removed, makes the count negative until it has been found out.
#[test]
fn a_removed_stranger_is_not_counted_after_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = || Options {
        command_log: false,
        ..Options::new(directory.path()).memory_bytes(64 << 20)
    };
    let store = Store::<BucketIndex>::open(options()).expect("the directory opens");
    for n in 0..KEYS {
        store.set(&n.to_le_bytes(), b"some").expect("it is set");
    }
    store.force_cold().expect("it goes cold");
    let (_, stranger) = colliding(&store);
    {
        let _calm = store.shared.tiering.lock();
        store.set(&stranger, b"new").expect("it is set");
        forget_notes(&store);
    }
    for n in 0..KEYS {
        assert!(store.delete(&n.to_le_bytes()).expect("it can be removed"));
    }
    assert!(store.delete(&stranger).expect("it can be removed"));
    store.checkpoint().expect("a checkpoint");
    drop(store);
    let store = Store::<BucketIndex>::open(options()).expect("the directory opens");
    eventually("nothing is unresolved", || {
        store.shared.key_counts.unresolved().is_empty()
    });
    assert_eq!(store.len(PLAIN), 0);
}

#[test]
fn notes_take_no_more_than_their_share_of_the_memory() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = Options::new(directory.path()).memory_bytes(64 << 20);
    let store = Store::<BucketIndex>::open(options).expect("the directory opens");
    let (shared, share) = (&store.shared, (64 << 20) / NOTES_SHARE);
    let _calm = shared.tiering.lock();
    let unread = Slot::new(shared.log.geometry.address(0, 64), 0, 64);
    let writes = share / size_of::<Noted>() as u64;
    for hash in 0..writes {
        shared.note_shadow(1, (PLAIN, hash), unread, true);
    }
    let bytes = shared.shadows.bytes();
    assert!(
        bytes <= share + 2 * size_of::<Noted>() as u64,
        "{bytes} bytes"
    );
    assert!(shared.shadows.unnoted() > 0);
    assert_eq!(shared.key_counts.unresolved(), [(PLAIN, writes as i64)]);
    drop(shared.shadows.forget(|_| true));
}

/// A note whose slot is gone may have been of a shadow that is elsewhere by now.
#[test]
fn a_note_that_comes_to_nothing_is_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = Options::new(directory.path()).memory_bytes(64 << 20);
    let store = Store::<BucketIndex>::open(options).expect("the directory opens");
    store.set(b"key", b"old").expect("it is set");
    store.force_cold().expect("it goes cold");
    let shared = &store.shared;
    let hash = shared.hash(PLAIN, b"key");
    let unread = shared
        .index
        .newest(hash, SlotKind::Root)
        .expect("it is there");
    let note = || Noted {
        namespace: PLAIN,
        hash,
        unread,
    };
    let _calm = shared.tiering.lock();
    assert!(shared.resolve_all(vec![note()]));
    assert_eq!(shared.shadows.unnoted(), 0, "it is there, and no shadow");
    assert!(shared.index.remove(hash, unread));
    assert!(shared.resolve_all(vec![note()]));
    assert_eq!(shared.shadows.unnoted(), 1);
}
