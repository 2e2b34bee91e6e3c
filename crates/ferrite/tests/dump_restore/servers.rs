//! The servers that payloads go between, and what tells whether two hold the same.

use crate::common::{Server, check_peak_memory};
use crate::oracle::Oracle;
use crate::wire::{Address, Connection, Reply};

const DEBUG: [&str; 2] = ["--enable-debug-command", "yes"];

/// Redis 7.0 knows no listpacks of sets and lists, and reads nothing newer than itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Ferrite,
    Redis,
    Valkey,
}

/// A running server.
pub(crate) struct Running {
    pub(crate) kind: Kind,
    client: Connection,
    process: Process,
}

/// They end when they are dropped.
enum Process {
    Ferrite(Server),
    Oracle { _oracle: Oracle },
}

impl Running {
    pub(crate) fn ferrite(directives: &[&str]) -> Running {
        let server = Server::start(&[&DEBUG, directives].concat());
        Running {
            kind: Kind::Ferrite,
            client: Connection::open(&Address::Tcp(server.port)).expect("a connection"),
            process: Process::Ferrite(server),
        }
    }

    /// Peak resident memory must not have passed `maxmemory` by more than a tenth.
    pub(crate) fn check_peak_memory(&self, maxmemory_bytes: u64) {
        if let Process::Ferrite(server) = &self.process {
            check_peak_memory(server, maxmemory_bytes);
        }
    }

    fn oracle(kind: Kind, program: &str) -> Option<Running> {
        let Some(oracle) = Oracle::start(program) else {
            println!("without {program}: there is none");
            return None;
        };
        Some(Running {
            kind,
            client: Connection::open(&oracle.address).expect("a connection"),
            process: Process::Oracle { _oracle: oracle },
        })
    }

    /// Ferrite, and those of the others that there are.
    pub(crate) fn all() -> Vec<Running> {
        let others = [
            Running::oracle(Kind::Redis, "redis-server"),
            Running::oracle(Kind::Valkey, "valkey-server"),
        ];
        let ferrite = Running::ferrite(&[]);
        [Some(ferrite)]
            .into_iter()
            .chain(others)
            .flatten()
            .collect()
    }

    pub(crate) fn call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Reply {
        self.client.call(args).expect("a reply")
    }

    /// The reply to a command of words.
    pub(crate) fn ask(&mut self, command: &str) -> Reply {
        let words: Vec<&str> = command.split(' ').collect();
        self.call(&words)
    }

    /// As [`Self::ask`], of a command that must not fail.
    pub(crate) fn must(&mut self, command: &str) -> Reply {
        let reply = self.ask(command);
        assert!(!reply.is_error(), "{:?}: {command}: {reply:?}", self.kind);
        reply
    }

    pub(crate) fn dump(&mut self, key: &str) -> Vec<u8> {
        let reply = self.call(&["DUMP", key]);
        let bytes = reply.bytes().map(<[u8]>::to_vec);
        bytes.unwrap_or_else(|| panic!("{:?}: DUMP {key}: {reply:?}", self.kind))
    }

    pub(crate) fn restore(&mut self, key: &str, payload: &[u8]) -> Reply {
        let args: [&[u8]; 5] = [b"RESTORE", key.as_bytes(), b"0", payload, b"REPLACE"];
        self.call(&args)
    }

    /// How the value of a key is held.
    pub(crate) fn encoding(&mut self, key: &str) -> String {
        let reply = self.call(&["OBJECT", "ENCODING", key]);
        String::from_utf8_lossy(reply.bytes().expect("an encoding")).into_owned()
    }

    /// What a key holds, as all servers tell it.
    pub(crate) fn contents(&mut self, key: &str) -> String {
        let kind = self.must(&format!("TYPE {key}"));
        let digest = self.must(&format!("DEBUG DIGEST-VALUE {key}"));
        let mut contents = format!("{kind:?} {digest:?}");
        if kind.bytes() == Some(b"stream") {
            self.add_groups(key, &mut contents);
        }
        contents
    }

    /// Adds what is not part of a stream's digest.
    fn add_groups(&mut self, key: &str, contents: &mut String) {
        let info = self.must(&format!("XINFO STREAM {key}"));
        let remembered = [
            "length",
            "last-generated-id",
            "max-deleted-entry-id",
            "entries-added",
            "recorded-first-entry-id",
        ];
        for (name, value) in fields(&info) {
            if remembered.contains(&name.as_str()) {
                contents.push_str(&format!("\n{name} {value:?}"));
            }
        }
        for group in self
            .must(&format!("XINFO GROUPS {key}"))
            .elements()
            .unwrap()
        {
            // The lag, which comes last, is reckoned in different ways.
            contents.push_str(&format!("\n{:?}", &fields(group)[..5]));
            let (_, name) = fields(group).swap_remove(0);
            let name = String::from_utf8_lossy(name.bytes().unwrap()).into_owned();
            let consumers = self.must(&format!("XINFO CONSUMERS {key} {name}"));
            for consumer in consumers.elements().unwrap() {
                contents.push_str(&format!("\n{:?}", &fields(consumer)[..2]));
            }
            let pending = self.must(&format!("XPENDING {key} {name} - + 100000"));
            for entry in pending.elements().unwrap() {
                let entry = entry.elements().unwrap();
                // The third tells for how long.
                contents.push_str(&format!("\n{:?}", [&entry[0], &entry[1], &entry[3]]));
            }
        }
    }
}

/// The names and values of a reply that has both in turn.
fn fields(reply: &Reply) -> Vec<(String, Reply)> {
    let elements = reply.elements().expect("names and values");
    let pairs = elements.chunks_exact(2).map(|pair| {
        let name = pair[0].bytes().expect("a name");
        (String::from_utf8_lossy(name).into_owned(), pair[1].clone())
    });
    pairs.collect()
}
