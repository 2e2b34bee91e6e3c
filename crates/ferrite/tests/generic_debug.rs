//! DEBUG: who may use it, and what it shows.

mod common;

use std::time::{Duration, Instant};

use common::Server;

const DEBUG: &[&str] = &["--enable-debug-command", "yes"];

#[test]
fn it_is_refused_unless_the_configuration_allows_it() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    assert_eq!(
        client.command(&["DEBUG", "SLEEP", "0"]),
        "-ERR DEBUG command not allowed. If the enable-debug-command option is set to \"local\", \
         you can run it from a local connection, otherwise you need to set this option in the \
         configuration file, and then restart the server.\r\n"
    );
    assert_eq!(
        client.command(&["DEBUG"]),
        "-ERR wrong number of arguments for 'debug' command\r\n"
    );
    for permission in ["local", "yes"] {
        let server = Server::start(&["--enable-debug-command", permission]);
        assert_eq!(
            server.connect().command(&["DEBUG", "SLEEP", "0"]),
            "+OK\r\n"
        );
    }
}

#[test]
fn digests_are_those_of_redis() {
    let server = Server::start(DEBUG);
    let mut client = server.connect();
    client.command(&["SET", "number", "12345"]);
    client.command(&["SET", "text", "hello world"]);
    client.command(&["SET", "later", "soon", "EX", "100000"]);
    client.command(&["SELECT", "1"]);
    client.command(&["SET", "text", "hello world"]);
    client.command(&["SELECT", "0"]);
    for _ in 0..2 {
        // Both were computed by Redis 7.0.15.
        assert_eq!(
            client.command(&["DEBUG", "DIGEST"]),
            "+ded98dfd8f3f5f223820ece0da3d5271d04d2173\r\n"
        );
        assert_eq!(
            client.command(&["DEBUG", "DIGEST-VALUE", "number", "text", "later", "none"]),
            "*4\r\n+e1cf90774e995ae03de66e8109dc5cb9d9c2dc83\r\n\
             +19bfad8f2007c7c5d8559839d8798339f62ccc52\r\n\
             +3165200877d3190912cace229788627a60a379ef\r\n\
             +0000000000000000000000000000000000000000\r\n"
        );
        assert_eq!(client.command(&["DEBUG", "FORCE-COLD"]), "+OK\r\n");
    }
}

#[test]
fn a_record_is_hot_until_it_is_forced_out_of_memory() {
    let server = Server::start(DEBUG);
    let mut client = server.connect();
    let large = "x".repeat(200_000);
    assert_eq!(client.command(&["DEBUG", "TIER", "k"]), "$-1\r\n");
    for value in ["v", &large] {
        client.command(&["SET", "k", value]);
        assert_eq!(client.command(&["DEBUG", "TIER", "k"]), "+hot\r\n");
        assert_eq!(client.command(&["DEBUG", "FORCE-COLD"]), "+OK\r\n");
        assert_eq!(client.command(&["DEBUG", "TIER", "k"]), "+cold\r\n");
        let reply = format!("${}\r\n{value}\r\n", value.len());
        assert_eq!(client.command(&["GET", "k"]), reply);
    }
}

#[test]
fn a_sleeping_client_keeps_nobody_else_waiting() {
    let server = Server::start(&["--enable-debug-command", "yes", "--io-threads", "1"]);
    let (mut sleeper, mut other) = (server.connect(), server.connect());
    let started = Instant::now();
    sleeper.send("DEBUG SLEEP 0.3\r\nPING\r\n");
    assert_eq!(
        (sleeper.reply().as_str(), sleeper.reply().as_str()),
        ("+OK\r\n", "+PONG\r\n")
    );
    assert!(started.elapsed() >= Duration::from_millis(300));
    // Much longer than the other client waits for a reply.
    sleeper.send("DEBUG SLEEP 300\r\n");
    assert_eq!(other.command(&["PING"]), "+PONG\r\n");
}

#[test]
fn populate_makes_keys_that_do_not_exist_yet() {
    let server = Server::start(DEBUG);
    let mut client = server.connect();
    client.command(&["SET", "key:1", "mine"]);
    assert_eq!(client.command(&["DEBUG", "POPULATE", "3"]), "+OK\r\n");
    assert_eq!(
        client.command(&["MGET", "key:0", "key:1", "key:2", "key:3"]),
        "*4\r\n$7\r\nvalue:0\r\n$4\r\nmine\r\n$7\r\nvalue:2\r\n$-1\r\n"
    );
    assert_eq!(
        client.command(&["DEBUG", "POPULATE", "1", "p", "4"]),
        "+OK\r\n"
    );
    assert_eq!(client.command(&["GET", "p:0"]), "$4\r\nvalu\r\n");
    assert_eq!(
        client.command(&["DEBUG", "POPULATE", "1", "q", "9"]),
        "+OK\r\n"
    );
    assert_eq!(client.command(&["GET", "q:0"]), "$9\r\nvalue:0\0\0\r\n");
    assert_eq!(
        client.command(&["DEBUG", "POPULATE", "-1"]),
        "-ERR value is out of range, must be positive\r\n"
    );
    assert_eq!(
        client.command(&["DEBUG", "POPULATE", "1", "r", "9223372036854775807"]),
        "-ERR string exceeds maximum allowed size (proto-max-bulk-len)\r\n"
    );
}

#[test]
fn unknown_subcommands_and_wrong_numbers_of_arguments_are_one_error() {
    let server = Server::start(DEBUG);
    let mut client = server.connect();
    for subcommand in ["JMAP", "object", "LISTPACK"] {
        assert_eq!(
            client.command(&["DEBUG", subcommand]),
            format!(
                "-ERR unknown subcommand or wrong number of arguments for '{subcommand}'. Try DEBUG HELP.\r\n"
            )
        );
    }
    assert_eq!(
        client.command(&["DEBUG", "ERROR", "MINE all mine"]),
        "-MINE all mine\r\n"
    );
    assert_eq!(
        client.command(&["DEBUG", "OBJECT", "none"]),
        "-ERR no such key\r\n"
    );
    client.command(&["SET", "k", "123"]);
    let reply = client.command(&["DEBUG", "OBJECT", "k"]);
    assert!(
        reply.starts_with("+Value at:0x") && reply.contains(" encoding:int serializedlength:2 "),
        "{reply}"
    );
}
