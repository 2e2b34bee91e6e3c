//! Cold I/O.
