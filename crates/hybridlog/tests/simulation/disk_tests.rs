//! The real disk does what the traits say, the simulated one does the same, and a crash leaves no more than was promised.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::time::Duration;

use hybridlog::disk::{Directory, Disk};

use crate::disk::{Action, Fault, SimulatedDisk};

/// So many crashes show everything that can happen to a few sectors.
const SEEDS: u64 = 300;

fn on_both(test: impl Fn(&dyn Disk) -> io::Result<()>) -> io::Result<()> {
    let directory = tempfile::tempdir()?;
    test(&Directory::new(directory.path().to_path_buf()))?;
    test(&SimulatedDisk::new(1))
}

fn write(disk: &dyn Disk, name: &str, bytes: &[u8]) -> io::Result<()> {
    disk.create(name)?.write_all_at(bytes, 0)
}

fn read(disk: &dyn Disk, name: &str) -> Option<Vec<u8>> {
    fs::read(disk.path(name)).ok()
}

fn files(disk: &dyn Disk) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let content = |name: String| Ok((name.clone(), fs::read(disk.path(&name))?));
    disk.names()?.into_iter().map(content).collect()
}

/// What `look` finds after each of many crashes of one disk.
fn after_crashes<T: Ord>(
    disk: &SimulatedDisk,
    look: impl Fn(&SimulatedDisk) -> T,
) -> BTreeMap<T, u64> {
    let mut found = BTreeMap::new();
    for seed in 0..SEEDS {
        *found.entry(look(&disk.crash(seed))).or_default() += 1;
    }
    found
}

#[track_caller]
fn assert_kind<T>(result: io::Result<T>, kind: ErrorKind, text: &str) {
    let Err(error) = result else {
        panic!("no error, but {text:?} expected");
    };
    assert!(error.to_string().contains(text), "{error} without {text:?}");
    assert_eq!(error.kind(), kind, "{error}");
}

#[test]
fn files_are_made_written_cut_renamed_and_removed() -> io::Result<()> {
    on_both(|disk| {
        let file = disk.create("a")?;
        assert_eq!(file.len()?, 0);
        file.write_all_at(b"hello", 3)?;
        file.write_all_at(b"Y", 7)?;
        file.write_back()?;
        file.sync()?;
        disk.sync_directory()?;
        file.drop_cached();
        let mut bytes = [1; 8];
        file.read_exact_at(&mut bytes, 0)?;
        assert_eq!(&bytes, b"\0\0\0hellY");
        file.truncate(4)?;
        file.truncate(6)?;
        assert_eq!(read(disk, "a").as_deref(), Some(&b"\0\0\0h\0\0"[..]));

        disk.create("b")?;
        disk.rename("a", "b")?;
        assert_eq!(disk.names()?, ["b"]);
        disk.open("b")?.write_all_at(b"1", 0)?;
        // The open file is the one that has another name now.
        file.read_exact_at(&mut bytes[..1], 0)?;
        assert_eq!(bytes[0], b'1');
        disk.remove("b")?;
        assert_eq!(disk.names()?, [""; 0]);
        file.write_all_at(b"2", 5)?;
        file.read_exact_at(&mut bytes[..6], 0)
    })
}

#[test]
fn errors_name_the_file_and_keep_their_kind() -> io::Result<()> {
    on_both(|disk| {
        let file = disk.create("there")?;
        file.write_all_at(b"1234", 0)?;
        assert_kind(disk.create("there"), ErrorKind::AlreadyExists, "there");
        assert_kind(disk.open("gone"), ErrorKind::NotFound, "gone");
        assert_kind(disk.remove("gone"), ErrorKind::NotFound, "gone");
        assert_kind(disk.rename("gone", "away"), ErrorKind::NotFound, "gone");
        let past_the_end = file.read_exact_at(&mut [0; 3], 2);
        assert_kind(past_the_end, ErrorKind::UnexpectedEof, "there");
        assert_eq!(read(disk, "there").as_deref(), Some(&b"1234"[..]));
        Ok(())
    })
}

