//! Files, included files, standard input, arguments; what the machine adds.

use std::fs;

use super::*;

#[test]
fn all_words_of_a_directive_may_be_one_argument() {
    let (config, _) = load(&[
        "--save",
        "900 1 300 10",
        "--shutdown-on-sigterm",
        "save force",
    ])
    .unwrap();
    assert_eq!(get(&config, "save"), "900 1 300 10");
    assert_eq!(get(&config, "shutdown-on-sigterm"), "save force");
    let (config, _) = load(&["--save", ""]).unwrap();
    assert_eq!(get(&config, "save"), "");
}

#[test]
fn check_config_says_ok_or_why_not() {
    let good = Conf::new("port 7000\n");
    assert_eq!(
        cli::check_config(good.path().into()),
        Ok(format!("{}: ok", good.path()))
    );
    let bad = Conf::new("port 7000\n\nporrt 1\n");
    let expected = format!(
        "{} line 3: unknown directive 'porrt', did you mean 'port'?",
        bad.path()
    );
    assert_eq!(cli::check_config(bad.path().into()), Err(expected));
}

#[test]
fn mistakes_name_file_line_directive_and_what_is_allowed() {
    for (line, expected) in [
        (
            "port abc",
            "port 'abc': argument couldn't be parsed into an integer (allowed: a whole number from \
             0 to 65535)",
        ),
        (
            "slave-priority -1",
            "slave-priority '-1': argument must be between 0 and 2147483647 inclusive (allowed: a \
             whole number from 0 to 2147483647)",
        ),
        (
            "maxmemory 1tb",
            "maxmemory '1tb': argument must be a memory value (allowed: a size from 0 up, such as 64mb)",
        ),
        (
            "maxmemory 1gb 2gb",
            "maxmemory '1gb 2gb': wrong number of arguments (allowed: a size from 0 up, such as 64mb)",
        ),
        (
            "appendonly",
            "appendonly '': wrong number of arguments (allowed: yes or no)",
        ),
        (
            "io-backend aio",
            "io-backend 'aio': argument(s) must be one of the following: auto, uring, tokio (allowed: one of auto, uring, tokio)",
        ),
        (
            "segment-size 3mb",
            "segment-size '3mb': argument must be 0 (automatic) or a power of two from 1mb to 32mb (allowed: 0 (automatic) or a power of two from 1mb to 32mb)",
        ),
        (
            "unixsocketperm 999",
            "unixsocketperm '999': argument couldn't be parsed as an octal number (allowed: an octal number from 0 to 777)",
        ),
        (
            "requirepass a secret",
            "requirepass '(hidden)': wrong number of arguments (allowed: one word, quoted if it has blanks)",
        ),
        (
            "rename-command GET",
            "rename-command 'GET': wrong number of arguments (allowed: 2 values)",
        ),
        ("logfile \"x", "unbalanced quotes"),
        (
            "sentinel monitor x",
            "unknown directive 'sentinel' (allowed: the directives of Redis 7.2 and those in docs/configuration.md)",
        ),
        (
            "include /nonexistent/x.conf",
            "include: /nonexistent/x.conf: No such file or directory",
        ),
    ] {
        let conf = Conf::new(&format!("# first\n{line}\nhz 5\n"));
        let expected = format!("{} line 2: {expected}", conf.path());
        assert_eq!(error(conf.load(&[])), expected);
    }
    let missing = error(load(&["/nonexistent/x.conf"]));
    assert_eq!(missing, "/nonexistent/x.conf: No such file or directory");
    assert!(error(load(&["--hz", "x"])).starts_with("command line: hz 'x': "));
}

