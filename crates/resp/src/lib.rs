//! The RESP protocol codec.
