//! What each instruction of a Dockerfile says, before variables are replaced.

mod healthcheck;

use bulkhead_types::image::Healthcheck;

use crate::flags::Flags;
use crate::parse::{Arguments, Fault, Heredoc, HeredocMark, Line};

/// One instruction and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Instruction {
    pub(crate) line: usize,
    /// As written, continuation lines joined.
    pub(crate) text: String,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    From(From),
    /// Names with their defaults.
    Arg(Vec<(String, Option<String>)>),
    Env(Vec<(String, String)>),
    Label(Vec<(String, String)>),
    Run(Run),
    /// COPY and ADD.
    Copy(Copy),
    Workdir(String),
    User(String),
    Expose(Vec<String>),
    Volume(Vec<String>),
    Cmd(Command),
    Entrypoint(Command),
    Healthcheck(Healthcheck),
    Shell(Vec<String>),
    StopSignal(String),
    /// The instruction's text, for the build that starts from this image.
    OnBuild(String),
    Maintainer(String),
}

#[derive(Debug, Clone)]
pub(crate) struct From {
    pub(crate) image: String,
    pub(crate) name: Option<String>,
    pub(crate) platform: Option<String>,
}

#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) command: Command,
    pub(crate) heredocs: Vec<Heredoc>,
    pub(crate) network: Network,
}

/// `RUN --network`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    Default,
    None,
    Host,
}

/// Shell form or exec (JSON) form.
#[derive(Debug, Clone)]
pub(crate) enum Command {
    Shell(String),
    Exec(Vec<String>),
}

#[derive(Debug, Clone)]
pub(crate) struct Copy {
    /// ADD: archives may be unpacked.
    pub(crate) add: bool,
    pub(crate) from: Option<String>,
    pub(crate) chown: Option<String>,
    pub(crate) chmod: Option<String>,
    pub(crate) exclude: Vec<String>,
    /// `ADD --unpack`: whether archives are unpacked, where it is said.
    pub(crate) unpack: Option<bool>,
    /// `ADD --checksum`: what an address must give.
    pub(crate) checksum: Option<String>,
    pub(crate) sources: Vec<String>,
    pub(crate) files: Vec<Heredoc>,
    pub(crate) destination: String,
}

impl Instruction {
    pub(crate) fn read(line: Line) -> Result<Self, Fault> {
        let mut flags = Flags::of(&line);
        let keyword = line.keyword.to_ascii_uppercase();
        let kind = match keyword.as_str() {
            "FROM" => from(&line, &mut flags)?,
            "ARG" => Kind::Arg(arguments_with_defaults(&line)?),
            "ENV" => Kind::Env(pairs(&line, "ENV")?),
            "LABEL" => Kind::Label(pairs(&line, "LABEL")?),
            "RUN" => run(&line, &mut flags)?,
            "COPY" | "ADD" => copy(&line, &mut flags, keyword == "ADD")?,
            "WORKDIR" => Kind::Workdir(text(&line, "WORKDIR")?),
            "USER" => Kind::User(text(&line, "USER")?),
            "STOPSIGNAL" => Kind::StopSignal(text(&line, "STOPSIGNAL")?),
            "MAINTAINER" => Kind::Maintainer(text(&line, "MAINTAINER")?),
            "EXPOSE" => Kind::Expose(words(&line, "EXPOSE")?),
            "VOLUME" => {
                let volumes = words(&line, "VOLUME")?;
                if volumes.iter().any(|volume| volume.trim().is_empty()) {
                    return Err("VOLUME specified can not be an empty string".to_owned());
                }
                Kind::Volume(volumes)
            }
            "CMD" => Kind::Cmd(command(&line.arguments)),
            "ENTRYPOINT" => Kind::Entrypoint(command(&line.arguments)),
            "SHELL" => match &line.arguments {
                Arguments::Json(shell) if !shell.is_empty() => Kind::Shell(shell.clone()),
                Arguments::Json(_) | Arguments::None => return Err(at_least_one("SHELL")),
                _ => {
                    return Err(format!(
                        "SHELL requires the arguments to be in JSON form, not: {}",
                        line.text
                    ));
                }
            },
            "HEALTHCHECK" => Kind::Healthcheck(healthcheck::read(&line, &mut flags)?),
            "ONBUILD" => on_build(&line)?,
            _ => return Err(format!("unknown instruction: {}", line.keyword)),
        };
        flags.finish()?;
        Ok(Self { line: line.number, text: line.text, kind })
    }
}

fn from(line: &Line, flags: &mut Flags) -> Result<Kind, Fault> {
    let platform = flags.value("platform")?;
    let words = match &line.arguments {
        Arguments::Words(words) => &words[..],
        _ => &[],
    };
    let (image, name) = match words {
        [image] => (image, None),
        [image, keyword, name] if keyword.eq_ignore_ascii_case("as") => {
            (image, Some(stage_name(name)?))
        }
        _ => return Err("FROM requires either one or three arguments".to_owned()),
    };
    Ok(Kind::From(From { image: image.clone(), name, platform }))
}

