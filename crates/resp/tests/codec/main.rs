//! Tests of the codec through its public interface.

mod decode;
mod encode;
mod parse;
mod random;
mod redis;
