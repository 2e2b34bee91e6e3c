//! The files that an `include` names, which may be a pattern: `include conf.d/*.conf`.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::glob;

/// Whether `text` has a character that makes it a pattern.
pub(crate) fn is_pattern(text: &[u8]) -> bool {
    text.iter().any(|byte| b"*?[".contains(byte))
}

/// The existing files whose paths match `pattern`, sorted; wildcards may stand in any component and
/// do not match a leading dot. None matching is no error, as an empty `conf.d` is none.
pub(crate) fn files(pattern: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![PathBuf::new()];
    for component in pattern.components() {
        match component {
            Component::Normal(name) if is_pattern(name.as_bytes()) => {
                let mut next = Vec::new();
                for dir in &found {
                    next.extend(entries_matching(dir, name)?);
                }
                found = next;
            }
            literal => found.iter_mut().for_each(|path| path.push(literal)),
        }
    }
    found.retain(|path| path.exists());
    found.sort();
    Ok(found)
}

fn entries_matching(dir: &Path, pattern: &OsStr) -> io::Result<Vec<PathBuf>> {
    let listed = if dir.as_os_str().is_empty() {
        Path::new(".")
    } else {
        dir
    };
    let entries = match listed.read_dir() {
        Ok(entries) => entries,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let hidden = name.as_bytes().starts_with(b".") && !pattern.as_bytes().starts_with(b".");
        if !hidden && glob::matches(pattern.as_bytes(), name.as_bytes()) {
            paths.push(dir.join(name));
        }
    }
    Ok(paths)
}
