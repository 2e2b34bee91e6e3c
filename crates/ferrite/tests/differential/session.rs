//! One run: a schedule of commands, sent to both servers one by one or in short pipelines, and
//! what they replied.

use std::collections::VecDeque;
use std::io;

use crate::check::{Check, Pair};
use crate::command;
use crate::common::Server;
use crate::coverage::{Coverage, RUNS_MIN};
use crate::generators::{Generator, Knows};
use crate::random::Random;
use crate::source::{Command, Source};
use crate::wire::{Address, Connection, Reply, shown};

/// After this many differences a run ends: what follows are mostly consequences.
const DIFFERENCES_MAX: usize = 10;
/// The most commands sent in one piece.
const PIPELINE_MAX: usize = 8;
/// Clients that watch a key each.
const WATCHERS: usize = 6;
/// Commands shown before a difference, and how much of each.
const HISTORY: usize = 12;
const HISTORY_LINE_MAX: usize = 240;

/// Ferrite, which may be killed and started again.
pub(crate) struct Ferrite {
    /// None only while it is not running.
    server: Option<Server>,
    directives: Vec<&'static str>,
}

impl Ferrite {
    pub(crate) fn start(directives: &[&'static str]) -> Ferrite {
        Ferrite {
            server: Some(Server::start(directives)),
            directives: directives.to_vec(),
        }
    }

    fn address(&self) -> Address {
        Address::Tcp(self.server.as_ref().expect("a running server").port)
    }

    /// Kills it, or lets it end, and starts it again on the data it has left.
    fn restart(&mut self, random: &mut Random) {
        let server = self.server.take().expect("a running server");
        let dir = if random.one_in(3) {
            server.shut_down(&[])
        } else {
            server.kill()
        };
        self.server = Some(Server::start_in(dir, &self.directives));
    }
}

/// What a run is.
pub(crate) struct Plan {
    pub(crate) ferrite: Ferrite,
    pub(crate) oracle: Address,
    pub(crate) seed: u64,
    /// "2" or "3".
    pub(crate) protocol: &'static str,
    /// The oracle is as new as this.
    pub(crate) knows: Knows,
    /// Whether everything in memory is moved to disk between commands now and then.
    pub(crate) force_cold: bool,
    /// Whether Ferrite is restarted between commands now and then.
    pub(crate) restart: bool,
}

/// A run.
pub(crate) struct Session {
    plan: Plan,
    pair: Pair,
    /// Other clients, who watch keys, and what they sent last.
    watchers: Vec<Pair>,
    watched: Vec<(Command, Command)>,
    source: Source,
    coverage: Coverage,
    history: VecDeque<String>,
    differences: Vec<String>,
}

impl Session {
    pub(crate) fn open(plan: Plan) -> io::Result<Session> {
        Ok(Session {
            pair: connect(&plan)?,
            watchers: connect_watchers(&plan)?,
            watched: vec![Default::default(); WATCHERS],
            source: Source::new(plan.seed, plan.protocol),
            plan,
            coverage: Coverage::default(),
            history: VecDeque::new(),
            differences: Vec::new(),
        })
    }