#[test]
fn a_directory_that_is_not_there_is_an_error_that_names_it() {
    let disk = Directory::new("/nowhere/at/all".into());
    assert_kind(disk.create("a"), ErrorKind::NotFound, "/nowhere/at/all/a");
    assert_kind(disk.names(), ErrorKind::NotFound, "/nowhere/at/all");
    assert_kind(
        disk.sync_directory(),
        ErrorKind::NotFound,
        "/nowhere/at/all",
    );
}

#[test]
fn what_is_synced_survives_every_crash() -> io::Result<()> {
    let disk = SimulatedDisk::new(1);
    write(&disk, "a", &[1; 3000])?;
    disk.create("b")?;
    disk.rename("a", "c")?;
    disk.remove("b")?;
    let file = disk.open("c")?;
    file.truncate(1000)?;
    file.write_all_at(&[2; 700], 900)?;
    file.sync()?;
    disk.sync_directory()?;
    let expected = [vec![1; 900], vec![2; 700]].concat();
    let found = after_crashes(&disk, |disk| files(disk).expect("files"));
    let only = BTreeMap::from([("c".to_string(), expected)]);
    assert_eq!(found, BTreeMap::from([(only, SEEDS)]));
    Ok(())
}

#[test]
fn unsynced_writes_are_dropped_kept_torn_and_reordered() -> io::Result<()> {
    let disk = SimulatedDisk::new(1);
    write(&disk, "a", &[b'0'; 2048])?;
    let file = disk.open("a")?;
    file.sync()?;
    disk.sync_directory()?;
    // The second write meets the first in the second sector and the third, and begins and ends inside sectors.
    file.write_all_at(&[b'1'; 1536], 0)?;
    file.write_all_at(&[b'2'; 600], 700)?;
    let found = after_crashes(&disk, |disk| {
        let bytes = read(disk, "a").expect("it is durable");
        assert_eq!(bytes.len(), 2048);
        let sectors = bytes.chunks(512).map(|sector| {
            // Each sector is one of its versions as a whole.
            let versions = [
                "0".repeat(512),
                "1".repeat(512),
                "1".repeat(188) + &"2".repeat(324),
                "2".repeat(276) + &"1".repeat(236),
            ];
            let at = versions.iter().position(|v| v.as_bytes() == sector);
            at.unwrap_or_else(|| panic!("not a version of a sector: {sector:?}"))
        });
        sectors.collect::<Vec<_>>()
    });
    let seen: BTreeSet<&[usize]> = found.keys().map(Vec::as_slice).collect();
    let dropped = [0, 0, 0, 0];
    let kept = [1, 2, 3, 0];
    let in_order = [1, 1, 1, 0];
    let torn = [1, 0, 0, 0];
    let reordered = [0, 2, 3, 0];
    let mixed = [1, 2, 1, 0];
    for expected in [dropped, kept, in_order, torn, reordered, mixed] {
        assert!(
            seen.contains(&expected[..]),
            "{expected:?} is not in {seen:?}"
        );
    }
    Ok(())
}

#[test]
fn a_file_that_grew_unsynced_may_be_short_or_hold_zeroes() -> io::Result<()> {
    let disk = SimulatedDisk::new(1);
    write(&disk, "a", b"x")?;
    let file = disk.open("a")?;
    file.sync()?;
    disk.sync_directory()?;
    file.write_all_at(&[b'y'; 1100], 1)?;
    let found = after_crashes(&disk, |disk| read(disk, "a").expect("it is durable"));
    let whole = [vec![b'x'], vec![b'y'; 1100]].concat();
    let mut hole = whole.clone();
    hole[512..1024].fill(0);
    for expected in [&b"x"[..], &whole, &hole] {
        assert!(found.contains_key(expected), "{} bytes", expected.len());
    }
    Ok(())
}

