//! Closing a connection so that the client gets what it was told last.
//!
//! A socket that is closed with bytes unread, or to which more are sent afterwards, is reset, and a reset makes the client's system
//! drop what had arrived. So only our side is closed at first, and what the client still sends is read and dropped, for a moment.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Socket;
use crate::worker::Worker;

/// What is dropped takes no longer, and is no more, than this.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 64 << 20;
const READ_BYTES: usize = 16 * 1024;
/// So many connections of a worker may do so at a time; the others are closed at once, for they have descriptors.
const LINGERING_MAX: usize = 16;

/// Closes our side, and drops what the client sends until it closes its own.
pub(crate) async fn linger<S: Socket>(worker: &Worker, socket: &mut S) {
    if worker.lingering.get() >= LINGERING_MAX {
        return;
    }
    worker.lingering.set(worker.lingering.get() + 1);
    let drain = async {
        socket.shutdown().await?;
        let mut bytes = Vec::with_capacity(READ_BYTES);
        let mut dropped = 0;
        while dropped < LINGER_BYTES && socket.read_buf(&mut bytes).await? > 0 {
            dropped += bytes.len();
            bytes.clear();
        }
        io::Result::Ok(())
    };
    // Either way the connection ends.
    let _ = tokio::time::timeout(LINGER, drain).await;
    worker.lingering.set(worker.lingering.get() - 1);
}