    /// Runs every generator often enough, in random order, and then compares all data.
    pub(crate) fn run(mut self, generators: &[Generator]) -> io::Result<()> {
        let mut schedule: Vec<Generator> = generators
            .iter()
            .filter(|generator| {
                generator.knows == self.plan.knows
                    || generator.knows == Knows::Nobody && self.plan.knows == Knows::Redis
            })
            .flat_map(|generator| vec![*generator; RUNS_MIN * generator.weight])
            .collect();
        Random::new(!self.plan.seed).shuffle(&mut schedule);
        self.source.refill();
        self.run_pipeline(&[])?;
        let mut schedule = schedule.into_iter().peekable();
        while let Some(generator) = schedule.next() {
            if self.differences.len() >= DIFFERENCES_MAX {
                break;
            }
            if self.plan.force_cold && self.source.random.one_in(12) {
                let reply = self.pair.ferrite.call(&["DEBUG", "FORCE-COLD"])?;
                assert_eq!(reply, Reply::Simple(b"OK".to_vec()), "DEBUG FORCE-COLD");
            }
            if self.plan.restart && self.source.random.one_in(100) {
                self.restart()?;
            }
            let mut pipeline = vec![generator];
            if generator.can_be_pipelined() && self.source.random.one_in(4) {
                while pipeline.len() < PIPELINE_MAX
                    && let Some(next) = schedule.next_if(Generator::can_be_pipelined)
                {
                    pipeline.push(next);
                }
            }
            // Redis does not tell watchers of a string that BITFIELD OVERFLOW FAIL has made longer, or created, nor of what
            // becomes of the groups of a stream, nor of a HyperLogLog that PFDEBUG makes dense.
            let is_telling = !pipeline.iter().any(|made| {
                let name = made.name;
                ["bitfield", "xsetid", "xreadgroup", "xack", "pfdebug"].contains(&name)
                    || name.starts_with("xgroup")
                    || name.ends_with("claim")
            });
            let watches = is_telling && self.source.random.one_in(2);
            if watches {
                self.watch_some()?;
            }
            let can_be_queued = pipeline.iter().all(Generator::can_be_queued);
            if pipeline.len() > 1 && can_be_queued && self.source.random.one_in(2) {
                self.run_transaction(&pipeline)?;
            } else {
                self.run_pipeline(&pipeline)?;
            }
            if watches {
                self.compare_watches()?;
            }
        }
        self.coverage.print();
        // Valkey's digest leaves out that fields of hashes expire.
        let check = match self.plan.knows {
            Knows::Valkey => Check::Type,
            Knows::Redis | Knows::Nobody => Check::Exact,
        };
        self.compare(&[(command!["DEBUG", "DIGEST"], check)])?;
        let differences = self.differences.join("\n\n");
        assert!(
            self.differences.is_empty(),
            "seed {}:\n{differences}",
            self.plan.seed
        );
        self.coverage.check();
        Ok(())
    }

    /// Restarts Ferrite and compares all data.
    fn restart(&mut self) -> io::Result<()> {
        if self.source.random.one_in(3) {
            let reply = self.pair.ferrite.call(&["SAVE"])?;
            assert_eq!(reply, Reply::Simple(b"OK".to_vec()), "SAVE");
        }
        self.plan.ferrite.restart(&mut self.source.random);
        self.pair = connect(&self.plan)?;
        self.watchers = connect_watchers(&self.plan)?;
        self.history.push_back("    (restart)".to_owned());
        let mut commands = vec![command!["DEBUG", "DIGEST"]];
        for database in 0..3i64 {
            commands.push(command!["SELECT", database]);
            commands.push(command!["DBSIZE"]);
        }
        commands.push(command!["SELECT", 0]);
        let commands: Vec<_> = commands
            .into_iter()
            .map(|command| (command, Check::Exact))
            .collect();
        self.compare(&commands).map(drop)
    }

    /// Sends a command of each generator, all together, and then what they want to follow.
    fn run_pipeline(&mut self, generators: &[Generator]) -> io::Result<()> {
        let commands: Vec<_> = generators
            .iter()
            .map(|generator| (self.make(generator), generator.check))
            .collect();
        let succeeded = self.compare(&commands)?;
        for (generator, succeeded) in generators.iter().zip(succeeded) {
            self.coverage.count(generator.name, succeeded);
        }
        self.run_what_follows()
    }

    /// Sends a command of each generator in a transaction.
    fn run_transaction(&mut self, generators: &[Generator]) -> io::Result<()> {
        let mut commands = vec![(command!["MULTI"], Check::Exact)];
        for generator in generators {
            commands.push((self.make(generator), Check::Exact));
        }
        if self.source.random.one_in(4) {
            // One by one, so that the queue outlives what it was read into.
            for command in &commands {
                self.compare(std::slice::from_ref(command))?;
            }
        } else {
            self.compare(&commands)?;
        }
        let queued: Vec<_> = commands
            .into_iter()
            .skip(1)
            .map(|(command, _)| command)
            .collect();
        let succeeded = self.compare_exec(generators, &queued)?;
        for (generator, succeeded) in generators.iter().zip(succeeded) {
            self.coverage.count(generator.name, succeeded);
        }
        self.run_what_follows()
    }

