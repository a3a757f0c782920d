//! The command line as typed.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::Arg;

use crate::error::{Error, Result};
use crate::usage::{self, Opt, Verb};

/// Options that stand before the command.
#[derive(Debug, Clone)]
pub struct Global {
    pub root: PathBuf,
    pub log: Option<PathBuf>,
    pub log_format: LogFormat,
    pub debug: bool,
    pub systemd_cgroup: bool,
    /// No cgroups at all.
    pub no_cgroup: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    Text,
}

/// A command with its options and operands.
#[derive(Debug)]
pub struct Command {
    pub verb: &'static Verb,
    options: Vec<(&'static str, String)>,
    pub operands: Vec<String>,
}

pub enum Parsed {
    /// Only something to print.
    Answer(String),
    Command(Global, Command),
}

impl Global {
    pub fn parse(arguments: Vec<OsString>) -> Result<Parsed> {
        let mut parser = lexopt::Parser::from_args(arguments);
        let mut options = Vec::new();
        let verb = loop {
            let name = match parser.next().map_err(wrong)? {
                None => return Ok(Parsed::Answer(usage::overview())),
                Some(Arg::Value(word)) => break text(word)?,
                Some(Arg::Long(name)) => find(usage::GLOBAL, |opt| opt.long == name, name)?,
                Some(Arg::Short(letter)) => {
                    let name = letter.to_string();
                    find(usage::GLOBAL, |opt| opt.short == Some(letter), &name)?
                }
            };
            match name.long {
                "help" => return Ok(Parsed::Answer(usage::overview())),
                "version" => return Ok(Parsed::Answer(version())),
                _ => options.push((name.long, value(name, &mut parser)?)),
            }
        };
        if verb == "help" {
            return Ok(Parsed::Answer(usage::overview()));
        }
        let verb = usage::VERBS.iter().find(|known| known.name == verb).ok_or_else(|| {
            Error::Usage(format!("there is no command {verb:?}: see `bulkhead oci --help`"))
        })?;
        let Some(command) = Command::parse(verb, &mut parser)? else {
            return Ok(Parsed::Answer(usage::of(verb)));
        };
        Ok(Parsed::Command(Self::from_options(&options)?, command))
    }

    fn from_options(options: &[(&str, String)]) -> Result<Self> {
        let last = |name: &str| {
            options.iter().rev().find(|(option, _)| *option == name).map(|option| &option.1)
        };
        let manager = last("cgroup-manager").map_or("cgroupfs", String::as_str);
        if !["cgroupfs", "systemd", "disabled"].contains(&manager) {
            let text =
                format!("invalid --cgroup-manager {manager:?}: use cgroupfs, systemd or disabled");
            return Err(Error::Usage(text));
        }
        let log_format = match last("log-format").map_or("text", String::as_str) {
            "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            other => {
                return Err(Error::Usage(format!(
                    "unknown log-format {other:?}: use text or json"
                )));
            }
        };
        let root = match last("root") {
            Some(root) => std::path::absolute(root)
                .map_err(Error::system(format!("find the directory of --root {root:?}")))?,
            None => crate::caller::default_root(),
        };
        Ok(Self {
            root,
            log: last("log").filter(|path| !path.is_empty()).map(PathBuf::from),
            log_format,
            debug: last("debug").is_some_and(|value| value != "false"),
            systemd_cgroup: last("systemd-cgroup").is_some_and(|value| value != "false")
                || manager == "systemd",
            no_cgroup: manager == "disabled",
        })
    }
}

impl Command {
    /// `None` is a call for help.
    fn parse(verb: &'static Verb, parser: &mut lexopt::Parser) -> Result<Option<Self>> {
        let mut command = Self { verb, options: Vec::new(), operands: Vec::new() };
        while let Some(argument) = parser.next().map_err(wrong)? {
            let opt = match argument {
                Arg::Value(word) => {
                    command.operands.push(text(word)?);
                    if verb.trailing {
                        let rest = parser.raw_args().map_err(wrong)?;
                        for word in rest {
                            command.operands.push(text(word)?);
                        }
                        // only for a person's eyes, as in `exec ID -- COMMAND`
                        if command.operands.get(1).is_some_and(|word| word == "--") {
                            command.operands.remove(1);
                        }
                    }
                    continue;
                }
                Arg::Long("help") | Arg::Short('h') => return Ok(None),
                Arg::Long(name) => find(verb.options, |opt| opt.long == name, name)?,
                Arg::Short(letter) => {
                    let name = letter.to_string();
                    find(verb.options, |opt| opt.short == Some(letter), &name)?
                }
            };
            let value = value(opt, parser)?;
            command.options.push((opt.long, value));
        }
        Ok(Some(command))
    }

    pub fn has(&self, name: &str) -> bool {
        self.options.iter().any(|(option, value)| *option == name && value != "false")
    }

