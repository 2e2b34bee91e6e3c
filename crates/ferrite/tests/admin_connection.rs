//! Who a client is and what it is told: AUTH, HELLO, RESET, CLIENT.

mod common;

use common::{Connection, Server, encode};

const WRONG_PASSWORD: &str = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";

#[test]
fn without_a_password_any_will_do_for_the_default_user() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    assert_eq!(
        client.command(&["AUTH", "word"]),
        "-ERR AUTH <password> called without any password configured for the default user. \
         Are you sure your configuration is correct?\r\n"
    );
    assert_eq!(client.command(&["AUTH", "default", "word"]), "+OK\r\n");
    assert_eq!(client.command(&["AUTH", "other", "word"]), WRONG_PASSWORD);
    assert_eq!(
        client.command(&["AUTH", "a", "b", "c"]),
        "-ERR syntax error\r\n"
    );
}

#[test]
fn a_password_is_asked_for_until_it_is_given() {
    let server = Server::start(&["--requirepass", "word"]);
    let mut client = server.connect();
    assert_eq!(
        client.command(&["PING"]),
        "-NOAUTH Authentication required.\r\n"
    );
    assert!(
        client
            .command(&["HELLO", "3"])
            .starts_with("-NOAUTH HELLO must be called")
    );
    for wrong in ["wor", "words", "", "WORD"] {
        assert_eq!(client.command(&["AUTH", wrong]), WRONG_PASSWORD);
    }
    assert_eq!(
        client.command(&["HELLO", "3", "AUTH", "default", "wrong"]),
        WRONG_PASSWORD
    );
    assert_eq!(
        client.command(&["PING"]),
        "-NOAUTH Authentication required.\r\n"
    );
    assert!(
        client
            .command(&["HELLO", "3", "AUTH", "default", "word"])
            .starts_with("%7\r\n")
    );
    assert_eq!(client.command(&["PING"]), "+PONG\r\n");
    assert_eq!(client.command(&["RESET"]), "+RESET\r\n");
    assert_eq!(
        client.command(&["PING"]),
        "-NOAUTH Authentication required.\r\n"
    );
    assert_eq!(client.command(&["AUTH", "word"]), "+OK\r\n");
    assert_eq!(client.command(&["PING"]), "+PONG\r\n");
}

#[test]
fn hello_introduces_both_sides() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let id = client.command(&["CLIENT", "ID"]);
    let modules = "$7\r\nmodules\r\n*0\r\n";
    let facts = |proto: &str| {
        format!(
            "$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n7.4.2\r\n$5\r\nproto\r\n{proto}\
             $2\r\nid\r\n{id}$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n{modules}"
        )
    };
    assert_eq!(
        client.command(&["HELLO"]),
        format!("*14\r\n{}", facts(":2\r\n"))
    );
    let hello = ["HELLO", "3", "SETNAME", "me", "AUTH", "default", "any"];
    assert_eq!(client.command(&hello), format!("%7\r\n{}", facts(":3\r\n")));
    assert_eq!(client.command(&["CLIENT", "GETNAME"]), "$2\r\nme\r\n");
    assert_eq!(client.command(&["GET", "absent"]), "_\r\n");
    assert!(client.command(&["CLIENT", "INFO"]).contains(" resp=3 "));
    for (hello, error) in [
        (
            &["HELLO", "4"][..],
            "-NOPROTO unsupported protocol version\r\n",
        ),
        (
            &["HELLO", "x"],
            "-ERR Protocol version is not an integer or out of range\r\n",
        ),
        (
            &["HELLO", "2", "AUTH", "x"],
            "-ERR Syntax error in HELLO option 'AUTH'\r\n",
        ),
        (
            &["HELLO", "2", "SETNAME", "a b"],
            "-ERR Client names cannot contain spaces, newlines or special characters.\r\n",
        ),
    ] {
        assert_eq!(client.command(hello), error);
    }
    assert_eq!(
        client.command(&["GET", "absent"]),
        "_\r\n",
        "a HELLO that fails changes nothing"
    );
}

#[test]
fn reset_makes_a_connection_new() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.command(&["HELLO", "3", "SETNAME", "me"]);
    client.command(&["SELECT", "7"]);
    client.command(&["CLIENT", "NO-TOUCH", "ON"]);
    let before = client.command(&["CLIENT", "INFO"]);
    assert!(
        before.contains(" name=me ") && before.contains(" flags=T db=7 "),
        "{before}"
    );
    assert_eq!(client.command(&["RESET"]), "+RESET\r\n");
    let after = client.command(&["CLIENT", "INFO"]);
    assert!(
        after.contains(" name= ") && after.contains(" flags=N db=0 "),
        "{after}"
    );
    assert!(after.contains(" resp=2 "), "{after}");
}

#[test]
fn quit_answers_and_closes() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.send("QUIT\r\nPING\r\n");
    assert_eq!(client.read_to_end(), "+OK\r\n");
}

