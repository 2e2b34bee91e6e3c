//! Reads the replies that `bench load` can get: those of GET, SET and DEL, in RESP2 or RESP3.

/// One reply. It borrows from the input buffer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reply<'a> {
    /// `+OK`
    Status(&'a [u8]),
    /// `-ERR ...`
    Error(&'a [u8]),
    /// `:1`
    Integer(i64),
    /// `$3 foo`
    Bulk(&'a [u8]),
    /// `$-1`, `_`
    Null,
}

/// The longest line read before its end must have come.
const MAX_LINE_BYTES: usize = 64 << 10;

/// The first reply in `input` and its length in bytes; None while it is incomplete.
pub(crate) fn parse(input: &[u8]) -> Result<Option<(Reply<'_>, usize)>, String> {
    let Some(end) = input
        .iter()
        .take(MAX_LINE_BYTES)
        .position(|&byte| byte == b'\r')
    else {
        return match input.len() {
            0..MAX_LINE_BYTES => Ok(None),
            _ => Err(format!(
                "the server sent a line of over {MAX_LINE_BYTES} bytes"
            )),
        };
    };
    let (line, after_line) = (&input[..end], end + 2);
    if input.len() < after_line {
        return Ok(None);
    }
    let rest = &line[1.min(line.len())..];
    let reply = match line.first() {
        Some(b'+') => Reply::Status(rest),
        Some(b'-') => Reply::Error(rest),
        Some(b':') => Reply::Integer(number(line)?),
        Some(b'_') => Reply::Null,
        Some(b'$') => match number(line)? {
            -1 => Reply::Null,
            bytes => {
                let end = usize::try_from(bytes)
                    .ok()
                    .and_then(|bytes| after_line.checked_add(bytes))
                    .ok_or_else(|| unexpected(line))?;
                return match input.get(end..end.saturating_add(2)) {
                    Some(b"\r\n") => Ok(Some((Reply::Bulk(&input[after_line..end]), end + 2))),
                    Some(_) => Err(format!("{} is not followed by its end", show(line))),
                    None => Ok(None),
                };
            }
        },
        _ => return Err(unexpected(line)),
    };
    Ok(Some((reply, after_line)))
}

fn number(line: &[u8]) -> Result<i64, String> {
    std::str::from_utf8(&line[1..])
        .ok()
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| unexpected(line))
}

fn unexpected(line: &[u8]) -> String {
    format!(
        "the server sent {}, which is no reply to GET, SET or DEL",
        show(line)
    )
}

fn show(line: &[u8]) -> String {
    format!("\"{}\"", line[..line.len().min(80)].escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_replies_are_read_and_incomplete_ones_waited_for() {
        let cases: [(&[u8], Reply<'_>); 7] = [
            (b"+OK\r\n", Reply::Status(b"OK")),
            (b"-OOM no room\r\n", Reply::Error(b"OOM no room")),
            (b":-12\r\n", Reply::Integer(-12)),
            (b"$-1\r\n", Reply::Null),
            (b"_\r\n", Reply::Null),
            (b"$0\r\n\r\n", Reply::Bulk(b"")),
            (b"$5\r\na\r\nbc\r\n", Reply::Bulk(b"a\r\nbc")),
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
        for bytes in [
            &b"HTTP/1.1 400\r\n"[..],
            b"*1\r\n",
            b"$x\r\n",
            b"$-2\r\n",
            b"$1\r\nabcd",
        ] {
            assert!(
                parse(bytes).unwrap_err().contains('"'),
                "{}",
                bytes.escape_ascii()
            );
        }
        assert!(parse(&[b'+'; MAX_LINE_BYTES]).is_err());
    }
}
