//! What `docker` has and this program does not, each with what to do instead.
//!
//! Together with the definitions of the commands it is all that `docker --help` shows, which a test walks
//! (`cli/docker.txt`).

/// A flag that is asked for, and the reason why it is not there. `command` are the words of the command,
/// those at the top by themselves.
pub fn flag(command: &str, flag: &str) -> Option<&'static str> {
    let flag = flag.split('=').next().unwrap_or(flag);
    let of = |commands: &str| commands.split(' ').any(|name| name == command.replace(' ', "."));
    FLAGS
        .iter()
        .find(|(commands, flags, _)| of(commands) && flags.split(' ').any(|name| name == flag))
        .map(|(.., why)| *why)
}

/// The same for a command.
pub fn command(words: &str) -> Option<&'static str> {
    let of = |commands: &str| commands.split(' ').any(|name| name == words.replace(' ', "."));
    COMMANDS.iter().find(|(commands, _)| of(commands)).map(|(_, why)| *why)
}

const WINDOWS: &str = "only Windows has it; leave it out";
const SWARM: &str =
    "it is of a swarm, which Bulkhead is no part of: schedule tasks with its ECS API";
const NO_CHECKPOINTS: &str = "there are no checkpoints of the engine's containers";
const RUN: &str = "run create container.run container.create";

/// Commands (words with a dot between), flags, why.
const FLAGS: &[(&str, &str, &str)] = &[
    (RUN, "--annotation", "there is no other runtime to read them; use --label"),
    (RUN, "--cpu-count --cpu-percent --io-maxbandwidth --io-maxiops", WINDOWS),
    (
        "run create container.run container.create update container.update",
        "--cpu-rt-period --cpu-rt-runtime",
        "real-time scheduling is not limited here; leave it out",
    ),
    (RUN, "--gpus", "there are no device drivers; name the devices with --device"),
    (
        "run create container.run container.create update container.update",
        "--kernel-memory",
        "Linux has no such limit any more; use --memory",
    ),
    (RUN, "--oom-kill-disable", "the kernel ends what runs out of memory; leave it out"),
    (RUN, "--storage-opt", "a container's layer has no size of its own; leave it out"),
    (
        RUN,
        "--use-api-socket",
        "it gives the whole machine away; mount the engine's socket with --volume, if that is wanted",
    ),
    ("start container.start", "--checkpoint --checkpoint-dir", NO_CHECKPOINTS),
    ("history image.history", "-H", "it is --host here; say --human"),
    ("images image.ls", "--tree", "an image has one platform here, and so no branches"),
    ("rmi image.rm", "--platform", "an image has one platform here; leave it out"),
    (
        "build image.build builder.build",
        "--cgroup-parent",
        "it is of containers that are kept; limit the steps of a build with --memory and --cpu-quota",
    ),
    ("build image.build builder.build", "--isolation", WINDOWS),
    ("build image.build builder.build", "--squash", "squashing layers is not done; leave it out"),
    (
        "network.create",
        "--config-from --config-only",
        "there are no networks that are only a configuration; give the network its own",
    ),
    ("network.create", "--ingress --scope", SWARM),
    (
        "volume.create",
        "--availability --group --limit-bytes --required-bytes --scope --secret --sharing \
         --topology-preferred --topology-required --type",
        SWARM,
    ),
    ("volume.ls", "--cluster", SWARM),
    ("context.create", "--from", "say what it has: --docker host=ADDRESS"),
    ("", "-D --debug -l --log-level", "there is no more to be told: see the engine's log"),
];