    /// Sends EXEC to both servers and compares the replies to the `queued` commands by the rules of their generators.
    /// Result: which of them succeeded.
    fn compare_exec(
        &mut self,
        generators: &[Generator],
        queued: &[Command],
    ) -> io::Result<Vec<bool>> {
        let exec = command!["EXEC"];
        self.pair.ferrite.send([exec.as_slice()])?;
        self.pair.oracle.send([exec.as_slice()])?;
        let ferrite = self.pair.ferrite.reply();
        let ferrite = ferrite.map_err(|error| self.broken("Ferrite", "EXEC", error))?;
        let oracle = self.pair.oracle.reply();
        let oracle = oracle.map_err(|error| self.broken("the oracle", "EXEC", error))?;
        let (Reply::Array(ours), Reply::Array(theirs)) = (&ferrite, &oracle) else {
            if ferrite != oracle {
                self.differ("EXEC", &ferrite, Some(&oracle));
            }
            return Ok(vec![false; queued.len()]);
        };
        if ours.len() != queued.len() || theirs.len() != queued.len() {
            self.differ("EXEC", &ferrite, Some(&oracle));
            return Ok(vec![false; queued.len()]);
        }
        let mut succeeded = Vec::new();
        for (i, command) in queued.iter().enumerate() {
            let (ours, theirs) = (&ours[i], &theirs[i]);
            if !generators[i]
                .check
                .agree(ours, theirs, command, &mut self.pair)?
            {
                let words: Vec<_> = command.iter().map(|word| shown(word)).collect();
                let line = format!("{} (in EXEC)", words.join(" "));
                self.differ(&line, ours, Some(theirs));
            }
            succeeded.push(!theirs.is_error());
        }
        Ok(succeeded)
    }

    /// Lets other clients, one a key, watch some keys.
    fn watch_some(&mut self) -> io::Result<()> {
        for watcher in 0..self.watchers.len() {
            let select = command!["SELECT", self.source.database()];
            let watch = command!["WATCH", self.source.any_key()];
            self.watched[watcher] = (select.clone(), watch.clone());
            for command in [select, watch, command!["MULTI"]] {
                let (ferrite, oracle) = self.ask_watcher(watcher, &command)?;
                assert!(!ferrite.is_error(), "{command:?}: {ferrite:?}");
                assert_eq!(ferrite, oracle, "{command:?}");
            }
        }
        Ok(())
    }

    /// Lets those clients find out whether their keys have changed.
    fn compare_watches(&mut self) -> io::Result<()> {
        for watcher in 0..self.watchers.len() {
            let (ferrite, oracle) = self.ask_watcher(watcher, &command!["EXEC"])?;
            if ferrite != oracle {
                let (select, watch) = &self.watched[watcher];
                let words = select.iter().chain(watch).map(|word| shown(word));
                let line = format!("EXEC after {}", words.collect::<Vec<_>>().join(" "));
                self.differ(&line, &ferrite, Some(&oracle));
            }
        }
        Ok(())
    }

    /// Sends a command of another client to both servers.
    fn ask_watcher(&mut self, watcher: usize, command: &Command) -> io::Result<(Reply, Reply)> {
        let pair = &mut self.watchers[watcher];
        let ferrite = pair.ferrite.call(command);
        let oracle = pair.oracle.call(command);
        let line = format!("{command:?} of watcher {watcher}");
        Ok((
            ferrite.map_err(|error| self.broken("Ferrite", &line, error))?,
            oracle.map_err(|error| self.broken("the oracle", &line, error))?,
        ))
    }

    fn run_what_follows(&mut self) -> io::Result<()> {
        while let Some(command) = self.source.then.pop_front() {
            let check = if command[0] == b"HELLO" {
                Check::Names
            } else {
                Check::Exact
            };
            self.compare(&[(command, check)])?;
        }
        Ok(())
    }

