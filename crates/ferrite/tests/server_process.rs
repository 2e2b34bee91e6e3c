//! Starting and stopping: sockets, signals, and what refuses a start.

mod common;

use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use common::{Connection, Server};

#[test]
fn signals_end_the_server_with_status_0() {
    for signal in ["TERM", "INT"] {
        let mut server = Server::start(&[]);
        let mut client = server.connect();
        assert_eq!(client.command(&["SET", "key", "value"]), "+OK\r\n");
        server.signal(signal);
        assert_eq!(client.read_to_end(), "");
        let (status, log) = server.wait();
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(
            log.contains(&format!("Received SIG{signal} scheduling shutdown...")),
            "{log}"
        );
        assert!(
            log.contains("Ferrite is now ready to exit, bye bye..."),
            "{log}"
        );
    }
}

#[test]
fn shutdown_ends_the_server_without_a_reply() {
    let mut server = Server::start(&[]);
    let mut client = server.connect();
    client.send("SHUTDOWN NOSAVE\r\n");
    assert_eq!(client.read_to_end(), "");
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("User requested shutdown..."), "{log}");
}

#[test]
fn the_log_has_the_format_of_redis() {
    let server = Server::start(&[]);
    let line = server.start_log.lines().next().unwrap();
    let words: Vec<&str> = line.split(' ').collect();
    assert_eq!(words[0], format!("{}:M", server.pid()));
    assert_eq!(
        (
            words[1].len(),
            words[2].len(),
            words[3].len(),
            words[4].len()
        ),
        (2, 3, 4, 12),
        "{line}"
    );
    assert_eq!(words[5], "*");
}

#[test]
fn the_unix_socket_is_served_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ferrite.sock");
    let name = path.to_str().unwrap();
    // The file of a server that was killed is in the way.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let mut server = Server::start(&[
        "--unixsocket",
        name,
        "--unixsocketperm",
        "700",
        "--port",
        &free_port(),
    ]);
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    let mut client = Connection::new(UnixStream::connect(&path).unwrap());
    assert_eq!(client.command(&["SET", "key", "value"]), "+OK\r\n");
    assert_eq!(server.connect().command(&["GET", "key"]), "$5\r\nvalue\r\n");
    let taken = Server::refused(&["--unixsocket", name, "--port", "0"]);
    assert!(
        one_line(&taken.stderr).contains("another process listens on it"),
        "{taken:?}"
    );
    server.signal("TERM");
    assert_eq!(server.wait().0.code(), Some(0));
    assert!(!path.exists());
}

#[test]
fn a_port_in_use_refuses_the_start() {
    let foreign = TcpListener::bind("127.0.0.1:0").unwrap();
    let ferrite = Server::start(&[]);
    for port in [foreign.local_addr().unwrap().port(), ferrite.port] {
        let output = Server::refused(&["--port", &port.to_string()]);
        assert_eq!(output.status.code(), Some(1));
        let expected = format!(
            "Could not create server TCP listening socket 127.0.0.1:{port}: bind: Address already in use"
        );
        assert!(one_line(&output.stderr).contains(&expected), "{output:?}");
    }
}