    /// The last value that was given.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.options
            .iter()
            .rev()
            .find(|(option, _)| *option == name)
            .map(|option| option.1.as_str())
    }

    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.options
            .iter()
            .filter(move |(option, _)| *option == name)
            .map(|option| option.1.as_str())
    }

    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.value(name).filter(|path| !path.is_empty()).map(PathBuf::from)
    }

    /// A number, or a clear word about what is none.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>> {
        let Some(value) = self.value(name).filter(|value| !value.is_empty()) else {
            return Ok(None);
        };
        let wrong = || Error::Usage(format!("invalid value {value:?} of --{name}: write a number"));
        value.parse().map(Some).map_err(|_| wrong())
    }

    /// The one operand, the container's id.
    pub fn id(&self) -> Result<&str> {
        let usage = || {
            Error::Usage(format!(
                "{}: {:?} requires exactly 1 argument: {}",
                self.verb.name, self.verb.name, self.verb.operands
            ))
        };
        let id = self.operands.first().ok_or_else(usage)?;
        let most = if self.verb.trailing {
            usize::MAX
        } else {
            self.verb.operands.split_whitespace().count()
        };
        if self.operands.len() > most { Err(usage()) } else { Ok(id) }
    }
}

fn version() -> String {
    format!(
        "bulkhead version {}\nspec: {}\n",
        env!("CARGO_PKG_VERSION"),
        bulkhead_types::oci::VERSION
    )
}

fn find(list: &'static [Opt], is: impl Fn(&Opt) -> bool, name: &str) -> Result<&'static Opt> {
    let unknown = || {
        let dashes = if name.chars().count() == 1 { "-" } else { "--" };
        Error::Usage(format!("flag provided but not defined: {dashes}{name}: see --help"))
    };
    list.iter().find(|opt| is(opt)).ok_or_else(unknown)
}

fn value(opt: &Opt, parser: &mut lexopt::Parser) -> Result<String> {
    match opt.value {
        // the Go programs that call a runtime also write --flag=true
        None => match parser.optional_value() {
            Some(value) => text(value),
            None => Ok(String::new()),
        },
        Some(_) => text(parser.value().map_err(wrong)?),
    }
}

fn text(word: OsString) -> Result<String> {
    word.into_string().map_err(|word| Error::Usage(format!("{} is not UTF-8", word.display())))
}

fn wrong(error: lexopt::Error) -> Error {
    Error::Usage(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> (Global, Command) {
        let words = words.split_whitespace().map(OsString::from).collect();
        match Global::parse(words).unwrap() {
            Parsed::Command(global, command) => (global, command),
            Parsed::Answer(text) => panic!("{text}"),
        }
    }

    fn refused(words: &str) -> String {
        let words = words.split_whitespace().map(OsString::from).collect();
        Global::parse(words).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn what_containerd_and_podman_write_is_understood() {
        let (global, command) = parse(
            "--root /run/x --log /l.json --log-format json --systemd-cgroup create --bundle /b \
             --pid-file /b/pid --console-socket /s --no-pivot --preserve-fds 2 box",
        );
        assert_eq!(global.root, PathBuf::from("/run/x"));
        assert!(global.systemd_cgroup && global.log_format == LogFormat::Json);
        assert_eq!(command.path("bundle"), Some("/b".into()));
        assert_eq!(command.number::<u32>("preserve-fds").unwrap(), Some(2));
        assert_eq!(command.id().unwrap(), "box");
        let (_, command) = parse("kill --all box 15");
        assert!(command.has("all"));
        assert_eq!(command.operands, ["box", "15"]);
        let (_, command) = parse("--root=/r exec -u 1:2 --env A=1 --env B=2 box ls -l --all");
        assert_eq!(command.operands, ["box", "ls", "-l", "--all"]);
        assert_eq!(command.values("env").collect::<Vec<_>>(), ["A=1", "B=2"]);
        let (_, command) = parse("list --format=json");
        assert_eq!(command.value("format"), Some("json"));
        let (global, _) = parse("--rootless=true --debug=false state box");
        assert!(!global.debug);
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        for (words, want) in [
            ("frobnicate", "there is no command \"frobnicate\""),
            ("--frob state x", "flag provided but not defined: --frob"),
            ("create -x box", "flag provided but not defined: -x"),
            ("--log-format xml state x", "unknown log-format \"xml\""),
            ("create --bundle", "missing argument for option '--bundle'"),
        ] {
            let error = refused(words);
            assert!(error.starts_with(want), "{words}: {error}");
        }
        let (_, command) = parse("create");
        assert!(command.id().unwrap_err().to_string().contains("requires exactly 1 argument"));
        let (_, command) = parse("state a b");
        assert!(command.id().is_err());
        let (_, command) = parse("update --memory lots box");
        assert!(command.number::<i64>("memory").unwrap_err().to_string().contains("--memory"));
    }

    #[test]
    fn every_command_has_help() {
        for verb in usage::VERBS {
            let words = vec![OsString::from(verb.name), OsString::from("--help")];
            let Parsed::Answer(text) = Global::parse(words).unwrap() else { panic!() };
            assert!(text.starts_with(&format!("usage: bulkhead oci {}", verb.name)), "{text}");
        }
    }
}