    /// A command of the generator, now and then with wrong arguments.
    fn make(&mut self, generator: &Generator) -> Command {
        let mut command = (generator.make)(&mut self.source);
        if generator.distort && self.source.random.one_in(16) {
            let own_words = generator.name.split('|').count();
            let random = &mut self.source.random;
            match random.below(4) {
                0 => command
                    .truncate(random.between(own_words as i64, command.len() as i64) as usize),
                1 => command.push(self.source.oddity()),
                _ if command.len() > own_words => {
                    let at = random.between(own_words as i64, command.len() as i64 - 1) as usize;
                    command[at] = self.source.oddity();
                }
                _ => {}
            }
        }
        command
    }

    /// Sends the commands to both servers, in one piece, and notes differences of their replies.
    /// Result: which of them succeeded.
    fn compare(&mut self, commands: &[(Command, Check)]) -> io::Result<Vec<bool>> {
        let words = || commands.iter().map(|(command, _)| command.as_slice());
        self.pair.ferrite.send(words())?;
        if !matches!(commands, [(_, Check::Alone(_))]) {
            self.pair.oracle.send(words())?;
        }
        let replies = commands
            .iter()
            .map(|(command, check)| self.compare_replies(command, *check));
        replies.collect()
    }

    /// Reads the replies to one command. Result: whether it succeeded.
    fn compare_replies(&mut self, command: &Command, check: Check) -> io::Result<bool> {
        let words: Vec<_> = command.iter().map(|word| shown(word)).collect();
        let line = words.join(" ");
        let ferrite = self.pair.ferrite.reply();
        let ferrite = ferrite.map_err(|error| self.broken("Ferrite", &line, error))?;
        if let Check::Alone(accepts) = check {
            if !accepts(&ferrite) {
                self.differ(&line, &ferrite, None);
            }
            return Ok(!ferrite.is_error());
        }
        let oracle = self.pair.oracle.reply();
        let oracle = oracle.map_err(|error| self.broken("the oracle", &line, error))?;
        if !check.agree(&ferrite, &oracle, command, &mut self.pair)? {
            self.differ(&line, &ferrite, Some(&oracle));
        }
        if matches!(check, Check::Closes) {
            self.pair.ferrite.expect_end()?;
            self.pair.oracle.expect_end()?;
            self.pair = connect(&self.plan)?;
        }
        let mut event = format!("    {line}  ->  {oracle:?}");
        event.truncate(event.floor_char_boundary(HISTORY_LINE_MAX));
        self.history.push_back(event);
        if self.history.len() > HISTORY {
            self.history.pop_front();
        }
        Ok(!oracle.is_error())
    }

    fn differ(&mut self, line: &str, ferrite: &Reply, oracle: Option<&Reply>) {
        let history: Vec<_> = self.history.iter().map(String::as_str).collect();
        let history = history.join("\n");
        let oracle = oracle.map_or("something else".to_owned(), |reply| format!("{reply:?}"));
        self.differences.push(format!(
            "{history}\n  {line}\n  Ferrite: {ferrite:?}\n  oracle:  {oracle}"
        ));
    }

    /// A connection that broke is a difference like others, with the command that broke it.
    fn broken(&self, who: &str, line: &str, error: io::Error) -> io::Error {
        let history: Vec<_> = self.history.iter().map(String::as_str).collect();
        let (history, seed) = (history.join("\n"), self.plan.seed);
        let differences = self.differences.join("\n\n");
        io::Error::new(
            error.kind(),
            format!(
                "seed {seed}: {who}: {error}, at\n{history}\n  {line}\nbefore that:\n{differences}"
            ),
        )
    }
}

fn connect_watchers(plan: &Plan) -> io::Result<Vec<Pair>> {
    (0..WATCHERS).map(|_| connect(plan)).collect()
}

fn connect(plan: &Plan) -> io::Result<Pair> {
    let mut pair = Pair {
        ferrite: Connection::open(&plan.ferrite.address())?,
        oracle: Connection::open(&plan.oracle)?,
    };
    for connection in [&mut pair.ferrite, &mut pair.oracle] {
        let reply = connection.call(&["HELLO", plan.protocol])?;
        assert!(!reply.is_error(), "HELLO {}: {reply:?}", plan.protocol);
    }
    Ok(pair)
}
