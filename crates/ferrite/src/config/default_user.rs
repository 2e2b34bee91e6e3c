//! The password of the default user, as a line of `user` gives it.
//!
//! There are no users beside the default one, and that may do everything. So of what Redis lets such a line say, only
//! the password can be honoured; anything else ends the start, since a server that went on would allow what the
//! operator has forbidden.

use super::ConfigError;
use super::value::Line;

const ALLOWED: &str = "user default on ~* +@all, with nopass or one >password";

/// The password that the user of `line` has; empty if he needs none.
///
/// # Errors
///
/// One line that names the place and what is allowed, and shows no password.
pub(super) fn password(line: &Line) -> Result<Vec<u8>, ConfigError> {
    let fail = |reason: &str| {
        let place = &line.place;
        ConfigError::new(format!("{place}: user: {reason} (allowed: {ALLOWED})"))
    };
    let rules = match line.words.split_first() {
        Some((name, rules)) if name == b"default" => rules,
        _ => return Err(fail("there are no users beside the default one")),
    };
    // As in Redis: a line begins with a user who may nothing.
    let (mut is_on, mut all_keys, mut all_commands) = (false, false, false);
    let mut password: Option<Vec<u8>> = None;
    for rule in rules {
        match rule.to_ascii_lowercase().as_slice() {
            b"on" => is_on = true,
            b"off" => is_on = false,
            b"~*" | b"allkeys" => all_keys = true,
            b"+@all" | b"allcommands" => all_commands = true,
            // Of channels and of what RESTORE is given there are none.
            b"&*" | b"allchannels" | b"resetchannels" => {}
            b"sanitize-payload" | b"skip-sanitize-payload" => {}
            b"nopass" => password = Some(Vec::new()),
            b"resetpass" => password = None,
            [b'>', _, ..] => {
                let given = &rule[1..];
                let other = password.as_ref().filter(|known| !known.is_empty());
                if other.is_some_and(|known| known != given) {
                    return Err(fail("there can be only one password"));
                }
                password = Some(given.to_vec());
            }
            [b'>' | b'<' | b'#' | b'!', ..] => {
                return Err(fail(
                    "only a password in plain text, which is not empty, can be given",
                ));
            }
            _ => {
                let rule = String::from_utf8_lossy(rule);
                return Err(fail(&format!("'{rule}' cannot be honoured")));
            }
        }
    }
    match password {
        _ if !is_on => Err(fail("the default user cannot be off")),
        _ if !(all_keys && all_commands) => Err(fail("the default user has all rights")),
        None => Err(fail("neither a password nor nopass")),
        Some(password) => Ok(password),
    }
}
