//! Which stages a target needs, and in which order: a pure function of Dockerfile and arguments.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_types::Reference;
use bulkhead_types::image::Platform;

use crate::BuildError;
use crate::expand;
use crate::instruction::{Copy, From, Instruction, Kind};
use crate::parse::Dockerfile;

/// What the plan depends on besides the Dockerfile.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choices<'a> {
    /// `--build-arg`.
    pub(crate) arguments: &'a BTreeMap<String, Option<String>>,
    pub(crate) target: Option<&'a str>,
    /// `--build-context`.
    pub(crate) contexts: &'a BTreeMap<String, String>,
}

/// The stages of a Dockerfile and those that the target needs.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) escape: char,
    /// ARG instructions before the first FROM.
    pub(crate) globals: Vec<Instruction>,
    /// What those arguments are; a name without a value is not in here.
    pub(crate) global_values: BTreeMap<String, String>,
    pub(crate) stages: Vec<Stage>,
    /// Indexes of the stages to build, each after those it needs; the last is the target.
    pub(crate) order: Vec<usize>,
    contexts: BTreeMap<String, Reference>,
    /// Of all values of global arguments, also of those that were replaced.
    global_bytes: usize,
}

#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) name: Option<String>,
    pub(crate) line: usize,
    /// The FROM instruction as written.
    pub(crate) text: String,
    pub(crate) base: Base,
    pub(crate) instructions: Vec<Instruction>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Base {
    Scratch,
    Stage(usize),
    Image(Reference),
}

/// Where a COPY takes its files from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Context,
    Stage(usize),
    Image(Reference),
}

/// Plans a build. Every error but a missing target has a line.
pub(crate) fn plan(dockerfile: Dockerfile, choices: Choices<'_>) -> Result<Plan, BuildError> {
    let mut plan = Plan {
        escape: dockerfile.escape,
        globals: Vec::new(),
        global_values: BTreeMap::new(),
        stages: Vec::new(),
        order: Vec::new(),
        contexts: contexts(choices.contexts)?,
        global_bytes: 0,
    };
    if let Some(line) = dockerfile.lines.get(MAX_INSTRUCTIONS) {
        let message = format!("more than {MAX_INSTRUCTIONS} instructions");
        return Err(BuildError::Dockerfile { line: line.number, message });
    }
    for line in dockerfile.lines {
        let number = line.number;
        let at = |message| BuildError::Dockerfile { line: number, message };
        let instruction = Instruction::read(line).map_err(at)?;
        plan.add(instruction, choices).map_err(at)?;
    }
    let Some(last) = plan.stages.len().checked_sub(1) else {
        let line = plan.globals.last().map_or(1, |argument| argument.line);
        return Err(BuildError::Dockerfile {
            line,
            message: "no build stage: FROM is missing".into(),
        });
    };
    let target = match choices.target.filter(|target| !target.is_empty()) {
        None => last,
        Some(name) => plan
            .stage(plan.stages.len(), name)
            .ok_or_else(|| BuildError::NoTarget(name.to_owned()))?,
    };
    plan.order = plan.needed(target)?;
    Ok(plan)
}

/// The platform arguments that every FROM, and every stage which declares them, can use.
pub(crate) fn platform_arguments(target_stage: Option<&str>) -> BTreeMap<String, String> {
    let platform = Platform::host();
    let mut arguments = BTreeMap::new();
    for side in ["BUILD", "TARGET"] {
        let whole = format!("{}/{}", platform.os, platform.architecture);
        arguments.insert(format!("{side}PLATFORM"), whole);
        arguments.insert(format!("{side}OS"), platform.os.clone());
        arguments.insert(format!("{side}ARCH"), platform.architecture.clone());
        arguments.insert(format!("{side}VARIANT"), platform.variant.clone().unwrap_or_default());
    }
    arguments.insert("TARGETSTAGE".to_owned(), target_stage.unwrap_or("default").to_owned());
    arguments
}

impl Plan {
    /// What `--from` means in the stage with index `at`.
    pub(crate) fn origin(&self, at: usize, copy: &Copy) -> Result<Origin, String> {
        let Some(from) = &copy.from else { return Ok(Origin::Context) };
        if let Some(stage) = self.stage(at, from) {
            return Ok(Origin::Stage(stage));
        }
        if from.parse::<usize>().is_ok() {
            return Err(format!(
                "invalid from flag value {from}: no stage before this one has that number"
            ));
        }
        self.image(from).map(Origin::Image).ok_or_else(|| {
            format!("invalid from flag value {from}: no stage has that name, and it is no image reference")
        })
    }

