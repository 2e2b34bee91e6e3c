//! The request parser on any bytes in any reads: it must not panic, every argument must lie in the
//! buffer, and how the bytes were split into reads must not change what they mean.
//!
//! Run: `cargo +nightly fuzz run request` in `crates/resp`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use resp::{Parsed, ProtocolError, RequestParser};

type Outcome = (Vec<Vec<Vec<u8>>>, Option<ProtocolError>);

fn parse<'a>(reads: impl Iterator<Item = &'a [u8]>) -> Outcome {
    let mut parser = RequestParser::default();
    let mut buf = Vec::new();
    let mut commands = Vec::new();
    for read in reads {
        buf.extend_from_slice(read);
        let mut args = Vec::new();
        let mut start = 0;
        loop {
            match parser.parse(&mut buf, start, &mut args) {
                Ok(Parsed::Complete { end, args: range }) => {
                    assert!(!range.is_empty() && start < end && end <= buf.len());
                    commands.push(
                        args[range]
                            .iter()
                            .map(|arg| arg.of(&buf).to_vec())
                            .collect(),
                    );
                    start = end;
                }
                Ok(Parsed::Incomplete { keep_from, need }) => {
                    assert!(need > 0 && start <= keep_from && keep_from <= buf.len());
                    buf.drain(..keep_from);
                    break;
                }
                Err(error) => return (commands, Some(error)),
            }
        }
    }
    (commands, None)
}

fuzz_target!(|input: (u8, &[u8])| {
    let (read_len, bytes) = input;
    let whole = parse(std::iter::once(bytes));
    let in_reads = parse(bytes.chunks(usize::from(read_len) + 1));
    assert_eq!(whole, in_reads);
});
