//! What the server says about itself: INFO, COMMAND, CONFIG, SLOWLOG, COMMANDLOG, LATENCY, MEMORY, and how it is ended.

mod common;

use common::{Connection, Server, encode};

#[test]
fn info_shows_the_sections_asked_for_once_each() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let mut headings = |sections: &[&str]| -> String {
        let text = client.command(&[&["INFO"], sections].concat());
        let headings: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# "))
            .collect();
        headings.join(" ")
    };
    let by_default = "Server Clients Memory Persistence Stats Replication CPU Modules Errorstats Cluster Keyspace Tiers";
    let all = "Server Clients Memory Persistence Stats Replication CPU Modules Commandstats Errorstats Latencystats \
               Cluster Keyspace Tiers";
    for (sections, expected) in [
        (&[][..], by_default),
        (&["default"], by_default),
        (&["all"], all),
        (&["EVERYTHING"], all),
        (&["keyspace", "Server", "server"], "Server Keyspace"),
        (
            &["default", "commandstats"],
            &all.replace("Latencystats ", ""),
        ),
        (&["nonsense"], ""),
    ] {
        assert_eq!(headings(sections), expected, "{sections:?}");
    }
    client.command(&["HELLO", "3"]);
    assert!(
        client
            .command(&["INFO", "cluster"])
            .starts_with("=34\r\ntxt:# Cluster\r\n")
    );
}

#[test]
fn info_counts_what_happened() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.command(&["SET", "key", "value", "PX", "100000"]);
    client.command(&["GET", "key"]);
    client.command(&["GET", "absent"]);
    client.command(&["INCR", "key"]);
    client.command(&["SET", "key"]);
    client.command(&["NOSUCH"]);
    client.command(&["AUTH", "other", "x"]);
    assert_eq!(client.command(&["SELECT", "2"]), "+OK\r\n");
    client.command(&["SET", "key", "value"]);
    let info = client.command(&["INFO", "everything"]);
    for (name, value) in [
        ("redis_version", "7.4.2"),
        ("ferrite_version", env!("CARGO_PKG_VERSION")),
        ("redis_mode", "standalone"),
        ("arch_bits", "64"),
        ("tcp_port", &server.port.to_string()),
        ("connected_clients", "1"),
        ("total_connections_received", "1"),
        ("keyspace_hits", "1"),
        ("keyspace_misses", "1"),
        ("total_error_replies", "4"),
        ("errorstat_ERR", "count=3"),
        ("errorstat_WRONGPASS", "count=1"),
        ("cluster_enabled", "0"),
        ("db0", "keys=1,expires=1,avg_ttl=0"),
        ("db2", "keys=1,expires=0,avg_ttl=0"),
        ("cold_reads", "0"),
    ] {
        assert_eq!(info_field(&info, name), value, "{name}");
    }
    let set = info_field(&info, "cmdstat_set");
    assert!(
        set.starts_with("calls=2,usec=") && set.ends_with(",rejected_calls=1,failed_calls=0"),
        "{set}"
    );
    let incr = info_field(&info, "cmdstat_incr");
    assert!(
        incr.starts_with("calls=1,") && incr.ends_with(",failed_calls=1"),
        "{incr}"
    );
    let latency = info_field(&info, "latency_percentiles_usec_get");
    assert!(
        latency.starts_with("p50=") && latency.contains(",p99=") && latency.contains(",p99.9="),
        "{latency}"
    );
    assert!(
        info_field(&info, "total_net_input_bytes")
            .parse::<u64>()
            .unwrap()
            > 100
    );
    assert!(info_field(&info, "used_memory").parse::<u64>().unwrap() > 0);

    assert_eq!(client.command(&["CONFIG", "RESETSTAT"]), "+OK\r\n");
    let info = client.command(&["INFO", "everything"]);
    assert_eq!(info_field(&info, "keyspace_hits"), "0");
    assert_eq!(info_field(&info, "total_error_replies"), "0");
    assert!(!info.contains("cmdstat_incr"));
}

#[test]
fn info_estimates_how_long_keys_have_to_live() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.command(&["SET", "stays", "1"]);
    for key in 0..10 {
        client.command(&["SET", &format!("key:{key}"), "1", "EX", "100"]);
    }
    let average_ms = common::eventually(|| {
        let info = client.command(&["INFO", "keyspace"]);
        let (_, average) = info.split_once("db0:keys=11,expires=10,avg_ttl=")?;
        let average: u64 = average.lines().next()?.parse().ok()?;
        (average > 0).then_some(average)
    });
    assert!((50_000..=100_000).contains(&average_ms), "{average_ms}");
}

