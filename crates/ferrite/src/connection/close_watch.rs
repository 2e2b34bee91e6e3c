//! Notices that a client has gone, though what it sent before is not read.
#![allow(unsafe_code)] // Registering the second descriptor with the runtime.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll, ready};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A second descriptor of a socket, with a readiness of its own: to clear it does not make the
/// socket itself look empty.
pub(super) struct CloseWatch(AsyncFd<OwnedFd>);

impl CloseWatch {
    /// Watches `socket`.
    ///
    /// # Errors
    ///
    /// When the process has no descriptor left.
    pub(super) fn new(socket: &impl AsFd) -> io::Result<CloseWatch> {
        let descriptor = socket.as_fd().try_clone_to_owned()?;
        // SAFETY: an `OwnedFd` keeps the one descriptor that it was made with open until it is dropped.
        let watched = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE)? };
        Ok(CloseWatch(watched))
    }

    /// Ready when the peer sends nothing more. A peer whose end of the stream waits behind more
    /// than the system's buffers hold has not closed yet, as far as anyone can tell.
    pub(super) fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut event = ready!(self.0.poll_read_ready(cx))?;
            if event.ready().is_read_closed() {
                return Poll::Ready(Ok(()));
            }
            event.clear_ready();
        }
    }
}
