use super::*;
use crate::index::sealed::Slots;
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
        drop(store.shared.shadows.forget(|_| true));
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