#[test]
fn command_describes_commands_in_both_protocols() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let get = |set: char, map: &str, pairs: [usize; 3]| {
        let [three, two, range] = pairs;
        format!(
            "*10\r\n$3\r\nget\r\n:2\r\n{set}2\r\n+readonly\r\n+fast\r\n:1\r\n:1\r\n:1\r\n\
             {set}3\r\n+@read\r\n+@string\r\n+@fast\r\n{set}0\r\n{set}1\r\n\
             {map}{three}\r\n$5\r\nflags\r\n{set}2\r\n+RO\r\n+access\r\n\
             $12\r\nbegin_search\r\n{map}{two}\r\n$4\r\ntype\r\n$5\r\nindex\r\n$4\r\nspec\r\n{map}{one}\r\n$5\r\nindex\r\n:1\r\n\
             $9\r\nfind_keys\r\n{map}{two}\r\n$4\r\ntype\r\n$5\r\nrange\r\n$4\r\nspec\r\n\
             {map}{range}\r\n$7\r\nlastkey\r\n:0\r\n$7\r\nkeystep\r\n:1\r\n$5\r\nlimit\r\n:0\r\n{set}0\r\n",
            one = if map == "%" { 1 } else { 2 },
        )
    };
    let info = ["COMMAND", "INFO", "GET", "nosuch"];
    assert_eq!(
        client.command(&info),
        format!("*2\r\n{}$-1\r\n", get('*', "*", [6, 4, 6]))
    );
    client.command(&["HELLO", "3"]);
    assert_eq!(
        client.command(&info),
        format!("*2\r\n{}_\r\n", get('~', "%", [3, 2, 3]))
    );
    assert!(
        client
            .command(&["COMMAND", "DOCS", "config"])
            .contains("$11\r\nsubcommands\r\n%5\r\n$")
    );
    let count = client.command(&["COMMAND", "COUNT"]);
    assert!(
        client
            .command(&["COMMAND"])
            .starts_with(&count.replace(':', "*"))
    );
}

#[test]
fn command_finds_keys() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for (quoted, keys) in [
        (&["GET", "a"][..], "*1\r\n$1\r\na\r\n"),
        (
            &["MSET", "a", "1", "b", "2"],
            "*2\r\n$1\r\na\r\n$1\r\nb\r\n",
        ),
        (
            &["BITOP", "AND", "d", "a", "b"],
            "*3\r\n$1\r\nd\r\n$1\r\na\r\n$1\r\nb\r\n",
        ),
        (&["OBJECT", "ENCODING", "a"], "*1\r\n$1\r\na\r\n"),
        (&["MSETEX", "1", "a", "1"], "*1\r\n$1\r\na\r\n"),
        (&["PING", "a"], "-ERR The command has no key arguments\r\n"),
        (&["NOSUCH", "a"], "-ERR Invalid command specified\r\n"),
        (&["CONFIG", "NOSUCH"], "-ERR Invalid command specified\r\n"),
        (
            &["SET", "a"],
            "-ERR Invalid number of arguments specified for command\r\n",
        ),
    ] {
        let command = [&["COMMAND", "GETKEYS"], quoted].concat();
        assert_eq!(client.command(&command), keys, "{quoted:?}");
    }
    for (quoted, keys) in [
        (
            &["SET", "a", "1"][..],
            "*1\r\n*2\r\n$1\r\na\r\n*2\r\n+OW\r\n+update\r\n",
        ),
        (
            &["SET", "a", "1", "GET"],
            "*1\r\n*2\r\n$1\r\na\r\n*3\r\n+RW\r\n+access\r\n+update\r\n",
        ),
        (
            &["RENAME", "a", "b"],
            "*2\r\n*2\r\n$1\r\na\r\n*3\r\n+RW\r\n+access\r\n+delete\r\n*2\r\n$1\r\nb\r\n*2\r\n+OW\r\n+update\r\n",
        ),
    ] {
        let command = [&["COMMAND", "GETKEYSANDFLAGS"], quoted].concat();
        assert_eq!(client.command(&command), keys, "{quoted:?}");
    }
}

