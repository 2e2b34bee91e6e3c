//! The steps of one GET through the server, each by itself: parse the command, find the slot,
//! fetch the value, encode the reply.
//!
//! Parsing and encoding are timed on the codec. The engine's two steps cannot be cut apart from
//! outside, but a GET of an absent key costs all up to and with the index, so what a GET of a
//! present key costs more is the cost of fetching.

use resp::{Encoder, Limits, Parsed, Protocol, RequestParser};

use super::calls::{VALUE_BYTES, key, value};
use super::measure::Call;

/// Parses `GET key` as it comes from a client.
pub(crate) struct Parse {
    parser: RequestParser,
    command: Vec<u8>,
    arguments: Vec<resp::ArgRange>,
}

impl Parse {
    pub(crate) fn new() -> Self {
        let mut command = b"*2\r\n$3\r\nGET\r\n$16\r\n".to_vec();
        command.extend_from_slice(&key(7));
        command.extend_from_slice(b"\r\n");
        Parse {
            parser: RequestParser::new(Limits::default()),
            command,
            arguments: Vec::new(),
        }
    }
}

impl Call for Parse {
    #[inline]
    fn call(&mut self) -> Result<u64, String> {
        self.arguments.clear();
        let command = std::hint::black_box(&mut self.command);
        match self.parser.parse(command, 0, &mut self.arguments) {
            Ok(Parsed::Complete {
                args: std::ops::Range { start: 0, end: 2 },
                ..
            }) => Ok(1),
            other => Err(format!("GET is parsed as {other:?}")),
        }
    }
}

/// Encodes the reply to a GET.
pub(crate) struct Encode {
    encoder: Encoder,
    value: [u8; VALUE_BYTES],
}

impl Encode {
    pub(crate) fn new() -> Self {
        Encode {
            encoder: Encoder::new(Protocol::Resp2),
            value: value(7),
        }
    }
}

impl Call for Encode {
    #[inline]
    fn call(&mut self) -> Result<u64, String> {
        self.encoder.truncate(0);
        self.encoder.bulk(std::hint::black_box(&self.value));
        std::hint::black_box(self.encoder.as_bytes());
        Ok(1)
    }
}