#[test]
fn later_lines_win_and_lists_add_up() {
    let conf = Conf::new(
        "PORT 7000 \r\n save 900 1\nsave 300 10 60 5\nbind 10.0.0.1\nbind 10.0.0.2 -::1\n\
         client-output-buffer-limit replica 1mb 1k 5\nclient-output-buffer-limit normal 2GB 1g 9\n\
         slaveof 10.0.0.9 6379\nport 7001\nunixsocketperm 0770\nhz 100000\n\
         rename-command FLUSHALL \"\"\nrename-command CONFIG c0nfig\n",
    );
    let (config, _) = conf
        .load(&["--save", "60", "7", "--maxclients", "12"])
        .unwrap();
    assert_eq!(get(&config, "port"), "7001");
    assert_eq!(get(&config, "save"), "900 1 300 10 60 5 60 7");
    assert_eq!(get(&config, "bind"), "10.0.0.2 -::1");
    let limits = "normal 2147483648 1000000000 9 slave 1048576 1000 5 pubsub 33554432 8388608 60";
    assert_eq!(get(&config, "client-output-buffer-limit"), limits);
    assert_eq!(get(&config, "replicaof"), "10.0.0.9 6379");
    assert_eq!(get(&config, "unixsocketperm"), "770");
    assert_eq!(get(&config, "hz"), "500");
    let settings = config.settings();
    assert_eq!(settings.maxclients, 12);
    assert_eq!(settings.unixsocket_mode, Some(0o770));
    let renamed = |line, from: &str, to: &str| RenamedCommand {
        place: format!("{} line {line}", conf.path()),
        from: from.into(),
        to: to.into(),
    };
    let expected = [renamed(12, "FLUSHALL", ""), renamed(13, "CONFIG", "c0nfig")];
    assert_eq!(settings.renamed_commands, expected);
}

#[test]
fn includes_stand_in_place_and_may_be_patterns() {
    let conf = Conf::new("");
    let dir = conf.dir.path().display().to_string();
    fs::create_dir(conf.dir.path().join("conf.d")).unwrap();
    conf.add("conf.d/20.conf", "hz 20\ntimeout 20\n");
    conf.add("conf.d/10.conf", "hz 10\ntimeout 10\n");
    conf.add("conf.d/.hidden.conf", "hz 1\n");
    conf.add("conf.d/notes.txt", "not a configuration\n");
    conf.add(
        "ferrite.conf",
        &format!("hz 5\ninclude {dir}/conf.d/*.conf\ntimeout 30\ninclude {dir}/none.d/*.conf\n"),
    );
    let config = conf.load_ok();
    assert_eq!(get(&config, "hz"), "20");
    assert_eq!(get(&config, "timeout"), "30");

    conf.add("conf.d/20.conf", "\nhz x\n");
    assert!(error(conf.load(&[])).starts_with(&format!("{dir}/conf.d/20.conf line 2: hz 'x'")));
    conf.add("ferrite.conf", &format!("include {}\n", conf.path()));
    assert!(error(conf.load(&[])).ends_with("files include each other more than 16 deep"));
}

#[test]
fn standard_input_comes_after_the_file_and_before_the_arguments() {
    let conf = Conf::new("hz 1\ntimeout 1\nmaxclients 1\n");
    let path = conf.path();
    let args = [path.as_str(), "--maxclients", "3", "-"];
    let stdin = "timeout 2\nmaxclients 2\n";
    let (config, _) = load_on(MACHINE, &args, stdin).unwrap();
    let values = ["hz", "timeout", "maxclients"].map(|name| get(&config, name));
    assert_eq!(values, ["1", "2", "3"]);
    let wrong = error(load_on(MACHINE, &["-"], "\ntimeout x"));
    assert!(
        wrong.starts_with("standard input line 2: timeout 'x': "),
        "{wrong}"
    );
}

#[test]
fn notices_only_for_unusual_values_without_effect() {
    let conf = Conf::new("appendonly no\nhz 20\nactivedefrag yes\nlist-max-ziplist-value 64\n");
    let (_, notices) = conf
        .load(&["--save", "", "--cluster-enabled", "yes"])
        .unwrap();
    let removed = "list-max-ziplist-value has no effect: Redis removed it as well";
    let expected = [
        format!(
            "{} line 3: activedefrag has no effect: the log does not fragment memory",
            conf.path()
        ),
        format!("{} line 4: {removed}", conf.path()),
        "command line: cluster-enabled has no effect: cluster mode is not supported".to_owned(),
    ];
    assert_eq!(notices, expected);
}

