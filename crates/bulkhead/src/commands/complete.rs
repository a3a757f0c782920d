//! What may follow on a command line, for bash, zsh and fish: words of the commands' definitions, and
//! names that the engine knows.

use std::ffi::OsString;
use std::io::Write as _;

use clap::ValueEnum;
use serde_json::Value;

use super::show::{each, short, text};
use crate::client::Client;
use crate::failure::Failure;
use crate::terminal::printable;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    Bash,
    Fish,
    Zsh,
}

/// Prints what a shell has to read once.
pub fn script(shell: Shell) -> Result<(), Failure> {
    let script = match shell {
        Shell::Bash => include_str!("complete/bulkhead.bash"),
        Shell::Fish => include_str!("complete/bulkhead.fish"),
        Shell::Zsh => include_str!("complete/bulkhead.zsh"),
    };
    std::io::stdout().write_all(script.as_bytes()).map_err(Failure::from)
}

/// Prints what the last of `words` may become, with what it means behind a tab. Whatever goes wrong is
/// no reason to disturb somebody who types.
pub async fn complete(
    client: Option<&Client>,
    mut program: clap::Command,
    words: &[OsString],
) -> Result<(), Failure> {
    program.build();
    let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let Some((last, before)) = words.split_last() else { return Ok(()) };
    let (wanted, prefix) = wanted(&program, before, last);
    let mut found = Vec::new();
    for one in wanted {
        match one {
            Wanted::Word(word, about) => found.push((word, about)),
            Wanted::Names(kind) => {
                if let Some(client) = client {
                    found.extend(names(client, kind).await.unwrap_or_default());
                }
            }
        }
    }
    found.retain(|(word, _)| word.starts_with(last));
    let lines = found.into_iter().map(|(word, about)| {
        let about = about.lines().next().unwrap_or_default();
        format!("{prefix}{}\t{}\n", printable(&word), printable(about))
    });
    std::io::stdout().write_all(lines.collect::<String>().as_bytes()).map_err(Failure::from)
}

/// Something that may be typed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    /// A word, and what it means.
    Word(String, String),
    /// The name of one.
    Names(Names),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    Containers,
    Running,
    Images,
    Networks,
    Volumes,
    Namespaces,
    Contexts,
}

/// What may stand where `last` is. The prefix is what is put before each word again.
fn wanted(program: &clap::Command, before: &[String], last: &str) -> (Vec<Wanted>, String) {
    let (mut command, mut path) = (program, Vec::new());
    let (mut positions, mut value_of) = (0, None);
    for word in before {
        if value_of.take().is_some() {
            continue;
        }
        if let Some(flag) = word.strip_prefix('-').filter(|flag| !flag.is_empty()) {
            if takes_all(command) && positions > 0 {
                positions += 1;
                continue;
            }
            value_of = argument(command, flag)
                .filter(|argument| wants_value(argument) && !word.contains('='));
            continue;
        }
        match command.find_subcommand(word) {
            Some(inner) if positions == 0 => {
                command = inner;
                path.push(inner.get_name());
            }
            _ => positions += 1,
        }
    }
    if let Some(argument) = value_of {
        return (values(argument, &path), String::new());
    }
    let behind = takes_all(command) && positions > 0;
    if last.starts_with('-') && !behind {
        let flags = command.get_arguments().filter(|argument| !argument.is_hide_set());
        let flags = flags.filter_map(|argument| {
            let about = argument.get_help().map(ToString::to_string).unwrap_or_default();
            argument.get_long().map(|long| Wanted::Word(format!("--{long}"), about))
        });
        return (flags.collect(), String::new());
    }
    if behind {
        return (Vec::new(), String::new());
    }
    let mut wanted = Vec::new();
    if positions == 0 {
        let inner = command.get_subcommands().filter(|inner| !inner.is_hide_set());
        wanted.extend(inner.map(|inner| {
            let about = inner.get_about().map(ToString::to_string).unwrap_or_default();
            Wanted::Word(inner.get_name().to_owned(), about)
        }));
    }
    let places: Vec<&clap::Arg> = command.get_positionals().collect();
    let several =
        |place: &&&clap::Arg| place.get_num_args().is_some_and(|count| count.max_values() > 1);
    let place = places.get(positions).or_else(|| places.last().filter(several));
    wanted.extend(place.map(|place| values(place, &path)).unwrap_or_default());
    (wanted, String::new())
}

/// Whether what follows the first word of its own is another program's.
fn takes_all(command: &clap::Command) -> bool {
    command.get_positionals().any(clap::Arg::is_trailing_var_arg_set)
}

