//! Commands that run on the slow lane, alone or as part of a transaction: what walks everything, or blocks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hybridlog::Suspended;

use super::{Connection, Socket};
use crate::command::Handler;
use crate::ctx::SlowCtx;
use crate::dispatch::{self, Call, Ended, Wait};
use crate::exec::{Exec, Outcome};
use crate::output::{Mark, Output};
use crate::server::unix_ms;

/// What a command on the slow lane comes back with.
struct Slow {
    /// What it waits for instead, if it has to run again.
    ended: Result<Ended, Wait>,
    reply: Output,
    /// The transaction that it is part of.
    transaction: Option<Suspended>,
}

impl<S: Socket> Connection<S> {
    /// Runs command `i`, which is a [`Handler::Slow`], on the slow lane; says what it waits for if it has not ended.
    pub(super) async fn run_slow(&mut self, i: usize) -> Option<Wait> {
        let server = Arc::clone(self.server());
        let command = self.input.command(i).map(|id| server.commands.get(id))?;
        let call = Call {
            command,
            args: self.input.args(i),
        };
        let slow = self.start_slow(call, None).await;
        match slow.ended {
            Ok(ended) => self.finish(i, ended, slow.reply),
            Err(wait) => return Some(wait),
        }
        None
    }

    /// Runs the command that is due in a transaction on the slow lane; says what it waits for if it has not ended.
    pub(super) async fn run_slow_in_exec(&mut self) -> Option<Wait> {
        let mut exec = self.client.exec.take()?;
        let server = Arc::clone(self.server());
        let started = Instant::now();
        let suspended = exec.take_suspended();
        let slow = self.start_slow(exec.due(&server), suspended).await;
        if let Some(suspended) = slow.transaction {
            exec.put_back(suspended);
        }
        let wait = match slow.ended {
            Ok(ended) => {
                self.end_due(&mut exec, ended, slow.reply, started.elapsed());
                None
            }
            Err(wait) => Some(wait),
        };
        self.client.exec = Some(exec);
        wait
    }

    /// Ends the command that is due in a transaction, with a reply that was made elsewhere.
    pub(super) fn end_due(
        &mut self,
        exec: &mut Exec,
        ended: Ended,
        reply: Output,
        elapsed: Duration,
    ) {
        let Connection {
            worker,
            client,
            output,
            bounds,
            ..
        } = self;
        let reply_start = output.mark();
        output.append(reply);
        let outcome = Outcome {
            ended,
            elapsed,
            reply_start,
        };
        exec.end_due(worker, client, output, &bounds.records, outcome);
    }

    /// Runs a command that is a [`Handler::Slow`] on the slow lane.
    async fn start_slow(&self, call: Call<'_>, transaction: Option<Suspended>) -> Slow {
        let server = Arc::clone(self.server());
        let Handler::Slow(handler) = call.command.row.handler else {
            unreachable!("only slow handlers ask for the slow lane")
        };
        let namespace = server.databases.namespace(self.client.database());
        let mut reply = Output::new(self.output.protocol());
        let args = call.args.to_owned();
        let slow_server = Arc::clone(&server);
        let work = move || {
            let server = &slow_server;
            let mut cx = SlowCtx {
                store: &server.store,
                transaction,
                namespace,
                reply: &mut reply,
                server,
                now_ms: unix_ms(),
            };
            let done = handler(&mut cx, args.as_args());
            let transaction = cx.transaction.take();
            // A slow handler's steps wait for reads and room themselves. It asks to be run again if there was no room, for a
            // reason that whoever waits for it finds out.
            Slow {
                ended: dispatch::conclude(done, &mut reply, Mark::default()),
                reply,
                transaction,
            }
        };
        server.slow_lane.run(work).await
    }
}
