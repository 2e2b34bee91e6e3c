//! Replies that wait until what they tell of would survive a power cut: all of them under `appendfsync always`, and
//! those of WAIT and WAITAOF. Only the connection waits; one sync serves all that do.

use std::future::{Future, pending};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hybridlog::Position;

use super::{Closed, Connection, Socket};
use crate::client::Awaited;
use crate::commands::reply_synced;
use crate::output::Output;
use crate::persistence::log_refusal;
use crate::server::Server;

/// How often one who waits looks whether the command log can be written. What passes sooner is waited for.
const HEALTH_CHECK: Duration = Duration::from_secs(1);

impl<S: Socket> Connection<S> {
    /// Under `appendfsync always`, waits until the changes that the replies in the output tell of are durable. If the
    /// command log cannot be written, the replies make way for an error, and the connection ends: whether the changes
    /// survive is unknown.
    pub(super) async fn hold_replies(&mut self) -> Result<(), Closed> {
        let Some(position) = self.client.written.filter(|_| self.bounds.holds_replies) else {
            return Ok(());
        };
        if self.server().store.durable() >= position {
            return Ok(());
        }
        // Many connections wait at a time, most of them with a few bytes.
        if let Some(buffer) = self.output.take_large_buffer() {
            self.worker.give_buffer(buffer);
        }
        let server = Arc::clone(self.server());
        let refused = self.interruptible(until_durable_or_refused(&server, position));
        let Some(error) = refused.await? else {
            return Ok(());
        };
        self.client.written = None;
        let mut output = Output::new(self.output.protocol());
        output.error(&error);
        self.output = output;
        Err(Closed::AfterReply)
    }

    /// Waits as WAIT and WAITAOF want to, and answers them.
    pub(super) async fn wait_and_answer(&mut self, awaited: Awaited) -> Result<(), Closed> {
        // The replies before it are due.
        self.send().await?;
        match awaited {
            Awaited::Replicas { timeout } => {
                self.interruptible(within(timeout, pending::<()>())).await?;
                self.output.integer(0);
            }
            Awaited::Sync {
                local,
                replicas,
                timeout,
            } => {
                let server = Arc::clone(self.server());
                let written = self.client.written;
                let synced = async {
                    if let Some(position) = written.filter(|_| local) {
                        // That it never will be shows below.
                        let _ = server.store.until_durable(position).await;
                    }
                    if replicas {
                        pending::<()>().await;
                    }
                };
                self.interruptible(within(timeout, synced)).await?;
                reply_synced(&server, written, &mut self.output);
            }
        }
        Ok(())
    }
}

/// Waits until all changes up to `position` are durable, or the command log cannot be written; returns the error then.
async fn until_durable_or_refused(server: &Server, position: Position) -> Option<String> {
    let mut durable = pin!(server.store.until_durable(position));
    loop {
        match tokio::time::timeout(HEALTH_CHECK, &mut durable).await {
            Ok(Ok(())) => return None,
            Ok(Err(stop)) => return Some(log_refusal(server).unwrap_or(stop.to_string())),
            Err(_) => {
                if let Some(why) = log_refusal(server) {
                    return Some(why);
                }
            }
        }
    }
}

/// Waits for `future`, for as long as `timeout` says.
async fn within(timeout: Option<Duration>, future: impl Future<Output = ()>) {
    match timeout {
        // That it took too long shows in what is there.
        Some(timeout) => drop(tokio::time::timeout(timeout, future).await),
        None => future.await,
    }
}
