use std::collections::BTreeMap;

use bulkhead_types::image::Empty;

use super::State;
use crate::instruction::{Command, Instruction, Kind};

/// What instructions can see besides their stage.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub(crate) escape: char,
    /// `--build-arg`.
    pub(crate) given: &'a BTreeMap<String, Option<String>>,
    /// ARG before the first FROM.
    pub(crate) globals: &'a BTreeMap<String, String>,
    pub(crate) platform: &'a BTreeMap<String, String>,
}

impl State {
    /// Applies an instruction that makes no layer; the result is its line in the history.
    ///
    /// `None`: the instruction is one that works on files.
    pub(crate) fn apply(
        &mut self,
        instruction: &Instruction,
        scope: Scope<'_>,
    ) -> Result<Option<String>, String> {
        let expand = |state: &Self, text: &str| state.expand(text, scope.escape);
        Ok(Some(match &instruction.kind {
            Kind::From(_) | Kind::Run(_) | Kind::Copy(_) | Kind::Workdir(_) => return Ok(None),
            Kind::Arg(names) => {
                let mut words = Vec::new();
                for (name, default) in names {
                    let default = default.as_ref().map(|text| expand(self, text)).transpose()?;
                    let value = scope.given.get(name).cloned().flatten().or(default);
                    let value = value.or_else(|| scope.globals.get(name).cloned());
                    let value = value.or_else(|| scope.platform.get(name).cloned());
                    match value {
                        Some(value) => {
                            words.push(format!("{name}={value}"));
                            self.arguments.insert(name.clone(), value);
                        }
                        None => words.push(name.clone()),
                    }
                }
                format!("ARG {}", words.join(" "))
            }
            Kind::Env(pairs) => {
                // All values are those from before the instruction: ENV a=1 b=$a.
                let pairs = self.expand_pairs(pairs, scope.escape)?;
                let words: Vec<_> =
                    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
                let environment = self.image.config.env.get_or_insert_default();
                for (name, value) in pairs {
                    let pair = format!("{name}={value}");
                    let same =
                        |old: &&mut String| old.split_once('=').is_some_and(|(old, _)| old == name);
                    match environment.iter_mut().find(same) {
                        Some(old) => *old = pair,
                        None => environment.push(pair),
                    }
                }
                format!("ENV {}", words.join(" "))
            }
            Kind::Label(pairs) => {
                let pairs = self.expand_pairs(pairs, scope.escape)?;
                let words: Vec<_> =
                    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
                self.image.config.labels.get_or_insert_default().extend(pairs);
                format!("LABEL {}", words.join(" "))
            }
            Kind::User(user) => {
                let user = expand(self, user)?;
                self.image.config.user = user.clone();
                format!("USER {user}")
            }
            Kind::Expose(words) => {
                let mut ports = BTreeMap::new();
                for word in words {
                    for word in self.expand_words(word, scope.escape)? {
                        ports.extend(exposed(&word)?.into_iter().map(|port| (port, Empty {})));
                    }
                }
                let names: Vec<_> = ports.keys().map(|port| format!("{port}:{{}}")).collect();
                self.image.config.exposed_ports.get_or_insert_default().extend(ports);
                format!("EXPOSE map[{}]", names.join(" "))
            }
            Kind::Volume(words) => {
                let volumes = self.expand_all(words, scope.escape)?;
                if volumes.iter().any(String::is_empty) {
                    return Err("VOLUME specified can not be an empty string".to_owned());
                }
                let set = self.image.config.volumes.get_or_insert_default();
                set.extend(volumes.iter().map(|volume| (volume.clone(), Empty {})));
                format!("VOLUME [{}]", volumes.join(" "))
            }
            Kind::Cmd(command) => {
                let words = self.command(command);
                let text = format!("CMD {}", quoted(&words));
                self.image.config.cmd = Some(words);
                self.has_own_command = true;
                text
            }
            Kind::Entrypoint(command) => {
                let words = self.command(command);
                let text = format!("ENTRYPOINT {}", quoted(&words));
                self.image.config.entrypoint = (!words.is_empty()).then_some(words);
                if !self.has_own_command {
                    self.image.config.cmd = None;
                }
                text
            }
            Kind::Healthcheck(check) => {
                self.image.config.healthcheck = Some(check.clone());
                instruction.text.clone()
            }
            Kind::Shell(words) => {
                self.image.config.shell = Some(words.clone());
                format!("SHELL [{}]", words.join(" "))
            }
            Kind::StopSignal(signal) => {
                let signal = expand(self, signal)?;
                if !is_signal(&signal) {
                    return Err(format!("Invalid signal: {signal}"));
                }
                let text = format!("STOPSIGNAL {signal}");
                self.image.config.stop_signal = Some(signal);
                text
            }
            Kind::OnBuild(trigger) => {
                self.image.config.on_build.get_or_insert_default().push(trigger.clone());
                format!("ONBUILD {trigger}")
            }
            Kind::Maintainer(author) => {
                self.image.author = author.clone();
                format!("MAINTAINER {author}")
            }
        }))
    }