#[test]
fn renames_survive_whole_or_not_at_all_until_the_directory_is_synced() -> io::Result<()> {
    let disk = SimulatedDisk::new(1);
    for (name, bytes) in [("NOW", b"1"), ("gone", b"g"), ("NEXT", b"2")] {
        write(&disk, name, bytes)?;
        disk.open(name)?.sync()?;
        if name != "NEXT" {
            disk.sync_directory()?;
        }
    }
    disk.rename("NEXT", "NOW")?;
    disk.remove("gone")?;
    write(&disk, "unsynced", b"u")?;
    let found = after_crashes(&disk, |disk| {
        let now = read(disk, "NOW").expect("one of them");
        let there = |name| disk.path(name).exists();
        (now, there("NEXT"), there("gone"), read(disk, "unsynced"))
    });
    let found: Vec<_> = found.keys().collect();
    let seen = |now: &[u8], next| found.iter().any(|f| f.0 == now && f.1 == next);
    assert!(seen(b"1", true) && seen(b"1", false) && seen(b"2", false));
    assert!(!seen(b"2", true));
    assert!(found.iter().all(|f| f.0 == b"1" || f.0 == b"2"));
    assert!(found.iter().any(|f| f.2));
    // Removed although the rename before it was lost: the order is not kept either.
    assert!(found.iter().any(|f| f.0 == b"1" && !f.2));
    for content in [None, Some(vec![]), Some(b"u".to_vec())] {
        assert!(found.iter().any(|f| f.3 == content), "{content:?}");
    }
    disk_is_dead(&disk);
    Ok(())
}

fn disk_is_dead(disk: &SimulatedDisk) {
    let power_cut = ErrorKind::ReadOnlyFilesystem;
    assert_kind(disk.create("new"), power_cut, "power");
    assert_kind(disk.open("NOW"), power_cut, "power");
    assert_kind(disk.rename("NOW", "new"), power_cut, "power");
    assert_kind(disk.remove("NOW"), power_cut, "power");
    assert_kind(disk.names(), power_cut, "power");
    assert_kind(disk.sync_directory(), power_cut, "power");
}

#[test]
fn after_a_power_cut_nothing_happens_any_more() -> io::Result<()> {
    let disk = SimulatedDisk::new(1);
    write(&disk, "NOW", &[b'1'; 10])?;
    let file = disk.open("NOW")?;
    file.sync()?;
    disk.sync_directory()?;
    let next = disk.steps().len();
    disk.inject(move |step| (step.number == next + 1).then_some(Fault::PowerCut));
    file.write_all_at(b"2", 3)?;
    assert!(disk.has_power());
    assert_kind(file.sync(), ErrorKind::ReadOnlyFilesystem, "power");
    assert!(!disk.has_power());
    file.write_all_at(b"3", 3)?;
    file.truncate(0)?;
    assert_kind(file.sync(), ErrorKind::ReadOnlyFilesystem, "power");
    disk_is_dead(&disk);
    let found = after_crashes(&disk, |disk| read(disk, "NOW").expect("it is durable")[3]);
    assert_eq!(found.keys().collect::<Vec<_>>(), [&b'1', &b'2']);
    Ok(())
}

#[test]
fn what_a_failed_sync_lost_no_later_sync_saves() -> io::Result<()> {
    let mut lost = 0;
    for seed in 0..SEEDS {
        let disk = SimulatedDisk::new(seed);
        let file = disk.create("a")?;
        disk.sync_directory()?;
        disk.inject(|step| {
            (step.action == Action::Sync && step.name == "a").then_some(Fault::Refused)
        });
        file.write_all_at(&[b'1'; 512], 0)?;
        let kind = io::Error::from_raw_os_error(5).kind();
        assert_kind(file.sync(), kind, "Sync a: Refused");
        disk.inject(|_| None);
        file.write_all_at(&[b'2'; 512], 512)?;
        file.sync()?;
        assert_eq!(read(&disk, "a"), Some([[b'1'; 512], [b'2'; 512]].concat()));
        let after = read(&disk.crash(seed), "a").expect("it is durable");
        assert_eq!(after[512..], [b'2'; 512]);
        lost += u64::from(after[..512] == [0; 512]);
    }
    assert!(0 < lost && lost < SEEDS, "{lost} of {SEEDS}");
    Ok(())
}

