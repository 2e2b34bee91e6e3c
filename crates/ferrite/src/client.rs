//! The state of one client connection.

/// A connected client.
pub(crate) struct Client {
    /// Selected database.
    pub(crate) database: usize,
}