/// Commands, why.
const COMMANDS: &[(&str, &str)] = &[
    ("checkpoint", NO_CHECKPOINTS),
    ("config node secret service stack swarm", SWARM),
    ("volume.update", SWARM),
    (
        "manifest",
        "lists of manifests are not made here: push an image for each platform, or use skopeo",
    ),
    ("plugin", "there are no plugins"),
    ("trust", "images are not signed here: use cosign"),
    ("buildx", "it is a plugin of docker's: `bulkhead build` reads the same Dockerfiles"),
    ("compose", "use Docker's: `docker compose`, with DOCKER_HOST naming this engine"),
    (
        "context.export context.import",
        "a context is one line: `bulkhead context create NAME --docker host=ADDRESS`",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    /// What `docker --help` of 28 shows: a command on a line, its flags, and `=` behind those that have a
    /// value.
    const DOCKER: &str = include_str!("docker.txt");

    fn commands() -> BTreeMap<String, clap::Command> {
        fn walk(words: &str, command: &clap::Command, all: &mut BTreeMap<String, clap::Command>) {
            all.insert(words.to_owned(), command.clone());
            for inner in command.get_subcommands() {
                let words = format!("{words} {}", inner.get_name());
                walk(words.trim(), inner, all);
            }
        }
        let mut program = Cli::command();
        program.build();
        let mut all = BTreeMap::new();
        walk("", &program, &mut all);
        all
    }

    #[test]
    fn every_flag_of_docker_is_there_or_refused() {
        let ours = commands();
        let mut wrong = Vec::new();
        for line in DOCKER.lines().filter(|line| !line.starts_with('#')) {
            let (words, flags) = line.split_once(':').expect("COMMAND: FLAGS");
            let Some(own) = ours.get(words) else {
                if command(words).is_none()
                    && command(words.split(' ').next().unwrap_or_default()).is_none()
                {
                    wrong.push(format!("{words} is neither there nor refused"));
                }
                continue;
            };
            for named in flags.split_whitespace() {
                let flag_name = named.trim_end_matches('=');
                let argument = own.get_arguments().find(|argument| {
                    let long = flag_name.strip_prefix("--");
                    let short = flag_name.strip_prefix('-').filter(|name| name.len() == 1);
                    long.is_some_and(|long| {
                        argument.get_long() == Some(long)
                            || argument.get_all_aliases().is_some_and(|all| all.contains(&long))
                    }) || short.is_some_and(|short| argument.get_short() == short.chars().next())
                });
                let refused = flag(words, flag_name).is_some();
                match argument {
                    // the short flag of another
                    Some(_) if refused && flag_name == "-H" => {}
                    Some(_) if refused => {
                        wrong.push(format!("{words} {named} is there and refused"))
                    }
                    None if !refused => {
                        wrong.push(format!("{words} {named} is neither there nor refused"));
                    }
                    Some(argument)
                        if named.ends_with('=') != argument.get_action().takes_values() =>
                    {
                        // one that is on may be switched off
                        let switch = argument.is_require_equals_set();
                        if !switch {
                            wrong.push(format!("{words} {named}: whether it has a value"));
                        }
                    }
                    _ => {}
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn every_flag_and_command_has_a_description() {
        let mut wrong = Vec::new();
        for (words, command) in commands() {
            if command.get_about().is_none() && !words.starts_with("__") {
                wrong.push(words.clone());
            }
            for argument in command.get_arguments().filter(|argument| !argument.is_positional()) {
                if argument.get_help().is_none_or(|help| help.to_string().trim().is_empty()) {
                    wrong.push(format!("{words} --{}", argument.get_id()));
                }
            }
        }
        assert!(wrong.is_empty(), "without a description: {wrong:#?}");
    }

    #[test]
    fn reasons_are_sentences() {
        let reasons =
            FLAGS.iter().map(|(.., why)| *why).chain(COMMANDS.iter().map(|(_, why)| *why));
        for why in reasons {
            assert!(why.len() > 10 && !why.ends_with('.'), "{why}");
        }
        assert!(flag("run", "--gpus=all").is_some() && flag("container run", "--gpus").is_some());
        assert!(flag("run", "--rm").is_none() && flag("ps", "--gpus").is_none());
    }
}