/// `^[a-z][a-z0-9-_.]*$` after lower-casing.
fn stage_name(name: &str) -> Result<String, Fault> {
    let lower = name.to_ascii_lowercase();
    let valid = lower.starts_with(|c: char| c.is_ascii_lowercase())
        && lower.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if !valid {
        return Err(format!(
            "invalid name for build stage: {name:?}, name can't start with a number or contain \
             symbols"
        ));
    }
    Ok(lower)
}

fn arguments_with_defaults(line: &Line) -> Result<Vec<(String, Option<String>)>, Fault> {
    let split = |word: String| match word.split_once('=') {
        Some(("", _)) => Err("ARG names can not be blank".to_owned()),
        Some((name, value)) => Ok((name.to_owned(), Some(value.to_owned()))),
        None => Ok((word, None)),
    };
    words(line, "ARG")?.into_iter().map(split).collect()
}

fn pairs(line: &Line, keyword: &str) -> Result<Vec<(String, String)>, Fault> {
    match &line.arguments {
        Arguments::Pairs(pairs) if pairs.iter().any(|(name, _)| name.is_empty()) => {
            Err(format!("{keyword} names can not be blank"))
        }
        Arguments::Pairs(pairs) => Ok(pairs.clone()),
        _ => Err(at_least_one(keyword)),
    }
}

fn text(line: &Line, keyword: &str) -> Result<String, Fault> {
    match &line.arguments {
        Arguments::Text(text) => Ok(text.clone()),
        _ => Err(format!("{keyword} requires exactly one argument")),
    }
}

fn words(line: &Line, keyword: &str) -> Result<Vec<String>, Fault> {
    match &line.arguments {
        Arguments::Words(words) | Arguments::Json(words) if !words.is_empty() => Ok(words.clone()),
        _ => Err(at_least_one(keyword)),
    }
}

fn command(arguments: &Arguments) -> Command {
    match arguments {
        Arguments::Json(arguments) => Command::Exec(arguments.clone()),
        Arguments::Text(text) => Command::Shell(text.clone()),
        _ => Command::Exec(Vec::new()),
    }
}

fn run(line: &Line, flags: &mut Flags) -> Result<Kind, Fault> {
    // The step's container gets nothing from outside but its layers, so far.
    if !flags.values("mount")?.is_empty() {
        return Err("RUN --mount is not supported yet: copy what the step needs into the image, \
                    and remove what must not stay in the same RUN"
            .to_owned());
    }
    if flags.value("security")?.is_some_and(|mode| mode != "sandbox") {
        return Err(
            "RUN --security=insecure is not allowed: build steps are always isolated".to_owned()
        );
    }
    if !flags.values("device")?.is_empty() {
        return Err("RUN --device is not supported".to_owned());
    }
    let network = match flags.value("network")?.as_deref() {
        None | Some("default") => Network::Default,
        Some("none") => Network::None,
        Some("host") => Network::Host,
        Some(other) => {
            return Err(format!(
                "invalid network mode {other:?} for RUN: expected default, none or host"
            ));
        }
    };
    let command = match command(&line.arguments) {
        Command::Exec(arguments) if arguments.is_empty() => return Err(at_least_one("RUN")),
        command => command,
    };
    Ok(Kind::Run(Run { command, heredocs: line.heredocs.clone(), network }))
}

fn copy(line: &Line, flags: &mut Flags, add: bool) -> Result<Kind, Fault> {
    let keyword = if add { "ADD" } else { "COPY" };
    let mut words = match &line.arguments {
        Arguments::Words(words) | Arguments::Json(words) => words.clone(),
        _ => Vec::new(),
    };
    let (Some(destination), false) = (words.pop(), words.is_empty()) else {
        return Err(format!(
            "{keyword} requires at least two arguments, but only one was provided. Destination \
             could not be determined"
        ));
    };
    if HeredocMark::read(&destination)?.is_some() {
        return Err(format!("{keyword} cannot accept a heredoc as a destination"));
    }
    let mut sources = Vec::new();
    for word in words {
        let is_document = !line.heredocs.is_empty() && HeredocMark::read(&word)?.is_some();
        if !is_document {
            sources.push(word);
        }
    }
    let is_git = |source: &String| {
        let of_git = ["git://", "git@", "ssh://"].iter().any(|start| source.starts_with(start));
        let address = source.split('#').next().unwrap_or_default();
        of_git
            || (source.starts_with("http") && source.contains("://") && address.ends_with(".git"))
    };
    if let Some(source) = sources.iter().find(|source| add && is_git(source)) {
        return Err(format!(
            "ADD of the repository {source} is not supported: clone it with RUN, or put it into \
             the build context"
        ));
    }
    let copy = Copy {
        add,
        from: if add { None } else { flags.value("from")? },
        chown: flags.value("chown")?,
        chmod: flags.value("chmod")?,
        exclude: flags.values("exclude")?,
        unpack: if add { flags.switch("unpack")? } else { None },
        checksum: if add { flags.value("checksum")? } else { None },
        sources,
        files: line.heredocs.clone(),
        destination,
    };
    // Each COPY is a layer of its own here anyway, which is all that --link asks for.
    flags.switch("link")?;
    if !add && flags.switch("parents")? == Some(true) {
        return Err("COPY --parents is not supported yet: name the directories in the destination"
            .to_owned());
    }
    if add {
        // Speaks of repositories, which are refused above.
        flags.switch("keep-git-dir")?;
    }
    Ok(Kind::Copy(copy))
}