#[test]
fn a_full_disk_refuses_what_takes_space_until_it_is_not_full() -> io::Result<()> {
    let disk = SimulatedDisk::new(1);
    let file = disk.create("a")?;
    disk.inject(|step| (3..8).contains(&step.number).then_some(Fault::Full));
    file.write_all_at(b"12", 0)?;
    file.write_all_at(b"34", 2)?;
    for _ in 0..3 {
        let written = file.write_all_at(&[b'5'; 1000], 4);
        assert_kind(written, ErrorKind::StorageFull, "Write a");
    }
    assert_kind(disk.create("b"), ErrorKind::StorageFull, "Create b");
    file.sync()?;
    disk.create("b")?;
    let bytes = read(&disk, "a").expect("a file");
    assert!(bytes.starts_with(b"1234") && bytes.len() < 1004);
    Ok(())
}

#[test]
fn faults_hit_the_step_they_are_meant_for() -> io::Result<()> {
    let disk = SimulatedDisk::new(5);
    let eio = io::Error::from_raw_os_error(5).kind();
    disk.inject(|step| match step.number {
        1 => Some(Fault::Refused),
        2 => Some(Fault::Short),
        3 => Some(Fault::Slow(Duration::from_millis(1))),
        4.. => Some(Fault::Refused),
        _ => None,
    });
    let file = disk.create("a")?;
    assert_kind(file.write_all_at(&[1; 1000], 0), eio, "Write a: Refused");
    assert_eq!(read(&disk, "a"), Some(vec![]));
    assert_kind(file.write_all_at(&[2; 1000], 0), eio, "Write a: Short");
    let bytes = read(&disk, "a").expect("a file");
    assert!(!bytes.is_empty() && bytes.len() < 1000, "{}", bytes.len());
    file.write_all_at(&[3; 2000], 0)?;
    assert_kind(file.read_exact_at(&mut [0; 1], 0), eio, "Read a: Refused");
    assert_kind(disk.remove("a"), eio, "Remove a: Refused");
    assert_eq!(read(&disk, "a"), Some(vec![3; 2000]));
    let actions: Vec<Action> = disk.steps().iter().map(|step| step.action).collect();
    let writes = [Action::Write; 3];
    assert_eq!(actions[0], Action::Create);
    assert_eq!(actions[1..4], writes);
    assert_eq!(actions[4..], [Action::Read, Action::Remove]);
    Ok(())
}

/// Memory that begins with a page of 4 KiB.
#[repr(align(4096))]
struct Pages([u8; 8192]);

#[test]
fn what_is_written_past_the_cache_is_there_and_survives_when_synced() -> io::Result<()> {
    on_both(|disk| {
        let file = disk.create("a")?;
        file.write_all_at(&[1; 4096], 0)?;
        file.write_uncached(&Pages([2; 8192]).0, 4096)?;
        // Not of whole pages: then it goes through the cache.
        file.write_uncached(b"end", 12288)?;
        file.sync()?;
        let expected = [&[1; 4096][..], &[2; 8192], b"end"].concat();
        assert_eq!(read(disk, "a"), Some(expected));
        Ok(())
    })?;
    let disk = SimulatedDisk::new(1);
    disk.create("a")?;
    disk.sync_directory()?;
    let file = disk.open("a")?;
    file.write_uncached(&Pages([2; 8192]).0, 0)?;
    file.write_uncached(b"end", 8192)?;
    let actions: Vec<Action> = disk.steps().iter().map(|step| step.action).collect();
    assert_eq!(actions[3..], [Action::WriteUncached, Action::Write]);
    disk.inject(|_| Some(Fault::Refused));
    let refused = file.write_uncached(&Pages([3; 8192]).0, 0);
    let eio = io::Error::from_raw_os_error(5).kind();
    assert_kind(refused, eio, "WriteUncached a: Refused");
    // Not synced, so each of its sectors may be there or not.
    let left = after_crashes(&disk, |disk| {
        let bytes = read(disk, "a").unwrap_or_default();
        bytes.chunks(512).filter(|sector| sector[0] == 2).count()
    });
    assert!(left.len() > 10, "{left:?}");
    Ok(())
}