    fn expand_pairs(
        &self,
        pairs: &[(String, String)],
        escape: char,
    ) -> Result<Vec<(String, String)>, String> {
        let (names, values): (Vec<_>, Vec<_>) = pairs.iter().cloned().unzip();
        let names = self.expand_all(&names, escape)?;
        if let Some(name) = names.iter().find(|name| name.is_empty() || name.contains('=')) {
            return Err(format!("{name:?} is no name for a variable or label"));
        }
        if names.len() > super::MAX_VARIABLES {
            return Err(super::too_heavy());
        }
        let values = self.expand_all(&values, escape)?;
        Ok(names.into_iter().zip(values).collect())
    }

    fn command(&self, command: &Command) -> Vec<String> {
        match command {
            Command::Exec(words) => words.clone(),
            Command::Shell(text) => {
                let mut words = self.shell();
                words.push(text.clone());
                words
            }
        }
    }
}

/// As BuildKit writes commands into the history.
pub(super) fn quoted(words: &[String]) -> String {
    let words: Vec<_> = words.iter().map(|word| format!("{word:?}")).collect();
    format!("[{}]", words.join(" "))
}

/// `80`, `53/udp`, `8000-8010/tcp`: each as `port/protocol`.
fn exposed(word: &str) -> Result<Vec<String>, String> {
    let (ports, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(format!("invalid proto: {protocol}"));
    }
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    match (first.parse::<u16>(), last.parse::<u16>()) {
        (Ok(first), Ok(last)) if first <= last => {
            Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
        }
        _ => Err(format!("invalid containerPort: {ports}")),
    }
}

