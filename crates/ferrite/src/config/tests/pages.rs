//! The table against the lists, files and pages that must agree with it.

use std::fs;
use std::path::Path;

use super::*;
use crate::config::table::{Access, DIRECTIVES, Effect};

#[test]
fn every_directive_of_redis_is_known_with_its_default() {
    let (config, _) = load(&[]).unwrap();
    let here = std::env::current_dir().unwrap().display().to_string();
    let mut count = 0;
    for line in include_str!("../fixtures/redis-7.2-directives.txt")
        .lines()
        .skip(1)
    {
        let (name, default) = line.split_once(' ').unwrap_or((line, ""));
        let expected = match name {
            "dir" => here.as_str(),
            "io-threads" => "4",
            "appendonly" => "yes",
            "syslog-ident" => "ferrite",
            _ => default,
        };
        assert_eq!(get(&config, name), expected, "{name}");
        count += 1;
    }
    assert_eq!(count, 196);
}

#[test]
fn rows_are_complete_and_names_unique() {
    let mut names: Vec<&str> = DIRECTIVES
        .iter()
        .flat_map(table::Directive::names)
        .collect();
    names.sort_unstable();
    let all = names.len();
    names.dedup();
    assert_eq!(names.len(), all);
    for directive in DIRECTIVES {
        let (Effect::Works(text) | Effect::NoMeaning(text)) = directive.effect;
        assert!(
            !text.is_empty(),
            "{} does not say what it does",
            directive.name
        );
    }
}

#[test]
fn the_stock_file_of_a_distribution_starts_the_server() {
    let conf = Conf::new(include_str!("../fixtures/stock-redis.conf"));
    let (config, notices) = conf.load(&["--supervised", "no"]).unwrap();
    assert_eq!(notices, [""; 0]);
    let settings = config.settings();
    let bind = |address: &str, optional| BindAddress {
        address: address.to_owned(),
        optional,
    };
    assert_eq!(settings.bind, [bind("127.0.0.1", false), bind("::1", true)]);
    assert!(settings.daemonize);
    assert_eq!(
        settings.pidfile.as_deref(),
        Some(Path::new("/run/redis/redis-server.pid"))
    );
    assert_eq!(settings.dir, Path::new("/var/lib/redis"));
}

#[test]
fn the_example_file_is_right_and_explains_what_works() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let example = fs::read_to_string(root.join("ferrite.conf.example")).unwrap();
    // As it is, and with every line that is commented out in force.
    let uncommented: String = example
        .lines()
        .map(|line| {
            line.strip_prefix("#")
                .filter(|l| !l.starts_with(' '))
                .unwrap_or(line)
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    for text in [example.as_str(), uncommented.as_str()] {
        let (_, notices) = Conf::new(text).load(&[]).unwrap();
        assert_eq!(notices, [""; 0]);
    }
    for directive in DIRECTIVES {
        if matches!(directive.effect, Effect::Works(_)) {
            let explained = uncommented
                .lines()
                .any(|line| line.split_whitespace().next() == Some(directive.name));
            assert!(explained, "{} is not in the example file", directive.name);
        }
    }
}

/// The tables of docs/configuration.md are made from the table of directives. After a change, run
/// this test with FERRITE_BLESS=1 to bring the page up to date.
#[test]
fn the_documentation_lists_every_directive() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let old = fs::read_to_string(&page).unwrap();
    let mut new = old.clone();
    for (marker, works) in [("works", true), ("accepted", false)] {
        let (begin, end) = (
            format!("<!-- {marker} -->\n"),
            format!("<!-- end of {marker} -->"),
        );
        let from = new.find(&begin).expect("the marker of a table") + begin.len();
        let to = new.find(&end).expect("the marker of a table's end");
        new.replace_range(from..to, &directives_markdown(works));
    }
    if std::env::var_os("FERRITE_BLESS").is_some() {
        fs::write(&page, new).unwrap();
    } else {
        assert!(
            old == new,
            "out of date; run this test with FERRITE_BLESS=1"
        );
    }
}

fn directives_markdown(works: bool) -> String {
    let last = if works {
        "What it does"
    } else {
        "Why it does nothing"
    };
    let mut table =
        format!("| Directive | Values | Default | Changes | {last} |\n|---|---|---|---|---|\n");
    for directive in DIRECTIVES {
        let text = match directive.effect {
            Effect::Works(text) if works => text,
            Effect::NoMeaning(text) if !works => text,
            _ => continue,
        };
        let names: Vec<String> = directive.names().map(|name| format!("`{name}`")).collect();
        let default = match (directive.name, directive.default_text()) {
            ("io-threads", _) => "CPUs".to_owned(),
            (_, "") => String::new(),
            (_, default) => format!("`{default}`"),
        };
        let changes = match directive.access {
            Access::Mutable => "live",
            Access::Protected => "live, protected",
            Access::Immutable => "at start",
            Access::FileOnly => "in the file",
        };
        let values = directive.kind.allowed();
        table += &format!(
            "| {} | {values} | {default} | {changes} | {text} |\n",
            names.join(", ")
        );
    }
    table
}
