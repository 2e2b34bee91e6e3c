//! How the server ends: asked by a signal or by SHUTDOWN, it saves what is to be saved, stops serving, and saves once
//! more what was changed meanwhile. If it cannot save, it stays, unless it is forced to end.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use tokio::sync::Notify;

use crate::config::{Settings, ShutdownOptions};
use crate::log;
use crate::persistence;
use crate::server::Server;

const RUNNING: u8 = 0;
const ENDS: u8 = 1;
const ENDS_SAVED: u8 = 2;

/// The request to stop.
#[derive(Default)]
pub(crate) struct Shutdown {
    state: AtomicU8,
    asked: Notify,
}

impl Shutdown {
    /// Asks the server to stop: workers accept no more clients, finish the commands that run, send their replies and
    /// close; then the process ends. Idempotent.
    fn begin(&self, state: u8) {
        self.state.store(state, Relaxed);
        self.asked.notify_waiters();
    }

    pub(crate) fn is_asked(&self) -> bool {
        self.state.load(Relaxed) != RUNNING
    }

    /// Waits until the server is asked to stop.
    pub(crate) async fn asked(&self) {
        let notified = self.asked.notified();
        if !self.is_asked() {
            notified.await;
        }
    }
}

/// Saves if that is to be done, then asks the server to stop. Blocks the thread.
///
/// # Errors
///
/// One line that says why nothing could be saved; the server goes on then.
pub(crate) fn prepare(server: &Server, options: ShutdownOptions) -> Result<(), String> {
    let saves = saves(&server.config.settings(), options) && !server.persistence.is_loading();
    if saves {
        log::notice("Saving the data before exiting.");
        if let Err(why) = server.store.checkpoint() {
            log::warning(format_args!("Error trying to save the data: {why}"));
            if !options.force {
                log::warning(
                    "Errors trying to shut down the server. Check the logs for more information.",
                );
                return Err(why);
            }
        }
    }
    server.shutdown.begin(if saves { ENDS_SAVED } else { ENDS });
    Ok(())
}

/// Whether a restart is to find everything in a checkpoint. With a command log it would find it there, too, but later.
fn saves(settings: &Settings, options: ShutdownOptions) -> bool {
    options
        .save
        .unwrap_or(settings.appendonly || !settings.save.is_empty())
}

/// The last thing: saves what was changed since [`prepare`], when nobody is served any more.
pub(crate) fn finish(server: &Server) {
    if server.shutdown.state.load(Relaxed) == ENDS_SAVED
        && persistence::unsaved_changes(server) > 0
        && let Err(why) = server.store.checkpoint()
    {
        log::warning(format_args!("The last changes could not be saved: {why}"));
    }
    if let Some(why) = persistence::log_refusal(server) {
        log::warning(format_args!("The last changes may be lost: {why}"));
    }
}
