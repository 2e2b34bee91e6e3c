//! The real disk does what the traits say.

use std::fs;
use std::io::{self, ErrorKind};

use hybridlog::disk::{Directory, Disk};

fn kind<T>(result: io::Result<T>, name: &str) -> ErrorKind {
    let Err(error) = result else {
        panic!("{name}: no error");
    };
    assert!(error.to_string().contains(name), "{error} names no {name}");
    error.kind()
}

fn names(disk: &dyn Disk) -> Vec<String> {
    let mut names = disk.names().expect("names");
    names.sort();
    names
}

#[test]
fn files_are_made_written_cut_renamed_and_removed() -> io::Result<()> {
    let directory = tempfile::tempdir()?;
    let disk = Directory::new(directory.path().to_path_buf());
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
    assert_eq!(fs::read(disk.path("a"))?, b"\0\0\0h\0\0");

    disk.create("b")?;
    disk.rename("a", "b")?;
    assert_eq!(names(&disk), ["b"]);
    disk.open("b")?.write_all_at(b"1", 0)?;
    // The open file is the one that has another name now.
    file.read_exact_at(&mut bytes[..1], 0)?;
    assert_eq!(bytes[0], b'1');
    disk.remove("b")?;
    assert_eq!(names(&disk), [""; 0]);
    file.read_exact_at(&mut bytes[..6], 0)
}

#[test]
fn errors_name_the_file_and_keep_their_kind() -> io::Result<()> {
    let directory = tempfile::tempdir()?;
    let disk = Directory::new(directory.path().to_path_buf());
    let file = disk.create("there")?;
    file.write_all_at(b"1234", 0)?;
    assert_eq!(
        kind(disk.create("there"), "there"),
        ErrorKind::AlreadyExists
    );
    assert_eq!(kind(disk.open("gone"), "gone"), ErrorKind::NotFound);
    assert_eq!(kind(disk.remove("gone"), "gone"), ErrorKind::NotFound);
    assert_eq!(
        kind(disk.rename("gone", "away"), "away"),
        ErrorKind::NotFound
    );
    let read = file.read_exact_at(&mut [0; 3], 2);
    assert_eq!(kind(read, "offset 2 of"), ErrorKind::UnexpectedEof);
    assert_eq!(fs::read(disk.path("there"))?, b"1234");

    let nowhere = Directory::new(directory.path().join("nowhere"));
    assert_eq!(kind(nowhere.create("a"), "nowhere/a"), ErrorKind::NotFound);
    assert_eq!(kind(nowhere.names(), "nowhere"), ErrorKind::NotFound);
    assert_eq!(
        kind(nowhere.sync_directory(), "nowhere"),
        ErrorKind::NotFound
    );
    Ok(())
}
