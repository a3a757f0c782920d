//! What a container inherits from its image.

use std::collections::{BTreeSet, HashMap, HashSet};

use bulkhead_types::{Port, image};

use crate::{ContainerConfig, EngineError, health};

/// The search path of an image that sets none (moby: pkg/system/path_unix.go).
pub(crate) const DEFAULT_PATH: &str =
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Fills `config` from the image's, by Docker's rules (moby: runconfig `Merge`).
pub(crate) fn merge(config: &mut ContainerConfig, image: &image::Config) {
    if config.user.is_empty() {
        config.user.clone_from(&image.user);
    }
    if config.working_dir.is_empty() {
        config.working_dir.clone_from(&image.working_dir);
    }
    if config.stop_signal.as_deref().unwrap_or_default().is_empty() {
        config.stop_signal.clone_from(&image.stop_signal);
    }
    if config.entrypoint.as_ref().is_none_or(Vec::is_empty) {
        if config.cmd.as_ref().is_none_or(Vec::is_empty) {
            config.cmd.clone_from(&image.cmd);
        }
        if config.entrypoint.is_none() {
            config.entrypoint.clone_from(&image.entrypoint);
        }
    }
    merge_environment(&mut config.env, image.env.as_deref().unwrap_or_default());
    for (key, value) in image.labels.iter().flatten() {
        config.labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    // What is no port exposes nothing.
    let exposed = image.exposed_ports.iter().flatten();
    let exposed = exposed.flat_map(|(port, _)| Port::range(port).unwrap_or_default());
    let ports: BTreeSet<Port> = config.exposed_ports.drain(..).chain(exposed).collect();
    config.exposed_ports = ports.into_iter().collect();
    for volume in image.volumes.iter().flat_map(|volumes| volumes.keys()) {
        if !config.volumes.contains(volume) {
            config.volumes.push(volume.clone());
        }
    }
    health::merge(&mut config.healthcheck, image.healthcheck.as_ref());
    // Docker leaves it out, and runs by /bin/sh what the image's author wrote for another shell.
    if config.shell.as_ref().is_none_or(Vec::is_empty) {
        config.shell.clone_from(&image.shell);
    }
}

/// The program and its arguments: entrypoint and command joined. An entrypoint of one empty word
/// is how clients take the image's away (`--entrypoint ""`).
pub(crate) fn arguments(config: &ContainerConfig) -> Result<Vec<String>, EngineError> {
    let entrypoint = config.entrypoint.as_deref().unwrap_or_default();
    let entrypoint = if entrypoint == [""] { &[] } else { entrypoint };
    let command = config.cmd.as_deref().unwrap_or_default();
    let arguments: Vec<String> = entrypoint.iter().chain(command).cloned().collect();
    if arguments.is_empty() {
        return Err(EngineError::invalid("no command specified"));
    }
    Ok(arguments)
}

/// The image's variables that the user did not set come after the user's; a bare `NAME` of the
/// user's takes the variable away.
fn merge_environment(environment: &mut Vec<String>, image: &[String]) {
    let own: HashSet<&str> = environment.iter().map(|own| variable_name(own)).collect();
    let missing = image.iter().filter(|variable| !own.contains(variable_name(variable)));
    let missing: Vec<String> = missing.cloned().collect();
    environment.extend(missing);
}

pub(crate) fn variable_name(variable: &str) -> &str {
    variable.split_once('=').map_or(variable, |(name, _)| name)
}

/// What the process sees: defaults, then links, each replaced where the configuration sets it.
pub(crate) fn environment(config: &ContainerConfig, links: Vec<String>) -> Vec<String> {
    let mut all = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={}", config.hostname)];
    if config.tty {
        all.push("TERM=xterm".to_owned());
    }
    all.extend(links);
    replace(&mut all, &config.env);
    all
}

/// Sets each of `variables` in `environment`, in place where it is there already.
pub(crate) fn replace(environment: &mut Vec<String>, variables: &[String]) {
    // By name, for there may be 100,000 of them: a search for each would take a minute.
    let mut all: Vec<Option<String>> = std::mem::take(environment).into_iter().map(Some).collect();
    let mut places: HashMap<String, usize> = HashMap::with_capacity(all.len() + variables.len());
    for (place, own) in all.iter().flatten().enumerate() {
        places.entry(variable_name(own).to_owned()).or_insert(place);
    }
    for variable in variables {
        let name = variable_name(variable);
        match (places.get(name), variable.contains('=')) {
            (Some(place), true) => all[*place] = Some(variable.clone()),
            (None, true) => {
                places.insert(name.to_owned(), all.len());
                all.push(Some(variable.clone()));
            }
            (Some(place), false) => {
                all[*place] = None;
                places.remove(name);
            }
            (None, false) => {}
        }
    }
    environment.extend(all.into_iter().flatten());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Option<Vec<String>> {
        Some(words.iter().map(|word| (*word).to_owned()).collect())
    }

    fn ports(ports: &[&str]) -> Vec<Port> {
        ports.iter().map(|port| port.parse().unwrap()).collect()
    }

    #[test]
    fn entrypoint_and_command_follow_dockers_table() {
        type Words<'a> = Option<&'a [&'a str]>;
        // image entrypoint, image cmd, user entrypoint, user cmd → what runs
        let table: [(Words<'_>, Words<'_>, Words<'_>, Words<'_>, Words<'_>); 8] = [
            (Some(&["e"]), Some(&["c"]), None, None, Some(&["e", "c"])),
            (Some(&["e"]), Some(&["c"]), None, Some(&["x"]), Some(&["e", "x"])),
            (Some(&["e"]), Some(&["c"]), Some(&["y"]), None, Some(&["y"])),
            (Some(&["e"]), Some(&["c"]), Some(&["y"]), Some(&["x"]), Some(&["y", "x"])),
            (Some(&["e"]), Some(&["c"]), Some(&[""]), Some(&["x"]), Some(&["x"])),
            (Some(&["e"]), Some(&["c"]), Some(&[]), None, Some(&["c"])),
            (None, Some(&["c"]), None, None, Some(&["c"])),
            (None, None, None, None, None),
        ];
        for (entrypoint, cmd, own_entrypoint, own_cmd, runs) in table {
            let image = image::Config {
                entrypoint: entrypoint.and_then(words),
                cmd: cmd.and_then(words),
                ..image::Config::default()
            };
            let mut config = ContainerConfig {
                entrypoint: own_entrypoint.and_then(words),
                cmd: own_cmd.and_then(words),
                ..ContainerConfig::default()
            };
            merge(&mut config, &image);
            assert_eq!(arguments(&config).ok(), runs.and_then(words), "{config:?}");
        }
    }

    #[test]
    fn the_user_wins_and_sets_are_joined() {
        let image: image::Config = serde_json::from_str(
            r#"{"User":"www","WorkingDir":"/srv","Env":["PATH=/bin","A=image","GONE=1"],
                "Labels":{"a":"image","b":"image"},"ExposedPorts":{"80/tcp":{},"53/udp":{}},
                "Volumes":{"/data":{}},"StopSignal":"SIGQUIT"}"#,
        )
        .unwrap();
        let mut config = ContainerConfig {
            env: vec!["A=user".into(), "GONE".into()],
            labels: [("a".to_owned(), "user".to_owned())].into(),
            exposed_ports: ports(&["80/tcp", "8080/tcp"]),
            hostname: "h".into(),
            tty: true,
            ..ContainerConfig::default()
        };
        merge(&mut config, &image);
        assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("www", "/srv"));
        assert_eq!(config.env, ["A=user", "GONE", "PATH=/bin"]);
        assert_eq!(config.labels["a"], "user");
        assert_eq!(config.labels["b"], "image");
        assert_eq!(config.exposed_ports, ports(&["53/udp", "80/tcp", "8080/tcp"]));
        assert_eq!(config.volumes, ["/data"]);
        assert_eq!(config.stop_signal.as_deref(), Some("SIGQUIT"));
        assert_eq!(
            environment(&config, vec!["DB_NAME=/x/db".into()]),
            ["PATH=/bin", "HOSTNAME=h", "TERM=xterm", "DB_NAME=/x/db", "A=user"]
        );
    }
}
