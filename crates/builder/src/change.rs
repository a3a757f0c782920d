//! `--change` of commit and import: instructions applied to a configuration, without a build.

use std::collections::BTreeMap;

use bulkhead_types::image::Config;

use crate::BuildError;
use crate::instruction::{Instruction, Kind};
use crate::parse;
use crate::state::{Scope, State, absolute};

/// Applies the instructions in `changes` to `config`, with its own variables expanded.
///
/// Allowed are those that Docker allows (moby: builder/dockerfile/builder.go,
/// `validCommitCommands`): what works on files or begins a stage has no meaning here.
pub fn change(config: &mut Config, changes: &str) -> Result<(), BuildError> {
    let dockerfile = parse::parse(changes)?;
    let mut state = State::scratch();
    state.image.config = std::mem::take(config);
    let changed = apply(&mut state, dockerfile);
    *config = state.image.config;
    changed
}

fn apply(state: &mut State, dockerfile: parse::Dockerfile) -> Result<(), BuildError> {
    let empty = BTreeMap::new();
    let none = BTreeMap::new();
    let scope =
        Scope { escape: dockerfile.escape, given: &none, globals: &empty, platform: &empty };
    for line in dockerfile.lines {
        let number = line.number;
        let keyword = line.keyword.to_ascii_uppercase();
        let at = |message| BuildError::Dockerfile { line: number, message };
        if !ALLOWED.contains(&keyword.as_str()) {
            return Err(BuildError::Change(keyword));
        }
        let instruction = Instruction::read(line).map_err(at)?;
        if let Kind::Workdir(path) = &instruction.kind {
            let path = state.expand(path, scope.escape).map_err(at)?;
            state.image.config.working_dir = absolute(&state.image.config.working_dir, &path);
            continue;
        }
        state.apply(&instruction, scope).map_err(at)?;
        state.check_weight().map_err(at)?;
    }
    Ok(())
}

const ALLOWED: &[&str] = &[
    "CMD",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "HEALTHCHECK",
    "LABEL",
    "ONBUILD",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_change_the_configuration() {
        let mut config = Config::default();
        for text in [
            "CMD [\"a\", \"b c\"]",
            "entrypoint exec a",
            "ENV A=1 B=\"2 3\"",
            "ENV A=4",
            "ENV C some words",
            "EXPOSE 80 53/udp\nLABEL a=b c=${A}",
            "USER app",
            "WORKDIR /srv",
            "WORKDIR $A/x",
            "VOLUME [\"/a\"]",
            "STOPSIGNAL SIGQUIT",
            "HEALTHCHECK --interval=5s --retries=2 CMD test -e /x",
            "ONBUILD RUN make",
        ] {
            change(&mut config, text).expect(text);
        }
        let want = serde_json::json!({
            "User": "app",
            "ExposedPorts": { "53/udp": {}, "80/tcp": {} },
            "Env": ["A=4", "B=2 3", "C=some words"],
            "Entrypoint": ["/bin/sh", "-c", "exec a"],
            // As in Docker, an ENTRYPOINT does away with the CMD that was there before.
            "Cmd": null,
            // What is 0 is left out, as Go's encoder leaves it.
            "Healthcheck": {
                "Test": ["CMD-SHELL", "test -e /x"], "Interval": 5_000_000_000_i64, "Retries": 2,
            },
            "Volumes": { "/a": {} },
            "WorkingDir": "/srv/4/x",
            "Labels": { "a": "b", "c": "4" },
            "StopSignal": "SIGQUIT",
            "OnBuild": ["RUN make"],
        });
        let mut got = serde_json::to_value(&config).expect("is JSON");
        if got.get("Cmd").is_none() {
            got["Cmd"] = serde_json::Value::Null;
        }
        assert_eq!(got, want);
    }

    #[test]
    fn other_instructions_are_refused() {
        for (text, part) in [
            ("RUN ls", "RUN is not a valid change command: use CMD, ENTRYPOINT, ENV"),
            ("FROM a", "FROM is not a valid change command"),
            ("COPY a b", "COPY is not a valid change command"),
            ("CMDD x", "CMDD is not a valid change command"),
            ("ENV =x", "ENV names can not be blank"),
            ("EXPOSE x", "invalid containerPort: x"),
            ("HEALTHCHECK --interval=x CMD y", "invalid duration"),
        ] {
            let mut config = Config { user: "kept".to_owned(), ..Config::default() };
            let error = change(&mut config, text).expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
            assert_eq!(config.user, "kept");
        }
    }
}
