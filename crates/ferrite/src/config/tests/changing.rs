//! `CONFIG GET`, `SET` and `REWRITE`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::config::table::{Access, DIRECTIVES};

#[test]
fn get_takes_names_aliases_and_patterns() {
    let (config, _) = load(&["--replica-priority", "7"]).unwrap();
    let names = |patterns: &[&str]| {
        let patterns: Vec<&[u8]> = patterns.iter().map(|pattern| pattern.as_bytes()).collect();
        config
            .get(&patterns)
            .into_iter()
            .map(|(name, _)| name)
            .collect::<Vec<String>>()
    };
    assert_eq!(names(&["MaxMemory"]), ["MaxMemory"]);
    assert_eq!(names(&["nosuch", "include", "rename-command"]), [""; 0]);
    assert_eq!(
        names(&["MAXMEMORY-[ps]*"]),
        ["maxmemory-policy", "maxmemory-samples"]
    );
    assert_eq!(names(&["maxmemory", "maxmemor?"]), ["maxmemory"]);
    assert_eq!(
        names(&["*-priority"]),
        ["replica-priority", "slave-priority"]
    );
    assert_eq!(get(&config, "slave-priority"), "7");
    let visible = DIRECTIVES
        .iter()
        .filter(|directive| directive.access != Access::FileOnly && !directive.hidden);
    assert_eq!(
        names(&["*"]).len(),
        visible.flat_map(table::Directive::names).count()
    );
}

#[test]
fn set_changes_all_or_nothing_and_readers_see_it() {
    let config = Arc::new(load(&["--enable-protected-configs", "local"]).unwrap().0);
    let mut reader = SettingsReader::new(Arc::clone(&config));
    assert_eq!(reader.get().hz, 10);
    set(
        &config,
        &[("hz", "20"), ("timeout", "5"), ("maxmemory", "1GB")],
    )
    .unwrap();
    assert_eq!(reader.get().hz, 20);
    assert_eq!(reader.get().client_timeout, Some(Duration::from_secs(5)));
    assert_eq!(reader.get().maxmemory_bytes, GIB);

    let wrong = error(set(&config, &[("hz", "30"), ("timeout", "x")]));
    let failed = "ERR CONFIG SET failed (possibly related to argument";
    assert_eq!(
        wrong,
        format!("{failed} 'timeout') - argument couldn't be parsed into an integer")
    );
    assert_eq!(reader.get().hz, 20);

    for (pairs, expected) in [
        (
            &[("x", "1")][..],
            "ERR Unknown option or number of arguments for CONFIG SET - 'x'",
        ),
        (
            &[("include", "x")],
            "ERR Unknown option or number of arguments for CONFIG SET - 'include'",
        ),
        (
            &[("Databases", "4"), ("x", "1")],
            &format!("{failed} 'Databases') - can't set immutable config"),
        ),
        (
            &[("hz", "1"), ("HZ", "2")],
            &format!("{failed} 'HZ') - duplicate parameter"),
        ),
        (
            &[("maxmemory", "x")],
            &format!("{failed} 'maxmemory') - argument must be a memory value"),
        ),
        (
            &[("loglevel", "x")],
            &format!(
                "{failed} 'loglevel') - argument(s) must be one of the following: debug, verbose, notice, warning"
            ),
        ),
        (
            &[("save", "900")],
            &format!("{failed} 'save') - Invalid save parameters"),
        ),
        (
            &[("dbfilename", "a/b")],
            &format!("{failed} 'dbfilename') - argument can't be a path, just a file name"),
        ),
    ] {
        assert_eq!(&error(set(&config, pairs)), expected);
    }
    let remote = config.set(&[(b"dbfilename", b"x")], Origin::Remote, |_, _| Ok(()));
    assert_eq!(
        error(remote),
        format!("{failed} 'dbfilename') - can't set protected config")
    );

    let notices = set(
        &config,
        &[("activedefrag", "yes"), ("maxmemory-clients", "5%")],
    )
    .unwrap();
    assert_eq!(
        notices,
        ["activedefrag has no effect: the log does not fragment memory"]
    );
    assert_eq!(reader.get().maxmemory_clients_bytes, Some(GIB / 100 * 5));
}

#[test]
fn a_change_that_cannot_be_applied_is_taken_back() {
    let (config, _) = load(&["--maxmemory", "1gb"]).unwrap();
    let mut applied = Vec::new();
    let pairs: [(&[u8], &[u8]); 3] = [(b"hz", b"50"), (b"maxmemory", b"2gb"), (b"timeout", b"0")];
    let result = config.set(&pairs, Origin::Local, |settings, changed| {
        applied.push((settings.maxmemory_bytes / GIB, changed.to_vec()));
        match settings.maxmemory_bytes / GIB {
            2 => Err(ApplyError {
                directive: "maxmemory",
                reason: "no room".to_owned(),
            }),
            _ => Ok(()),
        }
    });
    let expected = "ERR CONFIG SET failed (possibly related to argument 'maxmemory') - no room";
    assert_eq!(error(result), expected);
    // The order is that of the table; what was set to the value it had did not change.
    assert_eq!(
        applied,
        [(2, vec!["maxmemory", "hz"]), (1, vec!["maxmemory", "hz"])]
    );
    assert_eq!(get(&config, "hz"), "10");
    assert_eq!(config.settings().maxmemory_bytes, GIB);
}

