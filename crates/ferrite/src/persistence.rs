//! Saving and loading, as a Redis user knows them: BGSAVE and its status, save rules, LOADING, and why changes are
//! refused when nothing can be written. The engine makes the checkpoints and keeps the command log; here is what is
//! known about them beyond that.
//!
//! A snapshot (SAVE, BGSAVE, a save rule) and a rewrite of the command log (BGREWRITEAOF) are both a checkpoint. One
//! is made at a time; unlike in Redis nothing is forked, and clients are served meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hybridlog::Health;
use parking_lot::Mutex;

use crate::config::Settings;
use crate::log;
use crate::server::{Server, unix_ms};
use crate::sys::error_text;

/// A snapshot that has failed is tried again after so long; after each further failure twice as long, up to a limit.
const RETRY: Duration = Duration::from_secs(2);
const RETRY_MAX: Duration = Duration::from_secs(30);

const SNAPSHOT_REFUSAL: &str = "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist \
    to disk. Commands that may modify the data set are disabled, because this instance is configured to report errors \
    during writes if RDB snapshotting fails (stop-writes-on-bgsave-error option). Please check the Redis logs for \
    details about the RDB error.";

/// What a checkpoint is made for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    Snapshot,
    Rewrite,
}

/// What became of a request for a checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Begun {
    Started,
    /// One is being made for this purpose, which the request did not lead to.
    Running(Purpose),
}

/// What BGSAVE CANCEL found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cancelled {
    Running,
    Scheduled,
    Nothing,
}

/// The state of saving and loading.
pub(crate) struct Persistence {
    is_loading: AtomicBool,
    pub(crate) loading_since_ms: u64,
    /// Why changes are refused; looked at only if `refuses`.
    refusal: Mutex<Option<String>>,
    refuses: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: Option<(Purpose, Instant)>,
    scheduled: Option<Purpose>,
    is_cancelled: bool,
    snapshots: Snapshots,
    /// When the last snapshot was tried.
    tried: Option<Instant>,
    /// Snapshots that have failed since the last one that did not.
    failures: u32,
}

/// What is known about snapshots.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Snapshots {
    pub(crate) has_failed: bool,
    pub(crate) made: u64,
    pub(crate) last_took: Option<Duration>,
    /// Since when one is being made.
    pub(crate) running_since: Option<Instant>,
    /// Whether a rewrite is to follow.
    pub(crate) rewrite_is_scheduled: bool,
}

