//! Glob patterns: over directive names (`CONFIG GET`) and over file names (`include conf.d/*.conf`).

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// Whether `text` has a character that makes it a pattern.
pub(crate) fn is_pattern(text: &[u8]) -> bool {
    text.iter().any(|byte| b"*?[".contains(byte))
}

/// Whether `pattern` (`*`, `?`, `[a-z]`, `[^a]`, `\x`) matches the whole of `text`.
/// Needs no more than `pattern.len() * text.len()` steps: only the last `*` is ever retried.
pub(crate) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            retry = Some((p, t));
            continue;
        }
        match match_one(&pattern[p..], text[t]) {
            Some(len) => {
                p += len;
                t += 1;
            }
            None => {
                let Some((after_star, taken)) = retry else {
                    return false;
                };
                (p, t) = (after_star, taken + 1);
                retry = Some((p, t));
            }
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// The length of the pattern's first element if that element matches `byte`.
fn match_one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'\\', escaped, ..] => (*escaped == byte).then_some(2),
        [b'[', class @ ..] => match_class(class, byte).map(|len| len + 1),
        [literal, ..] => (*literal == byte).then_some(1),
    }
}

/// The length of a character class, its closing bracket included, if it matches `byte`. A class
/// without closing bracket ends with the pattern.
fn match_class(class: &[u8], byte: u8) -> Option<usize> {
    let negated = class.first() == Some(&b'^');
    let mut at = usize::from(negated);
    let mut found = false;
    while at < class.len() && class[at] != b']' {
        match class[at..] {
            [b'\\', escaped, ..] => {
                found |= escaped == byte;
                at += 2;
            }
            [low, b'-', high, ..] if high != b']' => {
                found |= (low.min(high)..=low.max(high)).contains(&byte);
                at += 3;
            }
            [single, ..] => {
                found |= single == byte;
                at += 1;
            }
            [] => unreachable!("at < class.len()"),
        }
    }
    let len = (at + 1).min(class.len());
    (found != negated).then_some(len)
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
        if !hidden && matches(pattern.as_bytes(), name.as_bytes()) {
            paths.push(dir.join(name));
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("max*", "maxmemory", true),
            ("*memory", "maxmemory", true),
            ("m*x*y", "maxmemory", true),
            ("m?xmemory", "maxmemory", true),
            ("[l-n]axmemory", "maxmemory", true),
            ("[^a-l]axmemory", "maxmemory", true),
            ("[^m]axmemory", "maxmemory", false),
            ("max", "maxmemory", false),
            ("maxmemory", "max", false),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("[m", "m", true),
            ("[", "m", false),
            ("", "m", false),
            (
                "a*a*a*a*a*b",
                "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                false,
            ),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes()),
                expected,
                "{pattern} {text}"
            );
        }
    }
}
