//! A client whose command waits for keys (`blocking`). It holds no more than its request, and sleeps until it is served, its time
//! is over, or something comes from its socket: what it sends meanwhile is read, up to a bound, and run afterwards; that it
//! has gone ends its waiting.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use hybridlog::ColdReads;

use super::close_watch::CloseWatch;
use super::waiting::ColdLease;
use super::{Closed, Connection, Socket};
use crate::blocking::{Blocked, End};
use crate::client::After;
use crate::server::unix_ms;

/// So much is read of what a client sends while it waits.
const READ_AHEAD_BYTES: usize = 64 * 1024;

impl<S: Socket> Connection<S> {
    /// If command `i` waits for keys, waits with it, and answers it.
    pub(super) async fn wait_for_keys(
        &mut self,
        i: usize,
        reads: &mut ColdReads,
        lease: &mut ColdLease,
    ) -> Result<(), Closed> {
        while let Some(blocked) = self.client.blocked.take() {
            lease.release();
            reads.clear();
            self.send().await?;
            self.hold_little();
            match self.until_ended(&blocked).await? {
                End::Served { reply, written } => {
                    self.client.written = self.client.written.max(written);
                    if blocked.wants_reply {
                        self.output.append(reply);
                    }
                }
                End::TimedOut if blocked.wants_reply => self.output.null_array(),
                End::Unblocked if blocked.wants_reply => {
                    let error = "UNBLOCKED client unblocked via CLIENT UNBLOCK";
                    self.output.error(error);
                    self.stats().count_error(error.as_bytes());
                }
                End::TimedOut | End::Unblocked => {}
                End::RunAgain => {
                    self.client.waits_again = Some(blocked.former());
                    self.client.reply_mode.skip = !blocked.wants_reply;
                    drop(blocked);
                    self.client.after = After::Continue;
                    // To wait is not the command's own time.
                    self.clock = Instant::now();
                    if let Some(wait) = self.run_command(i, reads, unix_ms()) {
                        self.run_waiting(i, wait, reads, lease).await?;
                    }
                    self.client.waits_again = None;
                }
            }
        }
        Ok(())
    }

    /// Gives back buffers that are larger than what is in them.
    fn hold_little(&mut self) {
        if let Some(buffer) = self.input.take_large_buffer() {
            self.worker.give_buffer(buffer);
        }
        if let Some(buffer) = self.output.take_buffer() {
            self.worker.give_buffer(buffer);
        }
        self.publish();
        self.note_held();
    }

    async fn until_ended(&mut self, blocked: &Blocked) -> Result<End, Closed> {
        let entry = Arc::clone(&self.client.entry);
        let mut ended = pin!(blocked.ended());
        let mut close_watch = None;
        loop {
            let mut wake = pin!(entry.wake.notified());
            if self.output.has_pending() {
                // It is its turn to take the replies it has.
                entry.begin_to_await(self.server().uptime_ms());
            }
            let end = poll_fn(|cx| {
                if let Poll::Ready(end) = ended.as_mut().poll(cx) {
                    return Poll::Ready(Ok(Some(end)));
                }
                let is_woken = wake.as_mut().poll(cx).is_ready();
                if is_woken {
                    self.check_killed()?;
                }
                if self.output.has_pending()
                    && let Poll::Ready(sent) = self.poll_send(cx)
                {
                    sent?;
                    return Poll::Ready(Ok(None));
                }
                let may_read = self.input.buffer.len() < READ_AHEAD_BYTES && self.short_bytes == 0;
                if may_read {
                    if let Poll::Ready(read) = self.poll_fill(cx) {
                        read?;
                        self.has_read_ahead = true;
                        return Poll::Ready(Ok(None));
                    }
                } else if self.poll_left(&mut close_watch, cx).is_ready() {
                    return Poll::Ready(Err(Closed::Gone));
                }
                if is_woken {
                    self.check_stalled()?;
                    return Poll::Ready(Ok(None));
                }
                Poll::Pending
            });
            if let Some(end) = end.await? {
                entry.end_to_await();
                return Ok(end);
            }
        }
    }

    /// Ready when the client has gone, or when that could not be told: nothing is to be taken for a client that may have.
    fn poll_left(&self, watch: &mut Option<CloseWatch>, cx: &mut Context<'_>) -> Poll<()> {
        if watch.is_none() {
            *watch = CloseWatch::new(&self.socket).ok();
        }
        match watch {
            Some(watch) => watch.poll_closed(cx).map(drop),
            None => Poll::Ready(()),
        }
    }
}