#[test]
fn rewrite_keeps_the_file_and_changes_what_changed() {
    let conf = Conf::new(
        "# Ours.\n\n  maxmemory   100mb\nport 7000\nsave 900 1\n# More.\nsave 300 10\n\
         slave-priority 7\nrename-command GET fetch\nport 7001",
    );
    let (config, _) = conf.load(&["--timeout", "9"]).unwrap();
    set(
        &config,
        &[
            ("hz", "20"),
            ("replica-priority", "8"),
            ("requirepass", "a \"b\"\n"),
        ],
    )
    .unwrap();
    set(&config, &[("save", "60 5")]).unwrap();
    config.rewrite().unwrap();
    let expected = format!(
        "# Ours.\n\n  maxmemory   100mb\nport 7000\nsave 60 5\n# More.\n\
         replica-priority 8\nrename-command GET fetch\nport 7001\n\
         # Generated by CONFIG REWRITE\ntimeout 9\nrequirepass \"a \\\"b\\\"\\n\"\nhz 20\ndir \"{}\"\n",
        std::env::current_dir().unwrap().display()
    );
    assert_eq!(conf.text(), expected);
    let again = conf.load_ok();
    assert_eq!(again.get(&[b"*"]), config.get(&[b"*"]));
    again.rewrite().unwrap();
    assert_eq!(conf.text(), expected, "nothing changed");
}

#[test]
fn rewrite_replaces_the_file_in_one_step_with_its_mode() {
    let conf = Conf::new("dir /tmp\nhz 5\n");
    fs::set_permissions(conf.path(), fs::Permissions::from_mode(0o640)).unwrap();
    let link = conf.dir.path().join("link.conf");
    std::os::unix::fs::symlink("ferrite.conf", &link).unwrap();
    let (config, _) = load(&[link.to_str().unwrap()]).unwrap();
    set(&config, &[("hz", "6")]).unwrap();
    config.rewrite().unwrap();
    assert_eq!(conf.text(), "dir /tmp\nhz 6\n");
    assert_eq!(
        fs::metadata(conf.path()).unwrap().permissions().mode() & 0o777,
        0o640
    );
    assert!(link.is_symlink());
    assert_eq!(
        fs::read_dir(conf.dir.path()).unwrap().count(),
        2,
        "no temporary file stays"
    );

    fs::remove_dir_all(conf.dir.path()).unwrap();
    let gone = "ERR Rewriting config file: No such file or directory";
    assert_eq!(config.rewrite(), Err(gone.to_owned()));
    let (without, _) = load(&["--hz", "5"]).unwrap();
    let expected = "ERR The server is running without a config file";
    assert_eq!(without.rewrite(), Err(expected.to_owned()));
}

/// Whatever `CONFIG SET` accepts, `CONFIG REWRITE` writes so that a restart has it again.
#[test]
fn rewritten_values_survive_a_restart() {
    const VALUES: &[&str] = &[
        "yes",
        "no",
        "0",
        "1",
        "7",
        "100",
        "5%",
        "1kb",
        "3mb",
        "2g",
        "1234567",
        "",
        "now force",
        "normal 1 2kb 3 replica 0 0 0",
        "900 1 300 10",
        "KEA",
        "g$m",
        "50 99.5 99.999",
        "1 2 3",
        "allkeys-lru",
        "debug",
        "always",
        "a b",
        "host.name",
        "{title} {port}",
        "\"#'\\\n\u{e9}",
        "resetchannels",
        "relative",
        "swapdb",
        "clients",
        "panic",
        "local",
    ];
    let seed = io::Read::bytes(fs::File::open("/dev/urandom").unwrap()).take(8);
    let seed = seed.fold(0, |sum: u64, byte| sum << 8 | u64::from(byte.unwrap()));
    println!("seed {seed}");
    let mut state = seed | 1;
    let mut random = |below: usize| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    let conf = Conf::new("# ours\nhz 20\nsave 900 1\n\nmaxmemory 1gb\nloglevel debug\n");
    let mut accepted = 0;
    for _ in 0..20 {
        let config = conf.load_ok();
        for _ in 0..200 {
            let directive = &DIRECTIVES[random(DIRECTIVES.len())];
            // A server with so little memory does not start again.
            if directive.name != "maxmemory" {
                let value = VALUES[random(VALUES.len())];
                accepted += usize::from(set(&config, &[(directive.name, value)]).is_ok());
            }
        }
        config.rewrite().unwrap();
        assert_eq!(
            conf.load_ok().get(&[b"*"]),
            config.get(&[b"*"]),
            "seed {seed}\n{}",
            conf.text()
        );
        assert!(conf.text().starts_with("# ours\n"));
    }
    assert!(
        accepted > 400,
        "seed {seed}: only {accepted} values were accepted"
    );
}
