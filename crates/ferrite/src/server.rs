//! Everything the workers share.

use std::sync::Arc;

use hybridlog::Store;

/// The server.
pub(crate) struct Server {
    pub(crate) store: Arc<Store>,
}
