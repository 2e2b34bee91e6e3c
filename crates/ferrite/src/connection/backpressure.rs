//! A connection that has to wait for memory, or for its client to take replies, before it goes on.
//!
//! While it waits it sends what its client takes, for that is what gives memory back.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::Duration;

use super::{Closed, Connection, Socket};
use crate::client::client_flags;
use crate::log;
use crate::memory::{Lease, TooMuch};

/// How often a client that does not take its replies is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long a transaction waits for memory.
const EXEC_PATIENCE: Duration = Duration::from_millis(500);

impl<S: Socket> Connection<S> {
    /// Lets the input grow by `bytes` once there is memory for that.
    pub(super) async fn make_room_to_read(&mut self, bytes: usize) -> Result<(), Closed> {
        let Ok(_lease) = self.have_memory(bytes as u64).await? else {
            return Err(self.closed_for_memory(bytes));
        };
        if self.input.buffer.capacity() == 0 {
            self.input.buffer = Vec::with_capacity(self.worker.buffer_bytes);
        } else {
            self.input.grow();
        }
        Ok(())
    }

    /// `bytes` of memory, if need be after waiting for it in line with others.
    pub(super) async fn have_memory(
        &mut self,
        bytes: u64,
    ) -> Result<Result<Lease, TooMuch>, Closed> {
        self.note_held();
        let memory = Arc::clone(&self.server().memory);
        if let Some(lease) = memory.take(self.client.id(), bytes) {
            return Ok(Ok(lease));
        }
        self.publish();
        self.waited_for_memory = true;
        // Others shall not wait for this one's latches while it waits for theirs to make room.
        self.client.kept_latches = None;
        let entry = Arc::clone(&self.client.entry);
        if self.client.exec.is_some() || self.client.is_half_done() {
            // It may hold latches that those with the memory wait for, and sends nothing before its end.
            let waiting = memory.wait(entry.id, bytes);
            let waited = tokio::time::timeout(EXEC_PATIENCE, waiting).await;
            return Ok(waited.unwrap_or(Err(TooMuch)));
        }
        self.send().await?;
        // Who does not take the replies he has shall not hold up others.
        self.catch_up_or(|| memory.take_spare(bytes).is_some())
            .await?;
        let waiting = memory.wait(entry.id, bytes);
        self.while_sending(waiting).await
    }

    /// Lets others have what only one client at a time can have, if this one has it and needs it no more.
    pub(super) fn note_held(&self) {
        self.note_held_without(0);
    }

    /// As [`Self::note_held`], before `bytes` of its input and output are freed.
    pub(super) fn note_held_without(&self, bytes: usize) {
        if self.waited_for_memory {
            let own = self.input.buffer.capacity() + self.client.queued_bytes();
            let pending = self.output.pending_bytes();
            let fetched = self.client.entry.fetched_bytes.load(Relaxed) as usize;
            let held = (own + pending + fetched).saturating_sub(bytes) as u64;
            // A reply may be made of what was fetched.
            let in_heap = own + fetched.max(pending.saturating_sub(self.output.lent_bytes()));
            let in_heap = in_heap.saturating_sub(bytes) as u64;
            let memory = &self.server().memory;
            memory.note_held(self.client.id(), held, in_heap);
        }
    }

    /// Waits for the client to take its replies, if it has so many to take that there should not be more.
    pub(super) async fn catch_up(&mut self) -> Result<(), Closed> {
        let memory = Arc::clone(&self.server().memory);
        let most = self.bounds.output_bytes;
        let pending = self.output.pending_bytes();
        self.catch_up_or(|| pending < most && memory.take_spare(2 * pending as u64).is_some())
            .await
    }

    /// Waits for the client to take its replies, or until it `may_fall_behind`.
    async fn catch_up_or(&mut self, may_fall_behind: impl Fn() -> bool) -> Result<(), Closed> {
        let most = self.worker.slice_reply_bytes();
        let entry = Arc::clone(&self.client.entry);
        while self.output.pending_bytes() >= most && !may_fall_behind() {
            self.publish();
            entry.begin_to_await(self.server().uptime_ms());
            entry.set_flag(client_flags::BEHIND, true);
            let waited = self.while_sending(tokio::time::sleep(LOOK_AGAIN)).await;
            entry.set_flag(client_flags::BEHIND, false);
            waited?;
        }
        entry.end_to_await();
        Ok(())
    }

    /// Awaits `future`, sending meanwhile what the client takes, unless the client is killed or the server stops.
    async fn while_sending<T>(&mut self, future: impl Future<Output = T>) -> Result<T, Closed> {
        let entry = Arc::clone(&self.client.entry);
        let mut wake = pin!(entry.wake.notified());
        let mut future = pin!(future);
        poll_fn(|cx| {
            let is_woken = wake.as_mut().poll(cx).is_ready();
            if is_woken {
                self.check_killed()?;
                wake.set(entry.wake.notified());
                cx.waker().wake_by_ref();
            }
            while self.output.has_pending()
                && let Poll::Ready(sent) = self.poll_send(cx)
            {
                sent?;
            }
            if is_woken {
                self.check_stalled()?;
            }
            future.as_mut().poll(cx).map(Ok)
        })
        .await
    }

    fn closed_for_memory(&self, bytes: usize) -> Closed {
        log::warning(format_args!(
            "Client id={} addr={} closed: its request needs {bytes} bytes of memory more than there are for clients.",
            self.client.id(),
            self.client.entry.addr,
        ));
        Closed::Killed
    }
}
