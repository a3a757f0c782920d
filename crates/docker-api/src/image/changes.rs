//! `--change` of import and commit: Dockerfile instructions applied to an image's configuration.

use bulkhead_types::image::{Config, Empty};

use crate::container::create::parse_port;
use crate::container::create::port_name;
use crate::error::ApiError;

/// Applies one instruction such as `CMD ["nginx"]` or `ENV A=1 B=2`.
///
/// Docker allows CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME and WORKDIR
/// (moby: builder/dockerfile/builder.go, `validCommitCommands`).
pub(crate) fn apply(config: &mut Config, change: &str) -> Result<(), ApiError> {
    let change = change.trim();
    let (instruction, rest) = change.split_once(char::is_whitespace).unwrap_or((change, ""));
    let rest = rest.trim();
    let instruction = instruction.to_ascii_uppercase();
    if rest.is_empty() {
        return Err(ApiError::invalid(format!("{instruction} requires at least one argument")));
    }
    match instruction.as_str() {
        "CMD" => config.cmd = Some(command(rest)),
        "ENTRYPOINT" => config.entrypoint = Some(command(rest)),
        "ENV" => {
            let environment = config.env.get_or_insert_default();
            for (name, value) in pairs(&instruction, rest)? {
                environment.retain(|variable| variable.split('=').next() != Some(&name));
                environment.push(format!("{name}={value}"));
            }
        }
        "LABEL" => config.labels.get_or_insert_default().extend(pairs(&instruction, rest)?),
        "EXPOSE" => {
            for word in words(rest)? {
                let (port, protocol) = parse_port(&word)?;
                config
                    .exposed_ports
                    .get_or_insert_default()
                    .insert(port_name(port, protocol), Empty {});
            }
        }
        "VOLUME" => {
            let volumes = match serde_json::from_str(rest) {
                Ok(list) => list,
                Err(_) => words(rest)?,
            };
            let set = config.volumes.get_or_insert_default();
            set.extend(volumes.into_iter().map(|volume: String| (volume, Empty {})));
        }
        "ONBUILD" => config.on_build.get_or_insert_default().push(rest.to_owned()),
        "STOPSIGNAL" => config.stop_signal = Some(rest.to_owned()),
        "USER" => config.user = rest.to_owned(),
        "WORKDIR" => config.working_dir = rest.to_owned(),
        other => {
            return Err(ApiError::invalid(format!(
                "{other} is not a valid change command: use CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, \
                 ONBUILD, STOPSIGNAL, USER, VOLUME or WORKDIR"
            )));
        }
    }
    Ok(())
}

/// A JSON list is the command itself, other text is for a shell.
fn command(text: &str) -> Vec<String> {
    serde_json::from_str(text)
        .unwrap_or_else(|_| vec!["/bin/sh".to_owned(), "-c".to_owned(), text.to_owned()])
}

/// `a=1 "b=2 3"`, or the old `name value`.
fn pairs(instruction: &str, text: &str) -> Result<Vec<(String, String)>, ApiError> {
    let words = words(text)?;
    if words.first().is_some_and(|first| !first.contains('=')) {
        let (name, value) = text
            .split_once(char::is_whitespace)
            .ok_or_else(|| ApiError::invalid(format!("{instruction} must have two arguments")))?;
        return Ok(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    let pair = |word: String| match word.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(ApiError::invalid(format!(
            "Syntax error - can't find = in {word:?}. Must be of the form: name=value"
        ))),
    };
    words.into_iter().map(pair).collect()
}

/// Words apart at spaces, with quotes and backslashes taken off.
fn words(text: &str) -> Result<Vec<String>, ApiError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, quote) {
            ('\\', None | Some('"')) => {
                word.get_or_insert_default().extend(characters.next());
            }
            (character, Some(open)) if character == open => quote = None,
            (character, Some(_)) => word.get_or_insert_default().push(character),
            ('"' | '\'', None) => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (character, None) if character.is_whitespace() => words.extend(word.take()),
            (character, None) => word.get_or_insert_default().push(character),
        }
    }
    if quote.is_some() {
        return Err(ApiError::invalid(format!("unterminated quote in {text:?}")));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_change_the_configuration() {
        let mut config = Config::default();
        for change in [
            "CMD [\"a\", \"b c\"]",
            "entrypoint exec a",
            "ENV A=1 B=\"2 3\"",
            "ENV A=4",
            "ENV C some words",
            "EXPOSE 80 53/udp",
            "LABEL a=b",
            "USER app",
            "WORKDIR /srv",
            "VOLUME [\"/a\"]",
            "STOPSIGNAL SIGQUIT",
        ] {
            apply(&mut config, change).expect(change);
        }
        assert_eq!(config.cmd, Some(vec!["a".to_owned(), "b c".to_owned()]));
        assert_eq!(config.entrypoint.expect("set"), ["/bin/sh", "-c", "exec a"]);
        assert_eq!(config.env.expect("set"), ["B=2 3", "A=4", "C=some words"]);
        assert_eq!(
            config.exposed_ports.expect("set").into_keys().collect::<Vec<_>>(),
            ["53/udp", "80/tcp"]
        );
        assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("app", "/srv"));
    }

    #[test]
    fn other_instructions_are_refused() {
        for change in ["RUN ls", "CMD", "ENV =x", "ENV A", "EXPOSE x", "LABEL \"a=b"] {
            assert!(apply(&mut Config::default(), change).is_err(), "{change}");
        }
    }
}
