//! The configuration: what the operator wrote, what `CONFIG` shows and changes, what the server
//! reads.
//!
//! [`table`] has one row for each directive; everything else follows from it. [`Config`] holds the
//! value of each row and publishes them as typed [`Settings`]. A worker keeps a [`SettingsReader`],
//! whose reads cost one atomic load, so a change reaches every worker by its next read.
//!
//! Invariants: the published settings always belong to values that were accepted together; a
//! `CONFIG SET` that fails anywhere leaves values and settings as they were.

mod default_user;
mod include;
pub(crate) mod machine;
mod parse;
mod rewrite;
mod settings;
mod source;
mod syntax;
pub(crate) mod table;
pub(crate) mod usable;
mod value;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::cli::Cli;
use crate::glob;
use machine::{Machine, affordable_workers, maxmemory_floor_bytes};
pub(crate) use settings::{
    BindAddress, IoBackend, LogLevel, OomScore, Origin, Permission, RenamedCommand, Settings,
    ShutdownOptions, Syslog,
};
use source::Entry;
pub(crate) use source::Written;
use table::{Access, DIRECTIVES, Effect};
use value::{Kind, Value};

/// What `maxmemory 0` takes of the memory of the machine or the cgroup.
const AUTOMATIC_SHARE_PERCENT: u64 = 60;

/// Why the configuration cannot be used: one line with the place, the directive and what is allowed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ConfigError(String);