    fn add(&mut self, instruction: Instruction, choices: Choices<'_>) -> Result<(), String> {
        match (&instruction.kind, self.stages.last_mut()) {
            (Kind::From(from), _) => {
                let stage = self.stage_from(from, &instruction, choices)?;
                self.stages.push(stage);
            }
            (_, Some(stage)) => stage.instructions.push(instruction),
            (Kind::Arg(names), None) => {
                for (name, default) in names {
                    let given = choices.arguments.get(name).cloned().flatten();
                    let value = match (given, default) {
                        (Some(value), _) => Some(value),
                        (None, Some(default)) => Some(self.expand(default)?),
                        (None, None) => platform_arguments(choices.target).remove(name),
                    };
                    if let Some(value) = value {
                        self.global_bytes += value.len();
                        if self.global_bytes > MAX_GLOBAL_BYTES {
                            return Err("the values of ARG before FROM are too long".to_owned());
                        }
                        self.global_values.insert(name.clone(), value);
                    }
                }
                self.globals.push(instruction);
            }
            (_, None) => {
                return Err("no build stage in current context: FROM must come first".into());
            }
        }
        Ok(())
    }

    fn stage_from(
        &self,
        from: &From,
        instruction: &Instruction,
        choices: Choices<'_>,
    ) -> Result<Stage, String> {
        let expand = |text: &str| {
            let platform = platform_arguments(choices.target);
            let value = |name: &str| self.global_values.get(name).or(platform.get(name)).cloned();
            expand::word(text, self.escape, &value).map_err(|error| error.to_string())
        };
        if let Some(platform) = &from.platform {
            supported_platform(&expand(platform)?)?;
        }
        let image = expand(&from.image)?;
        if image.is_empty() {
            return Err(format!("base name ({}) should not be blank", from.image));
        }
        // A context with the stage's name stands for the whole stage.
        let instead = from.name.as_ref().and_then(|name| self.contexts.get(name));
        let base = match (instead, self.stage(self.stages.len(), &image)) {
            (Some(context), _) => Base::Image(context.clone()),
            (None, Some(stage)) if image.parse::<usize>().is_err() => Base::Stage(stage),
            _ if image == "scratch" && !self.contexts.contains_key("scratch") => Base::Scratch,
            _ => match self.image(&image) {
                Some(reference) => Base::Image(reference),
                None => {
                    return Err(format!(
                        "failed to parse stage name {image:?}: invalid reference format"
                    ));
                }
            },
        };
        Ok(Stage {
            name: from.name.clone(),
            line: instruction.line,
            text: instruction.text.clone(),
            base,
            instructions: Vec::new(),
        })
    }

    fn expand(&self, text: &str) -> Result<String, String> {
        let value = |name: &str| self.global_values.get(name).cloned();
        expand::word(text, self.escape, &value).map_err(|error| error.to_string())
    }

    /// A stage before `at` by name (the nearest counts) or number.
    fn stage(&self, at: usize, name: &str) -> Option<usize> {
        let name = name.to_ascii_lowercase();
        let named = |stage: &Stage| stage.name.as_deref() == Some(&name);
        self.stages[..at]
            .iter()
            .rposition(named)
            .or_else(|| name.parse().ok().filter(|number| *number < at))
    }

    /// A context by its name as given or as a completed reference, else the image itself.
    fn image(&self, name: &str) -> Option<Reference> {
        if let Some(context) = self.contexts.get(name) {
            return Some(context.clone());
        }
        let reference: Reference = name.parse().ok()?;
        let same = |context: &&String| context.parse() == Ok(reference.clone());
        match self.contexts.keys().find(same) {
            Some(context) => self.contexts.get(context).cloned(),
            None => Some(reference),
        }
    }

    /// A stage needs only stages before it, so their numbers are an order to build them in.
    fn needed(&self, target: usize) -> Result<Vec<usize>, BuildError> {
        let mut needed = BTreeSet::new();
        let mut open = vec![target];
        while let Some(index) = open.pop() {
            if !needed.insert(index) {
                continue;
            }
            let stage = &self.stages[index];
            if let Base::Stage(base) = stage.base {
                open.push(base);
            }
            for instruction in &stage.instructions {
                let Kind::Copy(copy) = &instruction.kind else { continue };
                let at = |message| BuildError::Dockerfile { line: instruction.line, message };
                if let Origin::Stage(from) = self.origin(index, copy).map_err(at)? {
                    open.push(from);
                }
            }
        }
        Ok(needed.into_iter().collect())
    }
}

fn contexts(given: &BTreeMap<String, String>) -> Result<BTreeMap<String, Reference>, BuildError> {
    let read = |(name, value): (&String, &String)| {
        let image = value.strip_prefix("docker-image://").and_then(|image| image.parse().ok());
        match image {
            Some(reference) => Ok((name.clone(), reference)),
            None => Err(BuildError::Context { name: name.clone(), value: value.clone() }),
        }
    };
    given.iter().map(read).collect()
}

/// Only this machine's own platform can run here.
fn supported_platform(text: &str) -> Result<(), String> {
    let host = Platform::host();
    let architecture = |name: &str| match name {
        "x86_64" | "x86-64" => "amd64".to_owned(),
        "aarch64" => "arm64".to_owned(),
        other => other.to_owned(),
    };
    let lower = text.to_ascii_lowercase();
    let mut parts = lower.split('/');
    let (os, wanted) = match (parts.next().unwrap_or_default(), parts.next()) {
        (os, Some(wanted)) => (os.to_owned(), architecture(wanted)),
        ("linux", None) => ("linux".to_owned(), host.architecture.clone()),
        (only, None) => ("linux".to_owned(), architecture(only)),
    };
    if os == host.os && wanted == host.architecture {
        return Ok(());
    }
    Err(format!(
        "platform {text} can not be built here: this machine runs {}/{}",
        host.os, host.architecture
    ))
}