impl Persistence {
    /// Nothing has been loaded yet.
    pub(crate) fn new() -> Self {
        Persistence {
            is_loading: AtomicBool::new(true),
            loading_since_ms: unix_ms(),
            refusal: Mutex::default(),
            refuses: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    /// Whether the data is still being loaded.
    #[inline]
    pub(crate) fn is_loading(&self) -> bool {
        // Acquire pairs with the Release in `end_loading`: who may run commands sees what has been loaded.
        self.is_loading.load(std::sync::atomic::Ordering::Acquire)
    }

    pub(crate) fn end_loading(&self) {
        self.is_loading
            .store(false, std::sync::atomic::Ordering::Release);
    }

    /// Why changes are refused, if they are.
    #[inline]
    pub(crate) fn refusal(&self) -> Option<String> {
        if self.refuses.load(Relaxed) {
            self.refusal.lock().clone()
        } else {
            None
        }
    }

    pub(crate) fn snapshots(&self) -> Snapshots {
        let state = self.state.lock();
        let running = state
            .running
            .filter(|(purpose, _)| *purpose == Purpose::Snapshot);
        Snapshots {
            running_since: running.map(|(_, since)| since),
            rewrite_is_scheduled: state.scheduled == Some(Purpose::Rewrite),
            ..state.snapshots
        }
    }
}

/// Changes since the last checkpoint, whoever has asked for that.
pub(crate) fn unsaved_changes(server: &Server) -> u64 {
    let saved = server.store.checkpoint_status().last;
    let saved = saved.map_or(0, |made| made.changes);
    server.stats.changes().saturating_sub(saved)
}

/// Begins a checkpoint in the background, unless one is being made.
pub(crate) fn begin(server: &Arc<Server>, purpose: Purpose) -> Begun {
    let mut state = server.persistence.state.lock();
    if let Some((running, _)) = state.running {
        return Begun::Running(running);
    }
    state.begin(purpose);
    drop(state);
    let server = Arc::clone(server);
    tokio::task::spawn_blocking(move || {
        let mut next = Some(purpose);
        while let Some(purpose) = next {
            // The log has said why it failed, if it did.
            let _ = make(&server, purpose);
            next = server.persistence.end();
        }
    });
    Begun::Started
}

/// Makes a snapshot and returns when it is made; `None` if one is being made already. Blocks the thread.
pub(crate) fn save(server: &Server) -> Option<Result<(), String>> {
    {
        let mut state = server.persistence.state.lock();
        if state.running.is_some() {
            return None;
        }
        state.begin(Purpose::Snapshot);
    }
    let result = make(server, Purpose::Snapshot);
    while let Some(scheduled) = server.persistence.end() {
        // As above.
        let _ = make(server, scheduled);
    }
    Some(result)
}

/// Lets a checkpoint follow the one that is being made.
pub(crate) fn schedule(server: &Arc<Server>, purpose: Purpose) {
    {
        let mut state = server.persistence.state.lock();
        if state.running.is_some() {
            state.scheduled = Some(purpose);
            return;
        }
    }
    // It has ended in between.
    begin(server, purpose);
}

/// BGSAVE CANCEL.
pub(crate) fn cancel(server: &Server) -> Cancelled {
    let mut state = server.persistence.state.lock();
    if let Some((Purpose::Snapshot, _)) = state.running {
        state.is_cancelled = server.store.cancel_checkpoint();
        Cancelled::Running
    } else if state.scheduled == Some(Purpose::Snapshot) {
        state.scheduled = None;
        Cancelled::Scheduled
    } else {
        Cancelled::Nothing
    }
}

impl State {
    fn begin(&mut self, purpose: Purpose) {
        self.running = Some((purpose, Instant::now()));
        self.is_cancelled = false;
        if purpose == Purpose::Snapshot {
            self.tried = Some(Instant::now());
        }
    }
}

impl Persistence {
    /// The checkpoint that was being made is over; what has been scheduled begins.
    fn end(&self) -> Option<Purpose> {
        let mut state = self.state.lock();
        let next = state.scheduled.take();
        match next {
            Some(purpose) => state.begin(purpose),
            None => state.running = None,
        }
        next
    }
}

/// Makes a checkpoint and takes note of how that went.
fn make(server: &Server, purpose: Purpose) -> Result<(), String> {
    let what = match purpose {
        Purpose::Snapshot => "Saving",
        Purpose::Rewrite => "Append only file rewriting",
    };
    log::notice(format_args!("{what} started"));
    let result = server.store.checkpoint();
    let mut state = server.persistence.state.lock();
    match &result {
        Ok(made) => {
            log::notice(format_args!(
                "{what} terminated with success after {:.3} seconds",
                made.took.as_secs_f64()
            ));
        }
        Err(_) if state.is_cancelled => log::notice(format_args!("{what} cancelled")),
        Err(why) => log::warning(format_args!("{what} error: {why}")),
    }
    if purpose == Purpose::Snapshot && !(result.is_err() && state.is_cancelled) {
        match &result {
            Ok(made) => {
                state.failures = 0;
                state.snapshots.made += 1;
                state.snapshots.last_took = Some(made.took);
            }
            Err(_) => state.failures = state.failures.saturating_add(1),
        }
        state.snapshots.has_failed = result.is_err();
    }
    result.map(drop)
}

/// Turns the command log on or off, with a checkpoint in the background.
pub(crate) fn set_command_log(server: &Arc<Server>, on: bool) {
    let server = Arc::clone(server);
    tokio::task::spawn_blocking(move || {
        let switched = if on { "on" } else { "off" };
        match server.store.set_command_log(on) {
            Ok(()) => log::notice(format_args!("The command log is {switched}")),
            // The next checkpoint will do it.
            Err(why) => log::warning(format_args!(
                "Can't switch the command log {switched}: {why}"
            )),
        }
    });
}

/// One round of background work: the rules.
pub(crate) fn look(server: &Arc<Server>, settings: &Settings) {
    refresh_refusal(server, settings);
    if is_retry_due(server) {
        log::notice("The last attempt to save has failed. Trying again...");
        begin(server, Purpose::Snapshot);
    } else if let Some((changes, seconds)) = due_rule(server, settings) {
        log::notice(format_args!(
            "{changes} changes in {seconds} seconds. Saving..."
        ));
        begin(server, Purpose::Snapshot);
    }
}

/// Whether the last snapshot has failed, some time ago: clients may be refused until one succeeds.
fn is_retry_due(server: &Server) -> bool {
    // After a failed sync none succeeds any more.
    if matches!(server.store.log_health(), Health::Poisoned(_)) {
        return false;
    }
    let state = server.persistence.state.lock();
    if state.running.is_some() || state.failures == 0 {
        return false;
    }
    let doublings = (state.failures - 1).min(16);
    let pause = (RETRY * (1 << doublings)).min(RETRY_MAX);
    state.tried.is_none_or(|tried| tried.elapsed() >= pause)
}

/// The rule by which a snapshot is due: changes, and seconds since the last one.
fn due_rule(server: &Server, settings: &Settings) -> Option<(u64, u64)> {
    {
        let state = server.persistence.state.lock();
        if state.running.is_some() || state.failures > 0 {
            return None;
        }
    }
    let changes = unsaved_changes(server);
    let since_seconds = unix_ms().saturating_sub(last_saved_ms(server)) / 1000;
    let mut rules = settings.save.iter();
    let due = rules.find(|rule| changes >= rule.changes && since_seconds > rule.seconds)?;
    Some((due.changes, due.seconds))
}

/// When the last checkpoint was made, or else when the server started, Unix milliseconds.
pub(crate) fn last_saved_ms(server: &Server) -> u64 {
    let last = server.store.checkpoint_status().last;
    last.map_or(server.persistence.loading_since_ms, |made| made.at_ms)
}

/// Finds out whether changes are to be refused.
pub(crate) fn refresh_refusal(server: &Server, settings: &Settings) {
    let persistence = &server.persistence;
    let snapshots_fail = settings.stop_writes_on_save_error
        && !settings.save.is_empty()
        && persistence.state.lock().snapshots.has_failed;
    let refusal = if snapshots_fail {
        Some(SNAPSHOT_REFUSAL.to_owned())
    } else {
        log_refusal(server)
    };
    let mut current = persistence.refusal.lock();
    if *current != refusal {
        match (&refusal, server.store.log_health()) {
            (Some(_), Health::CannotWrite(why) | Health::Poisoned(why)) if !snapshots_fail => {
                log::warning(format_args!("Changes are refused: {why}"));
            }
            (Some(why), _) => log::warning(format_args!("Changes are refused: {why}")),
            (None, _) => log::notice("Changes are accepted again"),
        }
        persistence.refuses.store(refusal.is_some(), Relaxed);
        *current = refusal;
    }
}

/// Why the command log lets nothing be changed, if so, in Redis's words.
pub(crate) fn log_refusal(server: &Server) -> Option<String> {
    match server.store.log_health() {
        Health::Ok => None,
        Health::CannotWrite(why) | Health::Poisoned(why) => {
            let reason = reason(&why);
            Some(format!("MISCONF Errors writing to the AOF file: {reason}"))
        }
    }
}

/// What is wrong, in the words of the system, of an error's line: which file it is, and where, is for the log.
pub(crate) fn reason(why: &str) -> String {
    let text = error_text(&why);
    text.rsplit(": ").next().unwrap_or_default().to_owned()
}