impl ConfigError {
    fn new(line: String) -> ConfigError {
        ConfigError(line)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// Why a new value could not be put into effect.
#[derive(Debug)]
pub(crate) struct ApplyError {
    /// The directive's name.
    pub(crate) directive: &'static str,
    pub(crate) reason: String,
}

/// The configuration of a running server; shared by all threads.
pub(crate) struct Config {
    /// The file to rewrite, absolute.
    file: Option<PathBuf>,
    automatic_maxmemory_bytes: u64,
    /// Where each row of the table was set at the start, if it was.
    places: Vec<Option<String>>,
    /// The values without any configuration, one for each row of the table.
    defaults: Vec<Value>,
    /// The current values, one for each row. Held for the whole of a `CONFIG SET`.
    values: Mutex<Vec<Value>>,
    published: RwLock<Arc<Settings>>,
    /// Rises with each publication.
    version: AtomicU64,
}

impl Config {
    /// Reads everything that `cli` names, in the order file, standard input, command line; what
    /// comes later wins. Returns the configuration and one line for each directive that was set to
    /// something unusual but does nothing here.
    pub(crate) fn load(cli: &Cli) -> Result<(Config, Vec<String>), ConfigError> {
        Config::load_on(Machine::detect(), cli, io::stdin().lock())
    }

    fn load_on(
        machine: Machine,
        cli: &Cli,
        stdin: impl Read,
    ) -> Result<(Config, Vec<String>), ConfigError> {
        let mut draft = Draft::new();
        if let Some(file) = &cli.file {
            draft.take(source::read_file(file)?)?;
        }
        if cli.reads_stdin {
            draft.take(source::read_stream(stdin)?)?;
        }
        draft.take(source::expand(&cli.directives)?)?;
        draft.take_user()?;
        let notices = draft.notices();
        let automatic_maxmemory_bytes = draft.fit_to(machine)?;
        let Draft {
            values,
            defaults,
            places,
        } = draft;
        let file = match &cli.file {
            Some(file) => Some(std::path::absolute(file).map_err(|error| {
                ConfigError::new(format!("{}: {}", file.display(), plain(&error)))
            })?),
            None => None,
        };
        let settings = Settings::new(&values, automatic_maxmemory_bytes);
        let config = Config {
            file,
            automatic_maxmemory_bytes,
            places,
            defaults,
            values: Mutex::new(values),
            published: RwLock::new(Arc::new(settings)),
            version: AtomicU64::new(0),
        };
        Ok((config, notices))
    }

    /// The configuration file, absolute, if there is one.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Where the directive called `name` was set at the start, if it was: file and line, or the command line.
    pub(crate) fn place(&self, name: &str) -> Option<&str> {
        self.places[known_row(name)].as_deref()
    }

    /// The current settings.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.published.read())
    }

    /// `CONFIG GET`: names and values of all directives that one of `patterns` names or matches,
    /// each once; letter case does not count. A name without wildcards comes back as it was given.
    pub(crate) fn get(&self, patterns: &[&[u8]]) -> Vec<(String, Vec<u8>)> {
        let values = self.values.lock();
        let mut found: Vec<(String, Vec<u8>)> = Vec::new();
        let mut push = |name: &str, row: usize| {
            if DIRECTIVES[row].access != Access::FileOnly
                && !found
                    .iter()
                    .any(|(known, _)| known.eq_ignore_ascii_case(name))
            {
                found.push((name.to_owned(), values[row].print()));
            }
        };
        for pattern in patterns {
            if !include::is_pattern(pattern) {
                // Hidden ones, too.
                if let Some((row, _)) = table::find(pattern) {
                    push(&String::from_utf8_lossy(pattern), row);
                }
                continue;
            }
            let shown = DIRECTIVES.iter().enumerate();
            for (row, directive) in shown.filter(|(_, directive)| !directive.hidden) {
                let names = directive.names();
                for name in names.filter(|n| glob::matches_nocase(pattern, n.as_bytes())) {
                    push(name, row);
                }
            }
        }
        found
    }

    /// `CONFIG SET`: changes all of `pairs` (name and value) or nothing.
    ///
    /// `apply` puts the new settings into effect where reading them is not enough (the memory of
    /// the engine, the score of the process); it is given the names of the directives that changed.
    /// If it fails, it is called once more with the old settings, whose result does not count, and
    /// nothing has changed. The settings are published after `apply`.
    ///
    /// Returns a line for the log for each directive that changed and does nothing here. The error
    /// is the reply, with its `ERR`.
    pub(crate) fn set(
        &self,
        pairs: &[(&[u8], &[u8])],
        origin: Origin,
        mut apply: impl FnMut(&Settings, &[&'static str]) -> Result<(), ApplyError>,
    ) -> Result<Vec<String>, String> {
        let mut values = self.values.lock();
        let rows = settable_rows(pairs, settings::protected_configs(&values), origin)?;
        let mut changed_values = values.clone();
        for ((row, name), (_, text)) in rows.iter().zip(pairs) {
            let words = config_set_words(&DIRECTIVES[*row].kind, text);
            let start = match DIRECTIVES[*row].kind {
                Kind::Save => Value::Save(Vec::new()),
                _ => changed_values[*row].clone(),
            };
            changed_values[*row] =
                parse_words(*row, &words, &start).map_err(|reason| set_failed(name, &reason))?;
        }
        let changed: Vec<usize> = (0..DIRECTIVES.len())
            .filter(|row| changed_values[*row] != values[*row])
            .collect();
        if changed.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<&'static str> = changed.iter().map(|row| DIRECTIVES[*row].name).collect();
        let settings = Settings::new(&changed_values, self.automatic_maxmemory_bytes);
        if let Err(error) = apply(&settings, &names) {
            // The state before was in effect, so putting it back is expected to work; if it does
            // not, there is no better state to go to.
            let _ = apply(&self.settings(), &names);
            return Err(set_failed(error.directive, &error.reason));
        }
        *values = changed_values;
        *self.published.write() = Arc::new(settings);
        // Pairs with the Acquire in `SettingsReader::get`.
        self.version.fetch_add(1, Ordering::Release);
        Ok(changed.iter().filter_map(|row| no_meaning(*row)).collect())
    }

    /// `CONFIG REWRITE`: brings the configuration file up to date with the current values. The
    /// error is the reply, with its `ERR`.
    pub(crate) fn rewrite(&self) -> Result<(), String> {
        let Some(file) = &self.file else {
            return Err("ERR The server is running without a config file".to_owned());
        };
        let values = self.values.lock();
        rewrite::rewrite_file(file, &values, &self.defaults)
            .map_err(|error| format!("ERR Rewriting config file: {}", plain(&error)))
    }
}

/// Whether the value of the directive called `name` is a secret.
pub(crate) fn is_sensitive(name: &[u8]) -> bool {
    table::find(name).is_some_and(|(row, _)| DIRECTIVES[row].sensitive)
}

/// One thread's view of the settings: a read costs one atomic load while nothing changes.
pub(crate) struct SettingsReader {
    config: Arc<Config>,
    version: u64,
    settings: Arc<Settings>,
}

impl SettingsReader {
    pub(crate) fn new(config: Arc<Config>) -> SettingsReader {
        // The version is read first: settings published in between are only fetched once more.
        let version = config.version.load(Ordering::Acquire);
        let settings = config.settings();
        SettingsReader {
            config,
            version,
            settings,
        }
    }

    /// The current settings.
    pub(crate) fn get(&mut self) -> &Settings {
        // Pairs with the Release in `Config::set`: who sees the version sees the settings.
        let version = self.config.version.load(Ordering::Acquire);
        if version != self.version {
            self.settings = self.config.settings();
            self.version = version;
        }
        &self.settings
    }
}

/// Values on their way from text to a configuration.
struct Draft {
    values: Vec<Value>,
    defaults: Vec<Value>,
    /// The place that last set each row, if any did.
    places: Vec<Option<String>>,
}

impl Draft {
    fn new() -> Draft {
        let defaults: Vec<Value> = DIRECTIVES
            .iter()
            .map(table::Directive::default_value)
            .collect();
        Draft {
            values: defaults.clone(),
            defaults,
            places: vec![None; DIRECTIVES.len()],
        }
    }

    fn take(&mut self, entries: Vec<Entry>) -> Result<(), ConfigError> {
        entries
            .into_iter()
            .try_for_each(|entry| self.take_one(entry))
    }

    fn take_one(&mut self, Entry { name, line }: Entry) -> Result<(), ConfigError> {
        let written = String::from_utf8_lossy(&name).into_owned();
        let Some((row, found)) = table::find(&name) else {
            return Err(ConfigError::new(format!(
                "{}: unknown directive '{written}'{}",
                line.place,
                suggestion(&name)
            )));
        };
        let kind = &DIRECTIVES[row].kind;
        let start = match self.places[row] {
            Some(_) => self.values[row].clone(),
            None => first_value(row, &self.defaults[row]),
        };
        let value = match (kind, start) {
            (
                Kind::Lines {
                    min_words,
                    max_words,
                },
                Value::Lines(mut lines),
            ) if (*min_words..=*max_words).contains(&line.words.len()) => {
                lines.push(line.clone());
                Ok(Value::Lines(lines))
            }
            // As in Redis all words may also be given as one: `--save "900 1 300 10"`.
            (kind, start) => match line.words.as_slice() {
                [all] => parse_words(row, &config_set_words(kind, all), &start),
                words => parse_words(row, words, &start),
            },
        };
        self.values[row] = value.map_err(|reason| {
            let given = line.words.join(&b' ');
            let given = if DIRECTIVES[row].sensitive {
                b"(hidden)".to_vec()
            } else {
                given
            };
            let given = String::from_utf8_lossy(&given);
            let allowed = kind.allowed();
            ConfigError::new(format!(
                "{}: {found} '{given}': {reason} (allowed: {allowed})",
                line.place
            ))
        })?;
        self.places[row] = Some(line.place);
        Ok(())
    }

    /// Makes `requirepass` of what the line of `user` says. Refuses what would restrict users.
    fn take_user(&mut self) -> Result<(), ConfigError> {
        let aclfile = known_row("aclfile");
        if let (Some(place), false) = (
            &self.places[aclfile],
            self.values[aclfile] == self.defaults[aclfile],
        ) {
            return Err(ConfigError::new(format!(
                "{place}: aclfile: there are no users beside the default one (allowed: \"\"; a password can be given \
                 with requirepass)"
            )));
        }
        let Value::Lines(lines) = &self.values[known_row("user")] else {
            unreachable!("user is a directive of lines")
        };
        let line = match lines.as_slice() {
            [] => return Ok(()),
            [line] => line,
            [_, second, ..] => {
                return Err(ConfigError::new(format!(
                    "{}: user: the default user is given twice (allowed: once)",
                    second.place
                )));
            }
        };
        let place = line.place.clone();
        let password = Value::Text(default_user::password(line)?);
        let requirepass = known_row("requirepass");
        let has_other = self.values[requirepass] != self.defaults[requirepass]
            && self.values[requirepass] != password;
        if let (Some(other), true) = (&self.places[requirepass], has_other) {
            return Err(ConfigError::new(format!(
                "{place}: user: the password is another than that of requirepass, {other} (allowed: one password)"
            )));
        }
        self.values[requirepass] = password;
        self.places[requirepass] = Some(place);
        Ok(())
    }

    /// A line for each directive that does nothing here but was given an unusual value.
    fn notices(&self) -> Vec<String> {
        let notice = |(row, place): (usize, &Option<String>)| {
            let place = place.as_ref()?;
            // `save ""` asks for what is the case.
            let usual = [&self.defaults[row], &Value::Save(Vec::new())];
            if usual.contains(&&self.values[row]) {
                return None;
            }
            no_meaning(row).map(|text| format!("{place}: {text}"))
        };
        self.places.iter().enumerate().filter_map(notice).collect()
    }

    /// Resolves what depends on the machine: the number of workers if none is configured, and the
    /// automatic `maxmemory`, which is returned. Refuses a `maxmemory` below the floor.
    fn fit_to(&mut self, machine: Machine) -> Result<u64, ConfigError> {
        let (io_threads, maxmemory) = (known_row("io-threads"), known_row("maxmemory"));
        let automatic = machine
            .memory_bytes
            .map(|bytes| bytes / 100 * AUTOMATIC_SHARE_PERCENT);
        let configured = match self.values[maxmemory] {
            Value::Bytes(bytes) if bytes > 0 => Some(bytes),
            _ => None,
        };
        let Some(maxmemory_bytes) = configured.or(automatic) else {
            return Err(ConfigError::new(
                "maxmemory 0: this system does not tell its memory (allowed: a size such as 1gb)"
                    .to_owned(),
            ));
        };
        if self.places[io_threads].is_none() {
            let workers = machine
                .cpus
                .min(affordable_workers(maxmemory_bytes))
                .min(MAX_WORKERS);
            self.values[io_threads] = Value::Integer(workers as i64);
            self.defaults[io_threads] = Value::Integer(workers as i64);
        }
        let workers = match self.values[io_threads] {
            Value::Integer(workers) => workers as usize,
            ref other => unreachable!("io-threads is {other:?}"),
        };
        let floor_bytes = maxmemory_floor_bytes(workers);
        if maxmemory_bytes < floor_bytes {
            let place = self.places[maxmemory].as_deref().unwrap_or("this machine");
            return Err(ConfigError::new(format!(
                "{place}: maxmemory {maxmemory_bytes} is too small for io-threads {workers} (allowed: \
                 {} or more, or fewer io-threads)",
                syntax::format_memory(floor_bytes)
            )));
        }
        Ok(automatic.unwrap_or(maxmemory_bytes))
    }
}

/// The most workers, as the table has it for `io-threads`.
const MAX_WORKERS: usize = 1024;

/// The row of a directive that the table has.
fn known_row(name: &str) -> usize {
    match table::find(name.as_bytes()) {
        Some((row, _)) => row,
        None => unreachable!("no directive is called {name}"),
    }
}

/// What the first line of a directive starts from: lines of `save` replace the default rules, those
/// of `client-output-buffer-limit` change the default of the classes they name.
fn first_value(row: usize, default: &Value) -> Value {
    match DIRECTIVES[row].kind {
        Kind::Save => Value::Save(Vec::new()),
        _ => default.clone(),
    }
}

fn parse_words(row: usize, words: &[Vec<u8>], start: &Value) -> Result<Value, String> {
    match DIRECTIVES[row].kind {
        Kind::Lines { .. } => Err("wrong number of arguments".to_owned()),
        ref kind => kind.parse(words, start),
    }
}

/// The words that one argument has for a directive: they are separated by single blanks.
fn config_set_words(kind: &Kind, text: &[u8]) -> Vec<Vec<u8>> {
    if kind.takes_many_words() {
        text.split(|byte| *byte == b' ')
            .map(<[u8]>::to_vec)
            .collect()
    } else {
        vec![text.to_vec()]
    }
}

/// The rows that `pairs` name, each with the name it was found by, if all of them may be set.
fn settable_rows(
    pairs: &[(&[u8], &[u8])],
    protected: Permission,
    origin: Origin,
) -> Result<Vec<(usize, &'static str)>, String> {
    let mut rows: Vec<(usize, &'static str)> = Vec::with_capacity(pairs.len());
    for (given, _) in pairs {
        let shown = String::from_utf8_lossy(given);
        let found =
            table::find(given).filter(|(row, _)| DIRECTIVES[*row].access != Access::FileOnly);
        let Some((row, name)) = found else {
            return Err(format!(
                "ERR Unknown option or number of arguments for CONFIG SET - '{shown}'"
            ));
        };
        match DIRECTIVES[row].access {
            Access::Immutable => return Err(set_failed(&shown, "can't set immutable config")),
            Access::Protected if !protected.admits(origin) => {
                return Err(set_failed(&shown, "can't set protected config"));
            }
            _ => {}
        }
        if rows.iter().any(|(_, known)| *known == name) {
            return Err(set_failed(&shown, "duplicate parameter"));
        }
        rows.push((row, name));
    }
    Ok(rows)
}

fn set_failed(name: &str, reason: &str) -> String {
    format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {reason}")
}

/// An error of the system in the words of `strerror`.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error ").next().unwrap_or(&text).to_owned()
}

/// The line that says that a directive does nothing, if it does nothing.
fn no_meaning(row: usize) -> Option<String> {
    match DIRECTIVES[row].effect {
        Effect::NoMeaning(why) => Some(format!("{} has no effect: {why}", DIRECTIVES[row].name)),
        Effect::Works(_) => None,
    }
}

/// `, did you mean 'maxmemory'?` if one slip of the fingers makes `name` of a known name.
fn suggestion(name: &[u8]) -> String {
    let name = name.to_ascii_lowercase();
    let mut names = DIRECTIVES.iter().flat_map(table::Directive::names);
    match names.find(|known| is_one_edit(known.as_bytes(), &name)) {
        Some(known) => format!(", did you mean '{known}'?"),
        None => {
            " (allowed: the directives of Redis 7.2 and those in docs/configuration.md)".to_owned()
        }
    }
}

/// Whether one replaced, missing, additional or swapped letter makes `b` of `a`.
fn is_one_edit(a: &[u8], b: &[u8]) -> bool {
    let same_front = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let (a, b) = (&a[same_front..], &b[same_front..]);
    match (a, b) {
        ([x, y, a_rest @ ..], [v, w, b_rest @ ..]) if x == w && y == v => a_rest == b_rest,
        ([_, a_rest @ ..], [_, b_rest @ ..]) if a.len() == b.len() => a_rest == b_rest,
        ([_, a_rest @ ..], b) if a_rest == b => true,
        (a, [_, b_rest @ ..]) => a == b_rest,
        _ => false,
    }
}