#[test]
fn a_flipped_bit_is_read_and_survives() -> io::Result<()> {
    let disk = SimulatedDisk::new(1);
    write(&disk, "a", &[0; 4])?;
    disk.open("a")?.sync()?;
    disk.sync_directory()?;
    disk.flip_bit("a", 17);
    assert_eq!(read(&disk, "a"), Some(vec![0, 0, 2, 0]));
    assert_eq!(read(&disk.crash(1), "a"), Some(vec![0, 0, 2, 0]));
    Ok(())
}

#[test]
fn the_same_seed_leaves_the_same() -> io::Result<()> {
    let disk = SimulatedDisk::new(1);
    for name in ["a", "b", "c", "d"] {
        write(&disk, name, &[b'x'; 5000])?;
    }
    for seed in 0..20 {
        assert_eq!(files(&disk.crash(seed))?, files(&disk.crash(seed))?);
    }
    // A crash is a start afresh: what it has left is durable.
    let left = disk.crash(7);
    let again = after_crashes(&left, |disk| files(disk).expect("files"));
    assert_eq!(again, BTreeMap::from([(files(&disk.crash(7))?, SEEDS)]));
    Ok(())
}

/// How a file is replaced, with the bug that a test asks for.
fn replace(disk: &SimulatedDisk, forgotten: Option<Action>) -> io::Result<()> {
    let file = disk.create("NEW")?;
    file.write_all_at(&[b'2'; 1500], 0)?;
    if forgotten != Some(Action::Sync) {
        file.sync()?;
    }
    disk.rename("NEW", "NOW")?;
    if forgotten != Some(Action::SyncDirectory) {
        disk.sync_directory()?;
    }
    Ok(())
}

/// Crashes at every step of a replacement; what the file holds then, and whether one that was said to be done is lost.
fn replace_and_crash(forgotten: Option<Action>) -> (BTreeSet<Vec<u8>>, bool) {
    let (mut contents, mut lost) = (BTreeSet::new(), false);
    for crash_at in 0.. {
        let disk = SimulatedDisk::new(crash_at);
        write(&disk, "NOW", &[b'1'; 1500]).expect("power");
        disk.open("NOW")
            .and_then(|file| file.sync())
            .expect("power");
        disk.sync_directory().expect("power");
        disk.cut_power_after(crash_at);
        let done = replace(&disk, forgotten).is_ok();
        let found = after_crashes(&disk, |disk| read(disk, "NOW").expect("old or new"));
        lost |= done && found.keys().any(|bytes| bytes[..] != [b'2'; 1500]);
        contents.extend(found.into_keys());
        if done {
            break;
        }
    }
    (contents, lost)
}

#[test]
fn crashes_find_what_a_replacement_forgets() {
    let sound = BTreeSet::from([vec![b'1'; 1500], vec![b'2'; 1500]]);
    assert_eq!(replace_and_crash(None), (sound.clone(), false));
    assert_eq!(
        replace_and_crash(Some(Action::SyncDirectory)),
        (sound.clone(), true)
    );
    let (contents, lost) = replace_and_crash(Some(Action::Sync));
    assert!(lost && contents.is_superset(&sound) && contents.len() > 2);
}