/// A flag by its name behind the first dash; of several short ones the last.
fn argument<'a>(command: &'a clap::Command, flag: &str) -> Option<&'a clap::Arg> {
    match flag.strip_prefix('-') {
        Some(long) => {
            let long = long.split('=').next().unwrap_or(long);
            command.get_arguments().find(|argument| {
                argument.get_long() == Some(long)
                    || argument.get_all_aliases().is_some_and(|all| all.contains(&long))
            })
        }
        None => {
            let last = flag.chars().next_back();
            command.get_arguments().find(|argument| argument.get_short() == last)
        }
    }
}

fn wants_value(argument: &clap::Arg) -> bool {
    argument.get_action().takes_values() && !argument.is_require_equals_set()
}

/// What a value may be: words that are known, or names, by what the value is called.
fn values(argument: &clap::Arg, path: &[&str]) -> Vec<Wanted> {
    let known = argument.get_possible_values();
    if !known.is_empty() {
        let about = |value: &clap::builder::PossibleValue| {
            value.get_help().map(ToString::to_string).unwrap_or_default()
        };
        return known
            .iter()
            .map(|value| Wanted::Word(value.get_name().to_owned(), about(value)))
            .collect();
    }
    let runs = ["attach", "exec", "kill", "pause", "port", "stats", "stop", "top"];
    let containers = match path.last() {
        Some(verb) if runs.contains(verb) => Names::Running,
        _ => Names::Containers,
    };
    let words = |words: &[&str]| {
        words.iter().map(|word| Wanted::Word((*word).to_owned(), String::new())).collect()
    };
    let netns = path.first() == Some(&"netns");
    match argument.get_id().as_str() {
        "container" | "containers" | "volumes_from" => vec![Wanted::Names(containers)],
        "image" | "images" | "reference" if path.last() != Some(&"import") => {
            vec![Wanted::Names(Names::Images)]
        }
        "network" if !netns => vec![Wanted::Names(Names::Networks)],
        "networks" => vec![Wanted::Names(Names::Networks)],
        "volume" if path.first() == Some(&"volume") => vec![Wanted::Names(Names::Volumes)],
        "volumes" => vec![Wanted::Names(Names::Volumes)],
        "name" | "names" | "to" if netns => vec![Wanted::Names(Names::Namespaces)],
        "names" => vec![Wanted::Names(Names::Containers), Wanted::Names(Names::Images)],
        "context" | "contexts" => vec![Wanted::Names(Names::Contexts)],
        "source" | "destination" if path.last() == Some(&"cp") => {
            vec![Wanted::Names(Names::Containers)]
        }
        "restart" => words(&["no", "on-failure", "always", "unless-stopped"]),
        "pull" => words(&["missing", "always", "never"]),
        "kind" => words(&["container", "image", "network", "volume"]),
        "log_driver" => words(&[
            "json-file",
            "local",
            "none",
            "syslog",
            "journald",
            "fluentd",
            "gelf",
            "awslogs",
        ]),
        _ => Vec::new(),
    }
}

/// Names, each with what else is worth knowing.
async fn names(client: &Client, kind: Names) -> Result<Vec<(String, String)>, Failure> {
    let named = |list: &Value, field: &str, about: &str| {
        each(list).map(|one| (text(&one[field]), text(&one[about]))).collect::<Vec<_>>()
    };
    Ok(match kind {
        Names::Containers | Names::Running => {
            let all = u8::from(kind == Names::Containers);
            let containers = client.get(&format!("/containers/json?all={all}")).await?;
            each(&containers)
                .map(|one| {
                    let name = text(&one["Names"][0]).trim_start_matches('/').to_owned();
                    (name, format!("{}, {}", text(&one["Image"]), text(&one["Status"])))
                })
                .collect()
        }
        Names::Images => {
            let images = client.get("/images/json").await?;
            each(&images)
                .flat_map(|image| {
                    let id = short(&text(&image["Id"])).to_owned();
                    each(&image["RepoTags"]).map(move |tag| (text(tag), id.clone()))
                })
                .collect()
        }
        Names::Networks => named(&client.get("/networks").await?, "Name", "Driver"),
        Names::Volumes => named(&client.get("/volumes").await?["Volumes"], "Name", "Driver"),
        Names::Namespaces => bulkhead_network::named::list()
            .unwrap_or_default()
            .into_iter()
            .map(|(name, _)| (name, "network namespace".to_owned()))
            .collect(),
        Names::Contexts => super::contexts::names(),
    })
}

#[cfg(test)]
mod tests;
