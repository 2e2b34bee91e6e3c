//! The command line: `ferrite [ferrite.conf] [-] [--directive value ...]`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::config::{Config, Written};
use crate::config::{table, usable};

/// What `--help` prints.
pub(crate) const HELP: &str = "\
Usage: ferrite [FILE] [--DIRECTIVE VALUE ...] [-]
       ferrite - (reads the configuration from standard input)
       ferrite --check-config FILE
       ferrite --check DIR (tells whether a data directory is sound; changes nothing)
       ferrite --repair DIR (makes one that starts of what is sound in a damaged one)
       ferrite -v or --version
       ferrite -h or --help

FILE and directives are those of redis.conf; ferrite.conf.example explains the
ones that matter here. Later ones win: the file, standard input, the command line.

Examples:
       ferrite
       ferrite /etc/ferrite.conf
       ferrite --port 7777 --dir /var/lib/ferrite --maxmemory 4gb
       ferrite /etc/ferrite.conf --loglevel verbose
       echo 'maxmemory 1gb' | ferrite -
";

/// What `--version` prints.
pub(crate) const VERSION: &str = concat!("Ferrite server v", env!("CARGO_PKG_VERSION"), "\n");

/// Where the configuration comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cli {
    pub(crate) file: Option<PathBuf>,
    pub(crate) reads_stdin: bool,
    pub(crate) directives: Vec<Written>,
}

/// What the user wants.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Invocation {
    Run(Cli),
    CheckConfig(PathBuf),
    Check(PathBuf),
    Repair(PathBuf),
    Help,
    Version,
}

/// Reads the arguments after the program's name. The error is one line.
///
/// A directive's values go on to the next argument that begins with `--`; of a directive with one
/// value, that value may itself begin so.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Invocation, String> {
    let args: Vec<OsString> = args.into_iter().collect();
    match args.first().and_then(|first| first.to_str()) {
        Some("-h" | "--help") => return Ok(Invocation::Help),
        Some("-v" | "--version") => return Ok(Invocation::Version),
        Some("--check-config") => return only_path(&args, "file").map(Invocation::CheckConfig),
        Some("--check") => return only_path(&args, "directory").map(Invocation::Check),
        Some("--repair") => return only_path(&args, "directory").map(Invocation::Repair),
        _ => {}
    }
    let mut cli = Cli::default();
    let mut rest = args.as_slice();
    if let [file, after @ ..] = rest
        && !file.as_encoded_bytes().starts_with(b"-")
    {
        cli.file = Some(PathBuf::from(file));
        rest = after;
    }
    // A lone `-` is standard input in front of the directives or behind them.
    if let [dash, after @ ..] = rest
        && dash == "-"
    {
        cli.reads_stdin = true;
        rest = after;
    }
    if let [before @ .., dash] = rest
        && dash == "-"
    {
        cli.reads_stdin = true;
        rest = before;
    }
    cli.directives = parse_directives(rest)?;
    Ok(Invocation::Run(cli))
}

/// The path behind an option that stands alone.
fn only_path(args: &[OsString], what: &str) -> Result<PathBuf, String> {
    match args {
        [_, path] => Ok(PathBuf::from(path)),
        [option, ..] => {
            let option = option.to_string_lossy();
            Err(format!(
                "{option}: wrong number of arguments (allowed: 1 {what})"
            ))
        }
        [] => Err(format!("expected 1 {what}")),
    }
}

/// `--check-config`: the line that says that `file` starts a server, or why not.
pub(crate) fn check_config(file: PathBuf) -> Result<String, String> {
    let name = file.display().to_string();
    let cli = Cli {
        file: Some(file),
        ..Cli::default()
    };
    let checked = Config::load(&cli).and_then(|(config, _)| usable::check(&config));
    match checked {
        Ok(()) => Ok(format!("{name}: ok")),
        Err(error) => Err(error.to_string()),
    }
}