#[test]
fn slow_commands_are_kept_shortened_and_without_passwords() {
    let server = Server::start(&["--slowlog-log-slower-than", "0", "--slowlog-max-len", "5"]);
    let mut client = server.connect();
    client.command(&["CLIENT", "SETNAME", "tester"]);
    client.command(&["SLOWLOG", "RESET"]);
    let long = "x".repeat(200);
    let many: Vec<String> = (0..40).map(|i| format!("k{i}")).collect();
    let many: Vec<&str> = ["DEL"]
        .into_iter()
        .chain(many.iter().map(String::as_str))
        .collect();
    client.command(&["SET", "key", &long]);
    client.command(&many);
    client.command(&["AUTH", "default", "secret"]);
    let log = client.command(&["SLOWLOG", "GET", "-1"]);
    assert!(log.starts_with("*4\r\n*6\r\n"), "{log}");
    assert!(
        log.contains(&format!("{}... (72 more bytes)\r\n", "x".repeat(128))),
        "{log}"
    );
    assert!(
        log.contains("$3\r\nk29\r\n$23\r\n... (10 more arguments)\r\n"),
        "{log}"
    );
    assert!(
        log.contains("(redacted)") && !log.contains("secret"),
        "{log}"
    );
    assert!(log.contains("$6\r\ntester\r\n"), "{log}");
    for _ in 0..10 {
        client.command(&["PING"]);
    }
    assert_eq!(client.command(&["SLOWLOG", "LEN"]), ":5\r\n");
    assert!(
        client
            .command(&["SLOWLOG", "GET", "2"])
            .starts_with("*2\r\n")
    );
    assert_eq!(
        client.command(&["SLOWLOG", "GET", "-2"]),
        "-ERR count should be greater than or equal to -1\r\n"
    );
}

#[test]
fn large_requests_and_replies_are_kept() {
    let server = Server::start(&[
        "--commandlog-request-larger-than",
        "1000",
        "--commandlog-reply-larger-than",
        "2000",
        // None is slow, however busy the machine is.
        "--slowlog-log-slower-than",
        "-1",
    ]);
    let mut client = server.connect();
    let value = "x".repeat(1500);
    client.command(&["SET", "key", &value]);
    client.command(&["GET", "key"]);
    client.command(&["MGET", "key", "key"]);
    let requests = client.command(&["COMMANDLOG", "GET", "-1", "large-request"]);
    assert!(
        requests.starts_with("*1\r\n*6\r\n:0\r\n")
            && requests.contains(":1506\r\n*3\r\n$3\r\nSET\r\n"),
        "{requests}"
    );
    let replies = client.command(&["COMMANDLOG", "GET", "-1", "LARGE-REPLY"]);
    assert!(
        replies.starts_with("*1\r\n*6\r\n:0\r\n") && replies.contains("*3\r\n$4\r\nMGET\r\n"),
        "{replies}"
    );
    assert_eq!(client.command(&["COMMANDLOG", "LEN", "slow"]), ":0\r\n");
    assert_eq!(
        client.command(&["COMMANDLOG", "RESET", "large-reply"]),
        "+OK\r\n"
    );
    assert_eq!(
        client.command(&["COMMANDLOG", "LEN", "large-reply"]),
        ":0\r\n"
    );
    assert_eq!(
        client.command(&["COMMANDLOG", "LEN", "large-request"]),
        ":1\r\n"
    );
}

#[test]
fn latency_events_are_kept_above_the_threshold() {
    let server = Server::start(&[
        "--latency-monitor-threshold",
        "1",
        "--enable-debug-command",
        "yes",
    ]);
    let mut client = server.connect();
    assert_eq!(client.command(&["DEBUG", "SLEEP", "0.02"]), "+OK\r\n");
    let latest = client.command(&["LATENCY", "LATEST"]);
    assert!(
        latest.starts_with("*1\r\n*4\r\n$7\r\ncommand\r\n:"),
        "{latest}"
    );
    assert!(
        client
            .command(&["LATENCY", "HISTORY", "command"])
            .starts_with("*1\r\n*2\r\n:")
    );
    assert!(
        client
            .command(&["LATENCY", "GRAPH", "command"])
            .contains("command - high ")
    );
    assert!(
        client
            .command(&["LATENCY", "DOCTOR"])
            .contains("- command: 1 samples, ")
    );
    assert_eq!(client.command(&["LATENCY", "RESET", "fork"]), ":0\r\n");
    assert_eq!(client.command(&["LATENCY", "RESET", "command"]), ":1\r\n");
    assert_eq!(
        client.command(&["LATENCY", "GRAPH", "command"]),
        "-ERR No samples available for event 'command'\r\n"
    );
}

#[test]
fn histograms_count_calls() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for _ in 0..3 {
        client.command(&["SET", "key", "value"]);
    }
    client.command(&["CONFIG", "GET", "port"]);
    let histogram = client.command(&["LATENCY", "HISTOGRAM", "set", "nosuch"]);
    assert!(
        histogram.starts_with(
            "*2\r\n$3\r\nset\r\n*4\r\n$5\r\ncalls\r\n:3\r\n$14\r\nhistogram_usec\r\n*"
        ),
        "{histogram}"
    );
    assert!(
        histogram.ends_with(":3\r\n"),
        "the last count is all: {histogram}"
    );
    assert!(
        client
            .command(&["LATENCY", "HISTOGRAM", "config"])
            .contains("$10\r\nconfig|get\r\n")
    );
    client.command(&["CONFIG", "SET", "latency-tracking", "no"]);
    client.command(&["GET", "key"]);
    assert_eq!(client.command(&["LATENCY", "HISTOGRAM", "get"]), "*0\r\n");
}

