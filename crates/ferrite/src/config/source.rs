//! Where configuration comes from: files, those they include, standard input, the command line.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::include;
use super::syntax::split_words;
use super::value::Line;
use super::{ConfigError, plain};

/// No configuration is larger; a device or a data file named by mistake is.
const MAX_FILE_BYTES: u64 = 16 << 20;
/// Files may include files so deep; a file that includes itself ends here.
const MAX_INCLUDE_DEPTH: usize = 16;

/// A directive as written: its name and the words after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) name: Vec<u8>,
    pub(crate) words: Vec<Vec<u8>>,
}

/// A directive's name as written, and its line.
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    pub(super) line: Line,
}

/// All entries of the file at `path`, with those of included files in the place of `include`.
pub(super) fn read_file(path: &Path) -> Result<Vec<Entry>, ConfigError> {
    let text = File::open(path)
        .and_then(read_bounded)
        .map_err(|error| ConfigError::new(format!("{}: {}", path.display(), plain(&error))))?;
    let mut entries = Vec::new();
    read_text(&text, &path.display().to_string(), 0, &mut entries)?;
    Ok(entries)
}

/// All entries that `input` gives; messages call it "standard input".
pub(super) fn read_stream(input: impl Read) -> Result<Vec<Entry>, ConfigError> {
    let text = read_bounded(input)
        .map_err(|error| ConfigError::new(format!("standard input: {}", plain(&error))))?;
    let mut entries = Vec::new();
    read_text(&text, "standard input", 0, &mut entries)?;
    Ok(entries)
}

/// The entries of the command line, included files expanded.
pub(super) fn expand(directives: &[Written]) -> Result<Vec<Entry>, ConfigError> {
    let mut entries = Vec::new();
    for Written { name, words } in directives {
        let line = Line {
            place: "command line".to_owned(),
            words: words.clone(),
        };
        push_entry(
            Entry {
                name: name.clone(),
                line,
            },
            0,
            &mut entries,
        )?;
    }
    Ok(entries)
}

fn read_bounded(input: impl Read) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    input.take(MAX_FILE_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other(format!(
            "larger than {MAX_FILE_BYTES} bytes, the most a configuration may have"
        )));
    }
    Ok(text)
}

fn read_text(
    text: &[u8],
    origin: &str,
    depth: usize,
    entries: &mut Vec<Entry>,
) -> Result<(), ConfigError> {
    for (number, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let place = || format!("{origin} line {}", number + 1);
        match parse_line(line) {
            Ok(None) => {}
            Ok(Some(Written { name, words })) => {
                push_entry(
                    Entry {
                        name,
                        line: Line {
                            place: place(),
                            words,
                        },
                    },
                    depth,
                    entries,
                )?;
            }
            Err(reason) => return Err(ConfigError::new(format!("{}: {reason}", place()))),
        }
    }
    Ok(())
}

/// The directive on a line; `None` for a blank line or a comment.
pub(super) fn parse_line(line: &[u8]) -> Result<Option<Written>, &'static str> {
    let line = line.trim_ascii();
    if line.is_empty() || line[0] == b'#' {
        return Ok(None);
    }
    let mut words = split_words(line).ok_or("unbalanced quotes")?.into_iter();
    Ok(words.next().map(|name| Written {
        name,
        words: words.collect(),
    }))
}

/// Adds `entry`, or what the files it includes hold.
fn push_entry(entry: Entry, depth: usize, entries: &mut Vec<Entry>) -> Result<(), ConfigError> {
    if !entry.name.eq_ignore_ascii_case(b"include") {
        entries.push(entry);
        return Ok(());
    }
    let Line { place, words } = entry.line;
    let fail = |reason: String| ConfigError::new(format!("{place}: include: {reason}"));
    let [target] = words.as_slice() else {
        return Err(fail(
            "wrong number of arguments (allowed: 1 file or pattern)".to_owned(),
        ));
    };
    if depth == MAX_INCLUDE_DEPTH {
        return Err(fail(format!(
            "files include each other more than {MAX_INCLUDE_DEPTH} deep"
        )));
    }
    let target = PathBuf::from(std::ffi::OsString::from_vec(target.clone()));
    let files = if include::is_pattern(target.as_os_str().as_bytes()) {
        include::files(&target)
            .map_err(|error| fail(format!("{}: {}", target.display(), plain(&error))))?
    } else {
        vec![target]
    };
    for file in files {
        let name = file.display().to_string();
        let text = File::open(&file).and_then(read_bounded);
        let text = text.map_err(|error| fail(format!("{name}: {}", plain(&error))))?;
        read_text(&text, &name, depth + 1, entries)?;
    }
    Ok(())
}
