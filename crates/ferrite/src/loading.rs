//! Loading the data at start. The server listens from the beginning, but until everything is there its clients get
//! LOADING, except for the few commands that need no data.

use std::sync::Arc;
use std::time::Duration;

use hybridlog::RecoveryStats;

use crate::commands::clear_database;
use crate::log;
use crate::server::Server;

/// How often the log says how far it is.
const REPORT: Duration = Duration::from_secs(2);

/// Loads what the data directory holds. The error is one line: what is missing, damaged or cannot be read.
pub(crate) async fn load(server: &Arc<Server>) -> Result<(), String> {
    let store = Arc::clone(&server.store);
    let mut recovery = tokio::task::spawn_blocking(move || store.recover());
    let recovered = loop {
        match tokio::time::timeout(REPORT, &mut recovery).await {
            Ok(recovered) => break recovered.expect("a panic ends the process"),
            Err(_) => report_progress(&server.store.recovery_stats()),
        }
    };
    recovered.map_err(|error| error.to_string())?;
    report(&server.store.recovery_stats());
    let keys = |namespace| server.store.len(namespace);
    let leftover = server.databases.restore(&server.store.state(), keys)?;
    for namespace in leftover {
        clear_database(server, namespace);
    }
    server.persistence.end_loading();
    Ok(())
}

fn report_progress(stats: &RecoveryStats) {
    log::notice(format_args!(
        "Loading: {} of {} segments, {} of {} bytes of the command log, after {} seconds",
        stats.segments_read,
        stats.segments,
        stats.log_bytes_read,
        stats.log_bytes,
        stats.took.as_secs()
    ));
}

fn report(stats: &RecoveryStats) {
    if stats.segments > 0 || stats.log_bytes > 0 {
        log::notice(format_args!(
            "Loaded {} records of {} segments and {} changes ({} bytes) of the command log: {:.3} seconds",
            stats.records,
            stats.segments,
            stats.frames,
            stats.log_bytes,
            stats.took.as_secs_f64()
        ));
    }
    if stats.cut_bytes > 0 {
        log::warning(format_args!(
            "A crash has torn off the end of the command log: its last {} bytes were no whole change and have been cut",
            stats.cut_bytes
        ));
    }
}
