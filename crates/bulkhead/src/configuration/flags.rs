//! dockerd's flags, made from the table of keys, and read into what its file would hold.

use clap::builder::BoolishValueParser;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use serde_json::{Map, Value, json};

use super::table::{KEYS, Key, Kind, Verdict};

/// What the command line says, by the keys of the file.
#[derive(Debug, Clone, Default)]
pub struct DockerdFlags(pub Map<String, Value>);

impl Args for DockerdFlags {
    fn augment_args(command: Command) -> Command {
        let flags = KEYS.iter().filter(|key| !key.flag.is_empty());
        flags.fold(command, |command, key| command.arg(argument(key)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn argument(key: &'static Key) -> Arg {
    let mut argument = Arg::new(key.flag).long(key.flag);
    if let Some(short) = key.short {
        argument = argument.short(short);
    }
    if let Some(alias) = key.alias {
        argument = argument.visible_alias(alias);
    }
    argument = match key.verdict {
        Verdict::Done(help, _) => argument.help(help).help_heading("Options of dockerd's"),
        Verdict::Ignored(why) | Verdict::Refused(why) => argument.help(why).hide(true),
    };
    argument = argument.value_name(match key.kind {
        Kind::Number => "NUMBER",
        Kind::Size => "BYTES",
        Kind::Map | Kind::Switches => "NAME=VALUE",
        Kind::NetworkMap => "DRIVER=NAME=VALUE",
        Kind::Blocks => "base=BLOCK,size=PREFIX",
        Kind::Ulimits => "NAME=SOFT[:HARD]",
        Kind::Runtimes => "NAME=PATH",
        _ => "VALUE",
    });
    match key.kind {
        Kind::Switch => argument
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .hide_possible_values(true)
            .value_parser(BoolishValueParser::new()),
        // its last word counts, as for dockerd
        Kind::Text | Kind::Number | Kind::Size | Kind::Named(_) | Kind::Object => {
            argument.action(ArgAction::Set).allow_hyphen_values(key.kind == Kind::Number)
        }
        _ => argument.action(ArgAction::Append),
    }
}

impl FromArgMatches for DockerdFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut said = Map::new();
        for key in KEYS.iter().filter(|key| !key.flag.is_empty()) {
            let value = match key.kind {
                Kind::Switch => matches.get_one::<bool>(key.flag).map(|value| json!(value)),
                kind => {
                    let words = matches.get_many::<String>(key.flag);
                    let words: Option<Vec<&str>> = words.map(|all| all.map(|it| &**it).collect());
                    words.map(|words| read(kind, &words)).transpose().map_err(|why| {
                        let message = format!("invalid value for --{}: {why}\n", key.flag);
                        clap::Error::raw(clap::error::ErrorKind::ValueValidation, message)
                    })?
                }
            };
            if let Some(value) = value {
                said.insert(key.name.to_owned(), value);
            }
        }
        Ok(Self(said))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// What a file would have to say for these words.
fn read(kind: Kind, words: &[&str]) -> Result<Value, String> {
    let last = words.last().copied().unwrap_or_default();
    let pairs = || words.iter().map(|word| word.split_once('=').unwrap_or((word, "")));
    let object = |pairs: Vec<(&str, Value)>| {
        Value::Object(pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    };
    Ok(match kind {
        Kind::Text | Kind::Size | Kind::Named(_) | Kind::Object | Kind::Switch => json!(last),
        Kind::Number => {
            json!(last.parse::<i64>().map_err(|_| format!("{last:?} is no whole number"))?)
        }
        Kind::List => json!(words),
        Kind::Words => {
            let words = words.iter().flat_map(|word| word.split(','));
            json!(words.map(str::trim).filter(|word| !word.is_empty()).collect::<Vec<_>>())
        }
        Kind::Map => object(pairs().map(|(name, value)| (name, json!(value))).collect()),
        Kind::Switches => {
            let switch = |(name, value)| match value {
                "" | "1" | "t" | "true" => Ok((name, json!(true))),
                "0" | "f" | "false" => Ok((name, json!(false))),
                other => Err(format!("{name} is true or false, not {other:?}")),
            };
            object(pairs().map(switch).collect::<Result<_, _>>()?)
        }
        Kind::NetworkMap => {
            let mut all = json!({});
            for word in words {
                let mut parts = word.splitn(3, '=');
                match (parts.next(), parts.next(), parts.next()) {
                    (Some(driver), Some(name), Some(value)) => all[driver][name] = json!(value),
                    _ => return Err(format!("{word:?} is not of the form DRIVER=NAME=VALUE")),
                }
            }
            all
        }
        Kind::Blocks => words.iter().map(|word| block(word)).collect::<Result<_, _>>()?,
        Kind::Ulimits => {
            let mut all = json!({});
            for (name, value) in pairs() {
                let (soft, hard) = value.split_once(':').unwrap_or((value, value));
                let number = |text: &str| {
                    let wrong = |_| format!("{name}={value} is not of the form NAME=SOFT[:HARD]");
                    text.parse::<i64>().map_err(wrong)
                };
                let (soft, hard) = (number(soft)?, number(hard)?);
                all[name] = json!({ "Name": name, "Soft": soft, "Hard": hard });
            }
            all
        }
        Kind::Runtimes => {
            object(pairs().map(|(name, path)| (name, json!({ "path": path }))).collect())
        }
    })
}

fn block(word: &str) -> Result<Value, String> {
    let wrong = || format!("{word:?} is not of the form base=BLOCK,size=PREFIX");
    let mut block = json!({});
    for part in word.split(',') {
        match part.split_once('=') {
            Some(("base", base)) => block["base"] = json!(base),
            Some(("size", size)) => {
                block["size"] = json!(size.parse::<u8>().map_err(|_| wrong())?);
            }
            _ => return Err(wrong()),
        }
    }
    match block.as_object().is_some_and(|block| block.len() == 2) {
        true => Ok(block),
        false => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        flags: DockerdFlags,
    }

    fn said(words: &[&str]) -> Result<Value, clap::Error> {
        let words = ["dockerd"].iter().chain(words);
        Program::try_parse_from(words).map(|program| Value::Object(program.flags.0))
    }

    #[test]
    fn flags_say_what_the_file_would() {
        for (words, value) in [
            (&["-H", "fd://", "--host", "unix:///x"][..], json!({"hosts": ["fd://", "unix:///x"]})),
            (&["-D", "--icc=false"], json!({"debug": true, "icc": false})),
            (&["--data", "/a"], json!({"data-root": "/a"})),
            (&["--bridge-address=10.0.0.1/24"], json!({"bip": "10.0.0.1/24"})),
            (
                &["--mtu", "1400", "--shutdown-timeout", "-1"],
                json!({"mtu": 1400, "shutdown-timeout": -1}),
            ),
            (&["--dns", "1.1.1.1,::1"], json!({"dns": ["1.1.1.1", "::1"]})),
            (
                &["--log-opt", "max-size=1m", "--log-opt", "a=b=c"],
                json!({"log-opts": {"max-size": "1m", "a": "b=c"}}),
            ),
            (
                &["--feature", "x", "--feature", "y=false"],
                json!({"features": {"x": true, "y": false}}),
            ),
            (
                &["--default-network-opt", "bridge=com.docker.network.driver.mtu=1400"],
                json!({"default-network-opts": {"bridge": {"com.docker.network.driver.mtu": "1400"}}}),
            ),
            (
                &["--default-address-pool", "base=10.0.0.0/8,size=24"],
                json!({"default-address-pools": [{"base": "10.0.0.0/8", "size": 24}]}),
            ),
            (
                &["--default-ulimit", "nofile=1:2", "--default-ulimit", "core=0"],
                json!({"default-ulimits": {
                    "nofile": {"Name": "nofile", "Soft": 1, "Hard": 2},
                    "core": {"Name": "core", "Soft": 0, "Hard": 0},
                }}),
            ),
            (&["--add-runtime", "x=/y"], json!({"runtimes": {"x": {"path": "/y"}}})),
        ] {
            assert_eq!(said(words).expect("they are right"), value, "{words:?}");
        }
    }

    #[test]
    fn wrong_words_are_named() {
        for (words, part) in [
            (&["--mtu", "big"][..], "--mtu: \"big\""),
            (&["--default-ulimit", "nofile"], "NAME=SOFT"),
            (&["--default-address-pool", "10.0.0.0/8"], "base=BLOCK"),
            (&["--default-network-opt", "bridge=x"], "DRIVER=NAME=VALUE"),
            (&["--feature", "x=maybe"], "maybe"),
        ] {
            let error = said(words).expect_err(part).to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