#[test]
fn workers_and_memory_follow_from_the_machine() {
    let settings = |machine, args: &[&str]| load_on(machine, args, "").unwrap().0.settings();
    let automatic = settings(MACHINE, &[]);
    assert_eq!(automatic.workers, 4);
    assert_eq!(automatic.maxmemory_bytes, 10 * GIB / 100 * 60);

    let many = Machine {
        cpus: 64,
        ..MACHINE
    };
    assert_eq!(
        settings(many, &["--maxmemory", "64mb"]).workers,
        9,
        "no more than fit"
    );
    assert_eq!(settings(many, &["--maxmemory", "1gb"]).workers, 64);
    let (config, _) = load_on(many, &[], "").unwrap();
    assert_eq!(get(&config, "maxmemory"), "0");

    assert_eq!(
        error(load(&["--maxmemory", "40mb", "--io-threads", "4"])),
        "command line: maxmemory 41943040 is too small for io-threads 4 (allowed: 44mb or more, or \
         fewer io-threads)"
    );
    assert_eq!(
        settings(MACHINE, &["--maxmemory", "44mb", "--io-threads", "4"]).workers,
        4
    );
    let unknown = Machine {
        memory_bytes: None,
        ..MACHINE
    };
    assert!(error(load_on(unknown, &[], "")).starts_with("maxmemory 0: "));
    assert_eq!(
        settings(unknown, &["--maxmemory", "1gb"]).maxmemory_bytes,
        GIB
    );
}

#[test]
fn a_user_line_gives_the_default_user_its_password() {
    for (line, password) in [
        ("user default on >secret ~* +@all", "secret"),
        (
            "user default ON sanitize-payload ALLKEYS &* AllCommands >Secret",
            "Secret",
        ),
        ("user default on nopass sanitize-payload ~* &* +@all", ""),
        ("requirepass a\nuser default on >a ~* +@all", "a"),
    ] {
        let conf = Conf::new(line);
        let (config, notices) = conf.load(&[]).unwrap();
        assert_eq!(notices, [""; 0], "{line}");
        assert_eq!(config.settings().requirepass, password.as_bytes(), "{line}");
        // A rewritten file says the same.
        config.rewrite().unwrap();
        assert!(!conf.text().contains("user"), "{}", conf.text());
        let again = conf.load_ok();
        assert_eq!(again.settings().requirepass, password.as_bytes(), "{line}");
    }
}

#[test]
fn users_that_cannot_be_honoured_end_the_start() {
    for text in [
        "user alice on >secret ~* +@all",
        "user default off >secret ~* +@all",
        "user default >secret ~* +@all",
        "user default on >secret ~* +@all -flushall",
        "user default on >secret ~app:* +@all",
        "user default on >secret ~*",
        "user default on ~* +@all",
        "user default on > ~* +@all",
        "user default on >secret >secret2 ~* +@all",
        "user default on #secret ~* +@all",
        "requirepass one\nuser default on >secret ~* +@all",
        "requirepass one\nuser default on nopass ~* +@all",
        "user default on >secret ~* +@all\nuser default on >secret ~* +@all",
        "aclfile /etc/redis/users.acl",
    ] {
        let conf = Conf::new(text);
        let Err(line) = conf.load(&[]) else {
            panic!("{text} starts")
        };
        let place = format!("{} line {}: ", conf.path(), text.lines().count());
        assert!(line.starts_with(&place), "{line}");
        assert!(line.contains("(allowed: "), "{line}");
        assert!(!line.contains("secret"), "{line}");
    }
}

#[test]
fn what_redis_has_for_its_tests_is_accepted_and_hidden() {
    let conf = Conf::new("watchdog-period 100\nuse-exit-on-panic no\nkey-load-delay 0\n");
    let (config, notices) = conf.load(&[]).unwrap();
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert_eq!(get(&config, "watchdog-period"), "100");
    assert_eq!(config.get(&[b"watchdog*"]), []);
}