/// Far more than anyone writes, and few enough that work in squares of it ends.
const MAX_INSTRUCTIONS: usize = 10_000;

const MAX_GLOBAL_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::parse;

    fn planned(
        text: &str,
        arguments: &[(&str, &str)],
        target: Option<&str>,
        contexts: &[(&str, &str)],
    ) -> Result<Plan, String> {
        let arguments = arguments.iter().map(|(n, v)| ((*n).into(), Some((*v).into()))).collect();
        let contexts = contexts.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
        let choices = Choices { arguments: &arguments, target, contexts: &contexts };
        let dockerfile = parse::parse(text).map_err(|error| error.to_string())?;
        plan(dockerfile, choices).map_err(|error| error.to_string())
    }

    const STAGES: &str = "ARG V=1\nFROM a:$V AS one\nFROM b AS two\nCOPY --from=One x x\n\
                          FROM c AS unused\nFROM two\nCOPY --from=0 x x\n";

    fn image(text: &str) -> Base {
        Base::Image(text.parse().expect(text))
    }

    #[test]
    fn only_needed_stages_are_built() {
        for (target, want) in [
            (None, vec![0, 1, 3]),
            (Some("one"), vec![0]),
            (Some("TWO"), vec![0, 1]),
            (Some("2"), vec![2]),
        ] {
            let plan = planned(STAGES, &[], target, &[]).expect("plans");
            assert_eq!(plan.order, want, "{target:?}");
        }
        let plan = planned(STAGES, &[("V", "2")], None, &[]).expect("plans");
        assert_eq!(plan.stages[0].base, image("a:2"));
        assert_eq!(plan.stages[3].base, Base::Stage(1));
    }

    #[test]
    fn contexts_stand_for_images_and_stages() {
        let debian = "docker-image://debian:bookworm";
        for context in ["ubuntu", "docker.io/library/ubuntu:latest", "ubuntu:latest"] {
            let plan = planned("FROM ubuntu", &[], None, &[(context, debian)]).expect("plans");
            assert_eq!(plan.stages[0].base, image("debian:bookworm"), "{context}");
        }
        let plan = planned(STAGES, &[], None, &[("one", debian)]).expect("plans");
        assert_eq!(plan.stages[0].base, image("debian:bookworm"));
        let error = planned("FROM a", &[], None, &[("x", "./dir")]).expect_err("a directory");
        assert!(error.contains("docker-image://"), "{error}");
    }

    #[test]
    fn wrong_plans_name_their_line() {
        for (text, want) in [
            ("ARG A=1", "line 1: no build stage: FROM is missing"),
            ("RUN x\nFROM a", "line 1: no build stage in current context: FROM must come first"),
            ("FROM a\n\nRUNN x", "line 3: unknown instruction: RUNN"),
            ("ARG X\nFROM $X", "line 2: base name ($X) should not be blank"),
            (
                "FROM A:b:c",
                "line 1: failed to parse stage name \"A:b:c\": invalid reference format",
            ),
            (
                "FROM a\nCOPY --from=0 x y",
                "line 2: invalid from flag value 0: no stage before this one has that number",
            ),
        ] {
            let error = planned(text, &[], None, &[]).expect_err(text);
            assert_eq!(error, format!("dockerfile parse error on {want}"), "{text}");
        }
        let error = planned("FROM a", &[], Some("x"), &[]).expect_err("no such target");
        assert_eq!(error, "target stage \"x\" could not be found");
        let error =
            planned("FROM --platform=windows/amd64 a", &[], None, &[]).expect_err("windows");
        assert!(error.contains("line 1: platform windows/amd64 can not be built here"), "{error}");
        planned("FROM --platform=$BUILDPLATFORM a", &[], None, &[]).expect("this machine's own");
    }

    #[test]
    fn a_thousand_stages_are_planned_at_once() {
        let mut text = String::from("FROM a AS s0\n");
        for n in 1..1000 {
            text += &format!("FROM s{} AS s{n}\n", n - 1);
        }
        assert_eq!(planned(&text, &[], None, &[]).expect("plans").order.len(), 1000);
    }

    proptest! {
        #[test]
        fn nothing_panics_and_every_fault_has_a_line(
            text in r#"((FROM a|FROM scratch AS x|ARG A=1|COPY --from=(x|0|9)|RUN <<E|ADD|EXPOSE|ONBUILD|ENV|HEALTHCHECK --interval=1s CMD|VOLUME|USER \$A|[a\["'$ {}=:-]{0,4})[ \n]){0,20}"#,
        ) {
            if let Err(error) = planned(&text, &[], None, &[]) {
                prop_assert!(error.starts_with("dockerfile parse error on line "), "{}", error);
            }
        }
    }
}