#[test]
fn memory_usage_follows_the_record() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let mut usage = |value: &str| {
        client.command(&["SET", "key", value]);
        client.command(&["MEMORY", "USAGE", "key"])[1..]
            .trim()
            .parse::<usize>()
            .unwrap()
    };
    let (small, large) = (usage("x"), usage(&"x".repeat(10_000)));
    assert!((1..=64).contains(&small), "{small}");
    assert!((10_000..10_100).contains(&large), "{large}");
    assert_eq!(client.command(&["MEMORY", "USAGE", "absent"]), "$-1\r\n");
    assert_eq!(
        client.command(&["MEMORY", "USAGE", "key", "SAMPLES", "-1"]),
        "-ERR syntax error\r\n"
    );
    assert!(
        client
            .command(&["MEMORY", "STATS"])
            .contains("$10\r\nkeys.count\r\n:1\r\n")
    );
}

#[test]
fn configuration_is_set_all_or_none() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    assert_eq!(
        client.command(&["CONFIG", "SET", "timeout", "7", "slowlog-max-len", "9"]),
        "+OK\r\n"
    );
    assert_eq!(
        client.command(&["CONFIG", "GET", "timeout"]),
        "*2\r\n$7\r\ntimeout\r\n$1\r\n7\r\n"
    );
    assert_eq!(
        client.command(&["CONFIG", "SET", "timeout", "8", "nosuch", "1"]),
        "-ERR Unknown option or number of arguments for CONFIG SET - 'nosuch'\r\n"
    );
    assert_eq!(
        client.command(&["CONFIG", "SET", "timeout", "8", "slowlog-max-len"]),
        "-ERR syntax error\r\n"
    );
    assert!(
        client
            .command(&["CONFIG", "GET", "timeout"])
            .ends_with("$1\r\n7\r\n")
    );
    assert_eq!(
        client.command(&["CONFIG", "REWRITE"]),
        "-ERR The server is running without a config file\r\n"
    );
}

#[test]
fn a_picture_has_the_size_asked_for() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let picture = client.command(&["LOLWUT", "VERSION", "1", "10", "3", "5"]);
    let lines: Vec<&str> = picture.lines().skip(1).collect();
    assert!(
        lines[..3].iter().all(|line| line.chars().count() == 10),
        "{picture}"
    );
    assert_eq!(lines[3], "");
    assert!(
        lines[4].starts_with("Redis ver. 7.4.2, Ferrite ver. "),
        "{picture}"
    );
    assert!(
        client
            .command(&["LOLWUT", "VERSION", "5"])
            .contains("\r\nRedis ver. ")
    );
}

#[test]
fn shutdown_ends_the_server_unless_it_may_not() {
    let mut server = Server::start(&[]);
    let mut client = server.connect();
    for (options, error) in [
        (&["ODD"][..], "-ERR syntax error\r\n"),
        (&["SAVE", "NOSAVE"], "-ERR syntax error\r\n"),
        (&["ABORT", "NOW"], "-ERR syntax error\r\n"),
        (&["ABORT"], "-ERR No shutdown in progress.\r\n"),
    ] {
        assert_eq!(
            client.command(&[&["SHUTDOWN"], options].concat()),
            error,
            "{options:?}"
        );
    }
    client.send(encode(&["SHUTDOWN", "NOSAVE", "NOW", "FORCE"]));
    assert_eq!(client.read_to_end(), "");
    let (status, log) = server.wait();
    assert!(status.success(), "{status}: {log}");
}

/// The value of an INFO field.
fn info_field(info: &str, name: &str) -> String {
    let value = info
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value
        .unwrap_or_else(|| panic!("no {name} in {info}"))
        .to_owned()
}

/// The default user may do everything, and is all there is.
#[test]
fn there_is_one_user() {
    let server = Server::start(&["--requirepass", "foo"]);
    let mut client: Connection = server.connect();
    client.command(&["AUTH", "foo"]);
    assert_eq!(client.command(&["ACL", "WHOAMI"]), "$7\r\ndefault\r\n");
    let digest = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";
    let list = client.command(&["ACL", "LIST"]);
    assert!(
        list.contains(&format!("user default on #{digest} ~* &* +@all")),
        "{list}"
    );
    assert_eq!(client.command(&["ACL", "GETUSER", "other"]), "$-1\r\n");
    assert_eq!(
        client.command(&["ACL", "CAT", "odd"]),
        "-ERR Unknown category 'odd'\r\n"
    );
    assert!(
        client
            .command(&["ACL", "CAT", "bitmap"])
            .contains("$6\r\ngetbit\r\n")
    );
}