/// `9`, `KILL`, `SIGKILL`, `SIGRTMIN+3` (signal(7)).
fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<u8>() {
        return (1..=64).contains(&number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = name.strip_prefix("RTMIN").or(name.strip_prefix("RTMAX")) {
        let number = offset.strip_prefix(['+', '-']).unwrap_or("x").parse::<u8>();
        return offset.is_empty() || number.is_ok_and(|number| number <= 30);
    }
    SIGNALS.contains(&name)
}

const SIGNALS: [&str; 34] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
    "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
    "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    fn applied(text: &str) -> Result<State, String> {
        let given = [("GIVEN".to_owned(), Some("given".to_owned()))].into();
        let globals = [("GLOBAL".to_owned(), "global".to_owned())].into();
        let platform = crate::plan::platform_arguments(None);
        let scope = Scope { escape: '\\', given: &given, globals: &globals, platform: &platform };
        let mut state = State::scratch();
        for line in parse::parse(text).expect(text).lines {
            let instruction = Instruction::read(line)?;
            let text = state.apply(&instruction, scope)?.expect("no files");
            let step = crate::CachedStep { layer: None, created: "now".to_owned() };
            state.record(text, &step, state.chain);
        }
        Ok(state)
    }

    #[test]
    fn instructions_change_the_configuration() {
        let state = applied(
            "ARG GLOBAL\nARG GIVEN=default\nARG OWN=own\nARG NONE\nARG TARGETOS\n\
             ENV A=1 B=\"x y\"\nENV A=2 C=$A-$GIVEN-$GLOBAL-$OWN-${NONE:-none}-$TARGETOS\nENV OWN=env\n\
             LABEL l=\"$B\" m=$OWN\nUSER $C\nEXPOSE 80 53/udp 8000-8001\nVOLUME [\"/a\", \"/b\"]\n\
             CMD [\"x\"]\nSTOPSIGNAL SIGTERM\nSHELL [\"/bin/bash\", \"-c\"]\nENTRYPOINT echo $A\n\
             HEALTHCHECK NONE\nONBUILD RUN x\nMAINTAINER me",
        )
        .expect("applies");
        let config = &state.image.config;
        let c = "C=1-given-global-own-none-linux";
        assert_eq!(
            config.env.as_deref(),
            Some(&[super::super::DEFAULT_PATH, "A=2", "B=x y", c, "OWN=env"].map(String::from)[..])
        );
        assert_eq!(state.visible_arguments(), ["GIVEN=given", "GLOBAL=global", "TARGETOS=linux"]);
        let labels = config.labels.as_ref().expect("labels");
        assert_eq!((labels["l"].as_str(), labels["m"].as_str()), ("x y", "env"));
        assert_eq!(config.user, &c[2..]);
        let ports: Vec<_> = config.exposed_ports.iter().flatten().map(|(port, _)| port).collect();
        assert_eq!(ports, ["53/udp", "80/tcp", "8000/tcp", "8001/tcp"]);
        assert_eq!(config.volumes.as_ref().map(|volumes| volumes.len()), Some(2));
        let entrypoint = ["/bin/bash", "-c", "echo $A"].map(String::from);
        assert_eq!(config.entrypoint.as_deref(), Some(&entrypoint[..]));
        assert_eq!(config.cmd.as_deref(), Some(&["x".to_owned()][..]));
        assert_eq!(config.on_build.as_deref(), Some(&["RUN x".to_owned()][..]));
        assert_eq!(state.image.author, "me");
        let last = |text: &str| {
            applied(text).expect(text).image.history.pop().expect("history").created_by
        };
        assert_eq!(
            last("CMD service nginx start"),
            r#"CMD ["/bin/sh" "-c" "service nginx start"]"#
        );
        assert_eq!(last("EXPOSE 80"), "EXPOSE map[80/tcp:{}]");
        assert_eq!(last("ARG NONE OTHER=1"), "ARG NONE OTHER=1");
    }

    #[test]
    fn an_entrypoint_drops_the_command_of_the_base() {
        let mut base = applied("CMD x").expect("applies").next_stage();
        let line = parse::parse("ENTRYPOINT [\"y\"]").expect("parses").lines.remove(0);
        let none = BTreeMap::new();
        let scope =
            Scope { escape: '\\', given: &BTreeMap::new(), globals: &none, platform: &none };
        base.apply(&Instruction::read(line).expect("reads"), scope).expect("applies");
        assert_eq!(base.image.config.cmd, None);
    }

    #[test]
    fn wrong_values_are_refused() {
        for (text, want) in [
            ("EXPOSE 99999", "invalid containerPort: 99999"),
            ("EXPOSE 80/xyz", "invalid proto: xyz"),
            ("EXPOSE 9-8", "invalid containerPort: 9-8"),
            ("STOPSIGNAL SIGNOTHING", "Invalid signal: SIGNOTHING"),
            ("STOPSIGNAL 0", "Invalid signal: 0"),
            ("ENV A=${B?}", "B: is not allowed to be unset"),
        ] {
            assert_eq!(applied(text).map(|_| ()), Err(want.to_owned()), "{text}");
        }
        applied("STOPSIGNAL SIGRTMIN+3").expect("a real-time signal");
    }
}