#[test]
fn addresses_that_are_not_here() {
    let output = Server::refused(&["--bind", "127.0.0.1", "192.0.2.55"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        one_line(&output.stderr).contains("192.0.2.55"),
        "{output:?}"
    );
    let server = Server::start(&["--bind", "127.0.0.1", "-192.0.2.55"]);
    assert_eq!(server.connect().command(&["DBSIZE"]), ":0\r\n");
}

#[test]
fn a_directory_that_cannot_be_used_refuses_the_start() {
    let output = Server::refused(&["--dir", "/no/such/directory"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        one_line(&output.stderr).contains("/no/such/directory"),
        "{output:?}"
    );
}

#[test]
fn a_directory_that_is_full_or_read_only_refuses_the_start() {
    for (mount, fill, reason) in [
        (
            "size=256k",
            "head -c 1m /dev/zero >\"$0/rest\" 2>/dev/null",
            "No space left on device",
        ),
        ("ro", "true", "Read-only file system"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap();
        // A file system that only the server and its shell see.
        let mount = format!("mount -t tmpfs -o {mount} tmpfs \"$0\" && {{ {fill}; true; }}");
        let in_namespace = |script: String| {
            let mut command = Command::new("unshare");
            command.args(["--map-root-user", "--mount", "sh", "-c", &script, path]);
            command
        };
        let is_mounted = in_namespace(mount.clone()).status();
        if !is_mounted.is_ok_and(|status| status.success()) {
            println!("skipped: no file system can be mounted here");
            return;
        }
        let server = common::command(&dir, &[]);
        let mut command = in_namespace(format!("{mount} && exec \"$@\""));
        command.arg(server.get_program()).args(server.get_args());
        command.stdout(Stdio::piped());
        let output = Server::refused_command(command);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let line = one_line(&output.stderr);
        assert!(line.contains(path) && line.contains(reason), "{line}");
    }
}

/// With and without a start, and with the line of the directive.
#[test]
fn what_cannot_be_used_is_told_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ferrite.conf");
    let name = file.to_str().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    let long = format!("/{}", "x".repeat(200));
    let data = dir.path().display().to_string();
    for (directive, value, reason) in [
        ("dir", "/no/such/directory", "No such file or directory"),
        ("dir", name, "Not a directory"),
        (
            "logfile",
            "/no/such/directory/log",
            "No such file or directory",
        ),
        ("logfile", &data, "Is a directory"),
        (
            "unixsocket",
            "/no/such/directory/socket",
            "No such file or directory",
        ),
        ("unixsocket", "file", "there is something that is no socket"),
        ("unixsocket", &long, "the path is too long"),
        ("bind", "192.0.2.55", "Cannot assign requested address"),
    ] {
        // The last one counts.
        let lines = format!("port 0\ndir {data}\n{directive} {value}\n");
        std::fs::write(&file, lines).unwrap();
        let expected = format!("{name} line 3: {directive} '{value}': ");
        for arguments in [vec![name], vec!["--check-config", name]] {
            let output = Command::new(env!("CARGO_BIN_EXE_ferrite"))
                .args(&arguments)
                .output()
                .unwrap();
            assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
            let line = one_line(&output.stderr);
            assert!(line.contains(&expected), "{line}");
            assert!(
                line.contains(reason) && line.contains("(allowed: "),
                "{line}"
            );
        }
    }
    assert!(!dir.path().join("MANIFEST").exists());
}

/// A file cut short is what the device looks like when it fails to deliver a page.
#[test]
fn a_mapped_page_that_cannot_be_read_is_told_before_the_end() {
    let server = Server::start(&["--enable-debug-command", "local"]);
    let mut client = server.connect();
    for key in 0..100 {
        let value = "x".repeat(1000);
        assert_eq!(
            client.command(&["SET", &format!("key:{key}"), &value]),
            "+OK\r\n"
        );
    }
    assert_eq!(client.command(&["DEBUG", "FORCE-WARM"]), "+OK\r\n");
    let files = std::fs::read_dir(server.dir.path()).unwrap();
    let segments = files.map(|file| file.unwrap().path()).filter(|path| {
        let extension = path.extension();
        extension.is_some_and(|extension| extension == "seg")
    });
    let mut names = Vec::new();
    for segment in segments {
        let file = std::fs::File::options().write(true).open(&segment);
        file.and_then(|file| file.set_len(4096)).unwrap();
        names.push(segment.file_name().unwrap().to_str().unwrap().to_owned());
    }
    // Whatever looks at the record first, be it active expiry before this arrives.
    let _ = client.try_send(common::encode(&["GET", "key:90"]));
    let (status, log) = server.crash();
    assert!(!status.success());
    let is_named = names.iter().any(|name| log.contains(name));
    assert!(is_named && log.contains("SIGBUS"), "{log}");
}

#[test]
fn too_little_memory_for_the_directory_is_told_with_what_is_needed() {
    let dir = Server::start(&["--segment-size", "16mb", "--maxmemory", "512mb"]).shut_down(&[]);
    let output = Server::refused_in(&dir, &["--maxmemory", "64mb"]);
    let line = one_line(&output.stderr);
    assert!(line.contains("maxmemory 67108864 is too small"), "{line}");
    let (_, needed) = line.split_once("(allowed: ").expect("what is allowed");
    let (needed, _) = needed.split_once(' ').expect("a number of bytes");
    Server::start_in(dir, &["--maxmemory", needed]);
}

#[test]
fn protected_mode_turns_other_machines_away() {
    let Some(address) = outside_address() else {
        eprintln!("skipped: this machine has no address but loopback");
        return;
    };
    let connect = |server: &Server| {
        Connection::new(TcpStream::connect((address.as_str(), server.port)).unwrap())
    };
    let server = Server::start(&["--bind", "127.0.0.1", &address]);
    let denied = connect(&server).read_to_end();
    assert!(
        denied.starts_with("-DENIED Redis is running in protected mode because"),
        "{denied}"
    );
    assert_eq!(server.connect().command(&["DBSIZE"]), ":0\r\n");
    let open = Server::start(&["--bind", "127.0.0.1", &address, "--protected-mode", "no"]);
    assert_eq!(connect(&open).command(&["DBSIZE"]), ":0\r\n");
    let password = Server::start(&["--bind", "127.0.0.1", &address, "--requirepass", "secret"]);
    assert_eq!(connect(&password).command(&["AUTH", "secret"]), "+OK\r\n");
}

#[test]
fn renamed_commands_are_found_by_their_new_name_only() {
    let server = Server::start(&[
        "--rename-command",
        "GET",
        "fetch",
        "--rename-command",
        "FLUSHALL",
        "",
    ]);
    let mut client = server.connect();
    assert_eq!(client.command(&["FETCH", "key"]), "$-1\r\n");
    assert!(
        client
            .command(&["GET", "key"])
            .starts_with("-ERR unknown command 'GET'")
    );
    assert!(
        client
            .command(&["FLUSHALL"])
            .starts_with("-ERR unknown command 'FLUSHALL'")
    );
    let output = Server::refused(&["--rename-command", "nosuch", "x"]);
    assert!(one_line(&output.stderr).contains("nosuch"), "{output:?}");
}

/// The text, which must be one line.
fn one_line(text: &[u8]) -> &str {
    let text = std::str::from_utf8(text).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

fn free_port() -> String {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
        .to_string()
}

/// An address of this machine that is not loopback. Connecting a UDP socket sends nothing.
fn outside_address() -> Option<String> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then(|| ip.to_string())
}

#[test]
fn a_directory_in_use_refuses_the_start() {
    let server = Server::start(&[]);
    let dir = server.dir.path().to_str().unwrap();
    let output = Server::refused(&["--dir", dir]);
    assert_eq!(output.status.code(), Some(1));
    let line = one_line(&output.stderr);
    assert!(
        line.contains(dir) && line.contains("in use by another process"),
        "{line}"
    );
}

#[test]
fn a_daemon_writes_its_pid_file_and_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (pid_file, log_file, socket) = (path("pid"), path("log"), path("socket"));
    let directives = [
        "--daemonize",
        "yes",
        "--pidfile",
        &pid_file,
        "--logfile",
        &log_file,
        "--unixsocket",
        &socket,
    ];
    let started = Command::new(env!("CARGO_BIN_EXE_ferrite"))
        .args(["--port", "0", "--dir"])
        .arg(dir.path())
        .args(directives)
        .status()
        .unwrap();
    assert_eq!(started.code(), Some(0));
    let stream = common::eventually(|| UnixStream::connect(&socket).ok());
    let mut client = Connection::new(stream);
    // It may be loading its data yet.
    common::eventually(|| (client.command(&["PING"]) == "+PONG\r\n").then_some(()));
    let pid = std::fs::read_to_string(&pid_file).unwrap();
    assert!(
        client
            .command(&["INFO", "server"])
            .contains(&format!("process_id:{}", pid.trim()))
    );
    client.send("SHUTDOWN NOSAVE\r\n");
    assert_eq!(client.read_to_end(), "");
    common::eventually(|| (!std::path::Path::new(&pid_file).exists()).then_some(()));
    let log = std::fs::read_to_string(&log_file).unwrap();
    assert!(
        log.lines()
            .all(|line| line.starts_with(&format!("{}:M ", pid.trim()))),
        "{log}"
    );
    assert!(log.contains("bye bye..."), "{log}");
}