fn parse_directives(args: &[OsString]) -> Result<Vec<Written>, String> {
    let mut directives: Vec<Written> = Vec::new();
    for arg in args {
        let text = arg.as_encoded_bytes();
        let name = text.strip_prefix(b"--").filter(|name| !name.is_empty());
        match (directives.last_mut(), name) {
            (Some(last), _) if last.words.is_empty() && takes_one_value(&last.name) => {
                last.words.push(text.to_vec());
            }
            (_, Some(name)) => {
                directives.push(Written {
                    name: name.to_vec(),
                    words: Vec::new(),
                });
            }
            (Some(last), None) => last.words.push(arg.clone().into_vec()),
            (None, None) => {
                let shown = arg.to_string_lossy();
                return Err(format!(
                    "command line: unexpected '{shown}' (allowed: a file, then --directive value)"
                ));
            }
        }
    }
    for directive in &mut directives {
        // As Redis has it, `--save` alone means `--save ""`.
        if directive.words.is_empty() && directive.name.eq_ignore_ascii_case(b"save") {
            directive.words.push(Vec::new());
        }
    }
    Ok(directives)
}

/// Whether the directive called `name` takes exactly one value.
fn takes_one_value(name: &[u8]) -> bool {
    table::find(name).is_some_and(|(row, _)| !table::DIRECTIVES[row].kind.takes_many_words())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &[&str]) -> Result<Cli, String> {
        match parse(args.iter().map(OsString::from))? {
            Invocation::Run(cli) => Ok(cli),
            other => panic!("{other:?}"),
        }
    }

    fn written(line: &[&str]) -> Written {
        let mut words = line.iter().map(|word| word.as_bytes().to_vec());
        Written {
            name: words.next().unwrap(),
            words: words.collect(),
        }
    }

    #[test]
    fn file_and_directives() {
        let cli = run(&[
            "x.conf", "--port", "7000", "--save", "900", "1", "300", "10", "--hz", "5",
        ]);
        let expected = Cli {
            file: Some(PathBuf::from("x.conf")),
            reads_stdin: false,
            directives: vec![
                written(&["port", "7000"]),
                written(&["save", "900", "1", "300", "10"]),
                written(&["hz", "5"]),
            ],
        };
        assert_eq!(cli, Ok(expected));
    }

    #[test]
    fn values_that_look_like_directives_and_missing_values() {
        let cli = run(&["--requirepass", "--secret", "--save", "--port", "0"]).unwrap();
        let expected = [
            written(&["requirepass", "--secret"]),
            written(&["save", ""]),
            written(&["port", "0"]),
        ];
        assert_eq!(cli.directives, expected);
    }

    #[test]
    fn standard_input_in_front_and_behind() {
        assert!(run(&["-"]).unwrap().reads_stdin);
        let cli = run(&["x.conf", "--hz", "5", "-"]).unwrap();
        assert!(cli.reads_stdin);
        assert_eq!(cli.directives, [written(&["hz", "5"])]);
        assert!(!run(&["--hz", "5"]).unwrap().reads_stdin);
    }

    #[test]
    fn questions_and_mistakes() {
        let parse = |args: &[&str]| parse(args.iter().map(OsString::from));
        assert_eq!(parse(&["-h"]), Ok(Invocation::Help));
        assert_eq!(parse(&["--version"]), Ok(Invocation::Version));
        let check = Invocation::CheckConfig(PathBuf::from("x.conf"));
        assert_eq!(parse(&["--check-config", "x.conf"]), Ok(check));
        let directory = || PathBuf::from("data");
        assert_eq!(
            parse(&["--check", "data"]),
            Ok(Invocation::Check(directory()))
        );
        assert_eq!(
            parse(&["--repair", "data"]),
            Ok(Invocation::Repair(directory()))
        );
        assert!(parse(&["--repair", "a", "b"]).is_err());
        assert!(
            parse(&["--check-config"])
                .unwrap_err()
                .contains("--check-config")
        );
        assert!(
            parse(&["x.conf", "y.conf"])
                .unwrap_err()
                .contains("'y.conf'")
        );
        assert!(parse(&["-x"]).unwrap_err().contains("'-x'"));
    }
}
