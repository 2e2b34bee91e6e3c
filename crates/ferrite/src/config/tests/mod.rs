//! The configuration through its front door: files and arguments in, `CONFIG` and settings out.

mod changing;
mod loading;
mod pages;

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::cli::{self, Invocation};

const GIB: u64 = 1 << 30;
const MACHINE: Machine = Machine {
    cpus: 4,
    memory_bytes: Some(10 * GIB),
};

type Loaded = Result<(Config, Vec<String>), String>;

/// Loads what these arguments of the command line name, on [`MACHINE`].
fn load(args: &[&str]) -> Loaded {
    load_on(MACHINE, args, "")
}

fn load_on(machine: Machine, args: &[&str], stdin: &str) -> Loaded {
    let Invocation::Run(cli) = cli::parse(args.iter().map(Into::into))? else {
        panic!("{args:?} does not run a server")
    };
    Config::load_on(machine, &cli, stdin.as_bytes()).map_err(|error| error.to_string())
}

/// A directory with one configuration file.
struct Conf {
    dir: TempDir,
}

impl Conf {
    fn new(text: &str) -> Conf {
        let conf = Conf {
            dir: tempfile::tempdir().unwrap(),
        };
        conf.add("ferrite.conf", text);
        conf
    }

    fn add(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).unwrap();
    }

    fn path(&self) -> String {
        self.dir.path().join("ferrite.conf").display().to_string()
    }

    fn text(&self) -> String {
        fs::read_to_string(self.path()).unwrap()
    }

    fn load(&self, more: &[&str]) -> Loaded {
        load(&[&[self.path().as_str()], more].concat())
    }

    fn load_ok(&self) -> Config {
        self.load(&[]).unwrap().0
    }
}

/// The value that `CONFIG GET name` shows.
fn get(config: &Config, name: &str) -> String {
    match config.get(&[name.as_bytes()]).as_slice() {
        [(_, value)] => String::from_utf8_lossy(value).into_owned(),
        other => panic!("{name}: {other:?}"),
    }
}

fn set(config: &Config, pairs: &[(&str, &str)]) -> Result<Vec<String>, String> {
    let pairs: Vec<(&[u8], &[u8])> = pairs
        .iter()
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
        .collect();
    config.set(&pairs, Origin::Local, |_, _| Ok(()))
}

fn error<T>(result: Result<T, String>) -> String {
    result.err().expect("an error")
}