fn on_build(line: &Line) -> Result<Kind, Fault> {
    let Arguments::Trigger(trigger) = &line.arguments else {
        return Err(at_least_one("ONBUILD"));
    };
    let keyword = trigger.keyword.to_ascii_uppercase();
    if ["FROM", "MAINTAINER"].contains(&keyword.as_str()) {
        return Err(format!("{keyword} isn't allowed as an ONBUILD trigger"));
    }
    let inner = Line { heredocs: line.heredocs.clone(), ..(**trigger).clone() };
    Instruction::read(inner)?;
    let mut text = trigger.text.clone();
    for document in &line.heredocs {
        text += &format!("\n{}{}", document.content, document.mark.name);
    }
    Ok(Kind::OnBuild(text))
}

fn at_least_one(keyword: &str) -> Fault {
    format!("{keyword} requires at least one argument")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    fn read(text: &str) -> Result<Vec<Instruction>, Fault> {
        let parsed = parse::parse(text).map_err(|error| error.to_string())?;
        parsed.lines.into_iter().map(Instruction::read).collect()
    }

    #[test]
    fn wrong_instructions_are_refused_in_words() {
        for (text, want) in [
            ("RUNN x", "unknown instruction: RUNN"),
            ("FROM a b", "FROM requires either one or three arguments"),
            (
                "FROM a as 1x",
                "invalid name for build stage: \"1x\", name can't start with a number or contain symbols",
            ),
            ("FROM --x=y a", "unknown flag: --x"),
            ("COPY --user=me a b", "unknown flag: --user"),
            ("COPY --chown=a --chown=b c d", "duplicate flag specified: chown"),
            ("COPY --from a b", "missing a value on flag: from"),
            ("COPY --link=maybe a b", "expecting boolean value for flag link, not: maybe"),
            (
                "COPY a",
                "COPY requires at least two arguments, but only one was provided. Destination could not be determined",
            ),
            (
                "COPY",
                "COPY requires at least two arguments, but only one was provided. Destination could not be determined",
            ),
            ("COPY a <<E\nE", "COPY cannot accept a heredoc as a destination"),
            ("RUN", "RUN requires at least one argument"),
            (
                "RUN --network=my x",
                "invalid network mode \"my\" for RUN: expected default, none or host",
            ),
            ("ENV", "ENV requires at least one argument"),
            ("ENV =x", "ENV names can not be blank"),
            ("WORKDIR", "WORKDIR requires exactly one argument"),
            ("SHELL sh -c", "SHELL requires the arguments to be in JSON form, not: SHELL sh -c"),
            ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
            ("ONBUILD", "ONBUILD requires at least one argument"),
            ("ONBUILD RUNN x", "unknown instruction: RUNN"),
            (
                "ADD https://x/y.git#main /",
                "ADD of the repository https://x/y.git#main is not supported: clone it with RUN, or put it into the build context",
            ),
            ("HEALTHCHECK --retries=-1 CMD x", "--retries cannot be negative (-1)"),
            (
                "HEALTHCHECK --interval=5 CMD x",
                "invalid duration \"5\" for --interval: write it like 30s or 1m30s",
            ),
            ("HEALTHCHECK PING x", "Unknown type \"PING\" in HEALTHCHECK (try CMD)"),
            ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
            ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
        ] {
            assert_eq!(read(text).map(|_| ()), Err(want.to_owned()), "{text}");
        }
        let chained = "dockerfile parse error on line 1: Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed";
        assert_eq!(read("ONBUILD ONBUILD RUN x").map(|_| ()), Err(chained.to_owned()));
    }

    #[test]
    fn documents_become_files() {
        let read = read("COPY --chmod=755 <<-A b <<'C' /x/\n\tone\n\tA\n$two\nC\n").expect("reads");
        let [Instruction { kind: Kind::Copy(copy), .. }] = &read[..] else { panic!("{read:?}") };
        assert_eq!(copy.sources, ["b"]);
        let files: Vec<_> =
            copy.files.iter().map(|d| (d.mark.name.clone(), d.file(), d.mark.expand)).collect();
        assert_eq!(
            files,
            [("A".into(), "one\n".into(), true), ("C".into(), "$two\n".into(), false)]
        );
    }

    #[test]
    fn health_checks_are_nanoseconds() {
        let read = read("HEALTHCHECK --interval=1m30s --timeout=1.5s --start-period=100ms --retries=3 CMD curl x").expect("reads");
        let [Instruction { kind: Kind::Healthcheck(check), .. }] = &read[..] else {
            panic!("{read:?}")
        };
        let want = Healthcheck {
            test: vec!["CMD-SHELL".into(), "curl x".into()],
            interval: 90_000_000_000,
            timeout: 1_500_000_000,
            start_period: 100_000_000,
            start_interval: 0,
            retries: 3,
        };
        assert_eq!(check, &want);
    }
}
