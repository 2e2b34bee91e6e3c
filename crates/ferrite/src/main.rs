//! The Ferrite server.

mod args;
mod background;
mod cli;
mod client;
mod command;
mod commands;
mod config;
mod connection;
mod ctx;
mod dispatch;
mod exec;
mod glob;
mod latency;
mod listener;
mod log;
mod output;
mod pause;
mod process;
mod server;
mod shutdown;
mod slow_lane;
mod slowlog;
mod stats;
mod storage;
mod sys;
mod table;
mod transaction;
mod usage;
mod worker;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use cli::{Cli, Invocation};
use config::{Config, Settings};
use process::PidFile;
use server::Server;
use worker::WorkerThread;

fn main() -> ExitCode {
    let cli = match cli::parse(std::env::args_os().skip(1)) {
        Ok(Invocation::Run(cli)) => cli,
        Ok(Invocation::Help) => return print(cli::HELP),
        Ok(Invocation::Version) => return print(cli::VERSION),
        Ok(Invocation::CheckConfig(file)) => match cli::check_config(file) {
            Ok(line) => return print(&format!("{line}\n")),
            Err(line) => return fail(&line),
        },
        Err(line) => return fail(&line),
    };
    match start(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(line) => fail(&line),
    }
}

fn print(text: &str) -> ExitCode {
    print!("{text}");
    ExitCode::SUCCESS
}

fn fail(line: &str) -> ExitCode {
    eprintln!("ferrite: {line}");
    ExitCode::FAILURE
}

/// Reads the configuration, opens everything and serves until the server is asked to stop. An error is one line for
/// standard error, and for the log if that goes elsewhere.
fn start(cli: &Cli) -> Result<(), String> {
    let (config, notices) = Config::load(cli).map_err(|error| error.to_string())?;
    let config = Arc::new(config);
    let settings = config.settings();
    std::env::set_current_dir(&settings.dir).map_err(|error| {
        format!(
            "Can't chdir to '{}': {}",
            settings.dir.display(),
            sys::error_text(&error)
        )
    })?;
    log::open(&settings)?;
    if settings.daemonize {
        sys::daemonize()
            .map_err(|error| format!("can't daemonize: {}", sys::error_text(&error)))?;
    }
    process::abort_on_panic();
    log::notice("Ferrite is starting");
    log::notice(format_args!(
        "Ferrite version={}, bits={}, pid={}, just started",
        env!("CARGO_PKG_VERSION"),
        usize::BITS,
        std::process::id()
    ));
    match config.file() {
        Some(file) => log::notice(format_args!("Configuration loaded from {}", file.display())),
        None => log::notice("No configuration file, using the defaults and the command line"),
    }
    notices.iter().for_each(log::notice);
    let logs_elsewhere = settings.logfile.is_some() || settings.syslog.is_some();
    serve(config, &settings).inspect_err(|line| {
        if logs_elsewhere {
            log::warning(line);
        }
    })
}

fn serve(config: Arc<Config>, settings: &Settings) -> Result<(), String> {
    let (listeners, port) = listener::open(settings)?;
    let store = storage::open(settings)?;
    let server = Arc::new(Server::new(config, store, port)?);
    if server.allow_clients(settings.maxclients).is_err() {
        log::warning(format_args!(
            "maxclients has been reduced to {} to compensate for the limit of open files; if you need more, increase 'ulimit -n'",
            server.max_clients_possible()
        ));
    }
    if let Err(reason) = process::set_oom_score(settings.oom_score) {
        log::warning(format_args!("Can't set the out-of-memory score: {reason}"));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("can't start the runtime: {error}"))?;
    // Before anybody can connect, so that whoever can also finds the file.
    let _pid_file = pid_file_path(settings).and_then(|path| PidFile::create(&path));
    let mut workers = Vec::new();
    for (index, listeners) in listeners.into_iter().enumerate() {
        let worker = worker::start(Arc::clone(&server), index, listeners);
        workers.push(
            worker.map_err(|error| {
                format!("can't start worker {index}: {}", sys::error_text(&error))
            })?,
        );
    }
    if port != 0 {
        log::notice(format_args!("Ready to accept connections on port {port}"));
    }
    if let Some(path) = &settings.unixsocket {
        log::notice(format_args!(
            "Ready to accept connections at {}",
            path.display()
        ));
    }
    runtime.block_on(run(&server, workers, settings.shutdown_timeout))?;
    runtime.shutdown_background();
    if let Some(path) = &settings.unixsocket {
        // Somebody removed it already: just as well.
        let _ = std::fs::remove_file(path);
    }
    log::notice("Ferrite is now ready to exit, bye bye...");
    Ok(())
}

/// As in Redis, a daemon has a pid file even if none is configured.
fn pid_file_path(settings: &Settings) -> Option<std::path::PathBuf> {
    const DAEMON_DEFAULT: &str = "/var/run/ferrite.pid";
    settings
        .pidfile
        .clone()
        .or_else(|| settings.daemonize.then(|| DAEMON_DEFAULT.into()))
}

/// Does the background work until a signal or SHUTDOWN asks the server to stop, then stops it.
async fn run(
    server: &Arc<Server>,
    workers: Vec<WorkerThread>,
    patience: Duration,
) -> Result<(), String> {
    let watch = |kind| signal(kind).map_err(|error| format!("can't watch for signals: {error}"));
    let mut interrupt = watch(SignalKind::interrupt())?;
    let mut terminate = watch(SignalKind::terminate())?;
    // A client that goes away must not end the process, and a closed terminal must not end a daemon.
    let _hangup = watch(SignalKind::hangup())?;
    tokio::select! {
        () = background::run(Arc::clone(server)) => {}
        () = server.shutdown.asked() => log::notice("User requested shutdown..."),
        _ = interrupt.recv() => log::notice("Received SIGINT scheduling shutdown..."),
        _ = terminate.recv() => log::notice("Received SIGTERM scheduling shutdown..."),
    }
    server.shutdown.begin();
    finish(workers, &mut interrupt, patience).await;
    Ok(())
}

/// Waits for the workers to finish what they have begun, for as long as `shutdown-timeout` allows.
async fn finish(workers: Vec<WorkerThread>, interrupt: &mut Signal, patience: Duration) {
    let joined = tokio::task::spawn_blocking(move || {
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().expect("a panic ends the process"))
    });
    tokio::select! {
        ended = joined => if let Err(error) = ended.expect("a panic ends the process") {
            log::warning(format_args!("A worker ended with an error: {error}"));
        },
        _ = interrupt.recv() => {
            log::warning("You insist... exiting now.");
            sys::exit_now(1);
        }
        () = tokio::time::sleep(patience) => log::warning("Some commands did not end in time, going on without them"),
    }
}