#[test]
fn clients_say_who_they_are() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for (command, reply) in [
        (&["CLIENT", "GETNAME"][..], "$-1\r\n"),
        (&["CLIENT", "SETNAME", "tester"], "+OK\r\n"),
        (&["CLIENT", "SETINFO", "LIB-NAME", "lib(x)"], "+OK\r\n"),
        (&["CLIENT", "SETINFO", "lib-ver", "1.2"], "+OK\r\n"),
        (
            &["CLIENT", "SETINFO", "LIB-VER", "1 2"],
            "-ERR LIB-VER cannot contain spaces, newlines or special characters.\r\n",
        ),
        (
            &["CLIENT", "SETINFO", "odd", "x"],
            "-ERR Unrecognized option 'odd'\r\n",
        ),
        (&["CLIENT", "GETREDIR"], ":-1\r\n"),
    ] {
        assert_eq!(client.command(command), reply, "{command:?}");
    }
    let info = client.command(&["CLIENT", "INFO"]);
    let names: Vec<&str> = fields(&info).iter().map(|(name, _)| *name).collect();
    assert_eq!(
        names.join(" "),
        "id addr laddr fd name age idle flags db sub psub ssub multi watch qbuf qbuf-free argv-mem multi-mem rbs rbp \
         obl oll omem tot-mem events cmd user redir resp lib-name lib-ver tot-net-in tot-net-out tot-cmds"
    );
    for (name, value) in [
        ("name", "tester"),
        ("lib-name", "lib(x)"),
        ("lib-ver", "1.2"),
        ("cmd", "client|info"),
        ("user", "default"),
    ] {
        assert_eq!(field(&info, name), value);
    }
}

#[test]
fn lists_show_the_clients_that_every_filter_selects() {
    let server = Server::start(&[]);
    let mut admin = named(&server, "admin");
    let mut other = named(&server, "other");
    other.command(&["SELECT", "3"]);
    let other_info = other.command(&["CLIENT", "INFO"]);
    let (id, addr) = (field(&other_info, "id"), field(&other_info, "addr"));
    let mut listed = |filter: &[&str]| {
        let list = admin.command(&[&["CLIENT", "LIST"], filter].concat());
        let names: Vec<String> = list
            .lines()
            .filter(|line| line.starts_with("id="))
            .map(|line| field(line, "name"))
            .collect();
        names.join(" ")
    };
    for (filter, names) in [
        (&[][..], "admin other"),
        (&["TYPE", "normal"], "admin other"),
        (&["TYPE", "replica"], ""),
        (&["ID", &id, "999"], "other"),
        (&["ID", &id, "NAME", "admin"], ""),
        (&["ADDR", &addr], "other"),
        (&["NOT-ADDR", &addr], "admin"),
        (&["IP", "127.0.0.1", "DB", "3"], "other"),
        (&["SKIPME", "yes"], "other"),
        (&["NOT-NAME", "other"], "admin"),
        (&["USER", "default", "NAME", "other"], "other"),
        (&["FLAGS", "N"], "admin other"),
        (&["FLAGS", "e"], ""),
        (&["MAXAGE", "1000"], ""),
        (&["IDLE", "1000"], ""),
        (&["NAME", "admin", "NAME", "other"], "other"),
    ] {
        assert_eq!(listed(filter), names, "{filter:?}");
    }
    for (filter, error) in [
        (&["ODD", "x"][..], "-ERR syntax error\r\n"),
        (&["TYPE"], "-ERR syntax error\r\n"),
        (&["TYPE", "odd"], "-ERR Unknown client type 'odd'\r\n"),
        (&["ID", "x"], "-ERR Invalid client ID\r\n"),
        (&["USER", "odd"], "-ERR No such user 'odd'\r\n"),
        (&["MAXAGE", "0"], "-ERR maxage should be greater than 0\r\n"),
        (
            &["DB", "16"],
            "-ERR DB number should be between 0 and 15\r\n",
        ),
        (
            &["FLAGS", "?"],
            "-ERR Unknown flags found in the provided filter: ?\r\n",
        ),
        (&["NOT-MAXAGE", "1"], "-ERR syntax error\r\n"),
    ] {
        assert_eq!(
            admin.command(&[&["CLIENT", "LIST"], filter].concat()),
            error,
            "{filter:?}"
        );
    }
}

#[test]
fn kill_closes_the_clients_that_every_filter_selects() {
    let server = Server::start(&[]);
    let mut admin = named(&server, "admin");
    let mut first = named(&server, "first");
    let mut second = named(&server, "second");
    assert_eq!(
        admin.command(&["CLIENT", "KILL", "127.0.0.1:1"]),
        "-ERR No such client\r\n"
    );
    assert_eq!(
        admin.command(&["CLIENT", "KILL", "NAME", "first", "DB", "5"]),
        ":0\r\n"
    );
    assert_eq!(
        admin.command(&["CLIENT", "KILL", "NAME", "first", "MAXAGE", "1000"]),
        ":0\r\n"
    );
    assert_eq!(
        admin.command(&["CLIENT", "KILL", "NAME", "first", "SKIPME", "no"]),
        ":1\r\n"
    );
    assert_eq!(first.read_to_end(), "");
    let addr = field(&second.command(&["CLIENT", "INFO"]), "addr");
    assert_eq!(admin.command(&["CLIENT", "KILL", &addr]), "+OK\r\n");
    assert_eq!(second.read_to_end(), "");
    // One's own end is still told.
    admin.send(encode(&[
        "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no",
    ]));
    assert_eq!(admin.read_to_end(), ":1\r\n");
}

fn named(server: &Server, name: &str) -> Connection {
    let mut client = server.connect();
    assert_eq!(client.command(&["CLIENT", "SETNAME", name]), "+OK\r\n");
    client
}

/// The fields of a line of CLIENT LIST.
fn fields(line: &str) -> Vec<(&str, &str)> {
    line.split_whitespace()
        .filter_map(|field| field.split_once('='))
        .collect()
}

fn field(line: &str, wanted: &str) -> String {
    let found = fields(line).into_iter().find(|(name, _)| *name == wanted);
    found
        .unwrap_or_else(|| panic!("no {wanted} in {line}"))
        .1
        .to_owned()
}
