//! The replies that `bench load` can get: those of GET, SET and DEL.
//!
//! `resp` finds where a reply ends; here it is only looked at in place. No value is copied before
//! it is checked.

/// One reply. It borrows from the input buffer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reply<'a> {
    /// `+OK`
    Status(&'a [u8]),
    /// `-ERR ...`
    Error(&'a [u8]),
    /// `:1`
    Integer,
    /// `$3`, `foo`
    Bulk(&'a [u8]),
    /// `$-1` or `_`
    Null,
    /// A reply of any other type; it answers none of our commands.
    Other,
}

/// The first reply in `input` and its length in bytes; None while it is incomplete.
#[inline]
pub(crate) fn parse(input: &[u8]) -> Result<Option<(Reply<'_>, usize)>, String> {
    let bytes = match resp::skip_reply(input) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Ok(None),
        Err(error) => {
            let start = input[..input.len().min(80)].escape_ascii();
            return Err(format!(
                "the server sent \"{start}\", which is no reply: {error}"
            ));
        }
    };
    // Every reply is a byte for its type, a body, and the end of a line.
    let body = &input[1..bytes - 2];
    let reply = match input[0] {
        b'+' => Reply::Status(body),
        b'-' => Reply::Error(body),
        b':' => Reply::Integer,
        b'_' => Reply::Null,
        b'$' if body == b"-1" => Reply::Null,
        b'$' => {
            let length_end = body
                .iter()
                .position(|&byte| byte == b'\n')
                .map_or(0, |at| at + 1);
            Reply::Bulk(&body[length_end..])
        }
        _ => Reply::Other,
    };
    Ok(Some((reply, bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_replies_are_read_and_incomplete_ones_waited_for() {
        let cases: [(&[u8], Reply<'_>); 8] = [
            (b"+OK\r\n", Reply::Status(b"OK")),
            (b"-OOM no room\r\n", Reply::Error(b"OOM no room")),
            (b":-12\r\n", Reply::Integer),
            (b"$-1\r\n", Reply::Null),
            (b"_\r\n", Reply::Null),
            (b"$0\r\n\r\n", Reply::Bulk(b"")),
            (b"$5\r\na\r\nbc\r\n", Reply::Bulk(b"a\r\nbc")),
            (b"*1\r\n$1\r\na\r\n", Reply::Other),
        ];
        for (bytes, reply) in cases {
            assert_eq!(parse(bytes), Ok(Some((reply, bytes.len()))));
            for cut in 0..bytes.len() {
                assert_eq!(parse(&bytes[..cut]), Ok(None), "{}", bytes.escape_ascii());
            }
        }
    }

    #[test]
    fn anything_else_is_an_error_that_shows_it() {
        let error = parse(b"HTTP/1.1 400\r\n").unwrap_err();
        assert!(error.contains("HTTP/1.1 400"), "{error}");
    }
}
