//! The Ferrite server.

mod admission;
mod args;
mod background;
mod blocking;
mod bus_error;
mod cli;
mod client;
mod command;
mod commands;
mod config;
mod connection;
mod ctx;
mod databases;
mod dispatch;
mod exec;
mod field_expiry;
mod finished;
mod geo;
mod glob;
mod heap;
mod hyperloglog;
mod inbox;
mod inspect;
mod latency;
mod listener;
mod loading;
mod log;
mod memory;
mod output;
mod pause;
mod persistence;
mod process;
mod rdb;
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
        Ok(Invocation::Check(directory)) => return inspect::check(&directory),
        Ok(Invocation::Repair(directory)) => return inspect::repair(&directory),
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
    config::usable::check(&config).map_err(|error| error.to_string())?;
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
    if let Err(error) = bus_error::watch(settings.logfile.as_deref()) {
        log::warning(format_args!(
            "Can't watch for SIGBUS: {}",
            sys::error_text(&error)
        ));
    }
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
    // The workers, and one arena for all other threads.
    heap::set_up(settings.workers + 1);
    let store = storage::start(settings)?;
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
    runtime.block_on(run(&server, workers, settings))?;
    runtime.shutdown_background();
    shutdown::finish(&server);
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

/// Loads the data, then does the background work until a signal or SHUTDOWN asks the server to stop, then stops it.
async fn run(
    server: &Arc<Server>,
    workers: Vec<WorkerThread>,
    settings: &Settings,
) -> Result<(), String> {
    let mut signals = Signals::watch()?;
    tokio::select! {
        loaded = loading::load(server) => loaded?,
        signal = signals.next() => {
            log::warning(format_args!("Received SIG{} during loading, exiting now.", signal.name()));
            sys::exit_now(0);
        }
        () = server.shutdown.asked() => {
            log::warning("User requested shutdown during loading, exiting now.");
            sys::exit_now(0);
        }
    }
    server.memory.note_base(settings);
    announce(server, settings);
    let background = tokio::spawn(background::run(Arc::clone(server)));
    stop_asked(server, &mut signals).await;
    background.abort();
    finish(workers, &mut signals.interrupt, settings.shutdown_timeout).await;
    Ok(())
}

fn announce(server: &Server, settings: &Settings) {
    if server.port != 0 {
        log::notice(format_args!(
            "Ready to accept connections on port {}",
            server.port
        ));
    }
    if let Some(path) = &settings.unixsocket {
        log::notice(format_args!(
            "Ready to accept connections at {}",
            path.display()
        ));
    }
}

/// Waits until the server is to stop, and has saved what is to be saved.
async fn stop_asked(server: &Arc<Server>, signals: &mut Signals) {
    loop {
        let signal = tokio::select! {
            () = server.shutdown.asked() => return,
            signal = signals.next() => signal,
        };
        log::notice(format_args!(
            "Received SIG{} scheduling shutdown...",
            signal.name()
        ));
        let settings = server.config.settings();
        let options = match signal {
            StopSignal::Interrupt => settings.shutdown_on_sigint,
            StopSignal::Terminate => settings.shutdown_on_sigterm,
        };
        let preparing = Arc::clone(server);
        let prepared = tokio::task::spawn_blocking(move || shutdown::prepare(&preparing, options));
        tokio::select! {
            prepared = prepared => {
                if prepared.expect("a panic ends the process").is_ok() {
                    return;
                }
            }
            _ = signals.interrupt.recv() => {
                log::warning("You insist... exiting now.");
                sys::exit_now(1);
            }
        }
    }
}

#[derive(Clone, Copy)]
enum StopSignal {
    Interrupt,
    Terminate,
}

impl StopSignal {
    fn name(self) -> &'static str {
        match self {
            StopSignal::Interrupt => "INT",
            StopSignal::Terminate => "TERM",
        }
    }
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// A closed terminal must not end a daemon.
    _hangup: Signal,
    /// A file that may not grow any more is an error like others, not the end.
    _file_size: Signal,
}

impl Signals {
    fn watch() -> Result<Self, String> {
        let watch =
            |kind| signal(kind).map_err(|error| format!("can't watch for signals: {error}"));
        Ok(Signals {
            interrupt: watch(SignalKind::interrupt())?,
            terminate: watch(SignalKind::terminate())?,
            _hangup: watch(SignalKind::hangup())?,
            _file_size: watch(SignalKind::from_raw(libc::SIGXFSZ))?,
        })
    }

    /// Waits for a signal to stop.
    async fn next(&mut self) -> StopSignal {
        tokio::select! {
            _ = self.interrupt.recv() => StopSignal::Interrupt,
            _ = self.terminate.recv() => StopSignal::Terminate,
        }
    }
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
