//! The plan as a list of operations: each has its inputs, and a digest over what it does and what
//! it stands on. A pure function of plan and options; nothing here looks at an image or a file.

use std::collections::BTreeMap;

use bulkhead_types::Digest;

use crate::BuildError;
use crate::cache;
use crate::event::{Place, Vertex};
use crate::instruction::{Instruction, Kind};
use crate::plan::{Base, Origin, Plan, Stage};

/// All operations that a target needs, each after its inputs; the last makes the image.
#[derive(Debug)]
pub(crate) struct Graph<'a> {
    pub(crate) operations: Vec<Operation<'a>>,
}

#[derive(Debug)]
pub(crate) struct Operation<'a> {
    pub(crate) vertex: Vertex,
    /// What must be done before, by its place in the graph: the inputs, and an operation that is the
    /// same work, whose result is then in the cache.
    pub(crate) needs: Vec<usize>,
    pub(crate) action: Action<'a>,
}

impl Operation<'_> {
    /// The stage's number in the plan.
    pub(crate) fn stage(&self) -> Option<usize> {
        match self.action {
            Action::Declare(_) => None,
            Action::From(stage, _) | Action::Step(stage, _) => Some(stage),
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Action<'a> {
    /// ARG before the first FROM; the plan knows its value already.
    Declare(&'a Instruction),
    /// Begins the stage with this number.
    From(usize, &'a Stage),
    /// Goes on with the stage of this number.
    Step(usize, &'a Instruction),
}

impl<'a> Graph<'a> {
    /// Makes the graph. `arguments` are those of `--build-arg`, which decide what is expanded.
    pub(crate) fn new(
        plan: &'a Plan,
        arguments: &BTreeMap<String, Option<String>>,
    ) -> Result<Self, BuildError> {
        let given = settings(plan, arguments);
        let mut graph = Self { operations: Vec::new() };
        let mut known = BTreeMap::new();
        for argument in &plan.globals {
            let vertex = vertex(&argument.text, given, Vec::new());
            graph.add(&mut known, vertex, Vec::new(), Action::Declare(argument));
        }
        let mut ends: BTreeMap<usize, usize> = BTreeMap::new();
        for index in &plan.order {
            let stage = &plan.stages[*index];
            let (what, needs) = match &stage.base {
                Base::Scratch => ("FROM scratch".to_owned(), Vec::new()),
                Base::Image(reference) => (format!("FROM {reference}"), Vec::new()),
                Base::Stage(base) => ("FROM".to_owned(), vec![ends[base]]),
            };
            let mut begin = vertex(&what, given, graph.digests(&needs));
            begin.name = stage.text.clone();
            let mut places = places(plan, *index);
            begin.place = places.next();
            let mut end = graph.add(&mut known, begin, needs, Action::From(*index, stage));
            for instruction in &stage.instructions {
                let mut needs = vec![end];
                if let Kind::Copy(copy) = &instruction.kind {
                    let at = |message| BuildError::Dockerfile { line: instruction.line, message };
                    if let Origin::Stage(from) = plan.origin(*index, copy).map_err(at)? {
                        needs.push(ends[&from]);
                    }
                }
                let mut vertex = step(instruction, graph.digests(&needs));
                if works_on_files(instruction) {
                    vertex.place = places.next();
                }
                end = graph.add(&mut known, vertex, needs, Action::Step(*index, instruction));
            }
            ends.insert(*index, end);
        }
        Ok(graph)
    }

    /// Adds an operation and returns its place. `known` has the last place of each digest.
    fn add(
        &mut self,
        known: &mut BTreeMap<Digest, usize>,
        vertex: Vertex,
        mut needs: Vec<usize>,
        action: Action<'a>,
    ) -> usize {
        let place = self.operations.len();
        needs.extend(known.insert(vertex.digest, place));
        self.operations.push(Operation { vertex, needs, action });
        place
    }

    fn digests(&self, places: &[usize]) -> Vec<Digest> {
        places.iter().map(|place| self.operations[*place].vertex.digest).collect()
    }

    /// Whether nothing of its stage comes after an operation.
    pub(crate) fn ends_stage(&self, place: usize) -> bool {
        let stage = |place: usize| self.operations.get(place).and_then(Operation::stage);
        stage(place).is_some() && stage(place) != stage(place + 1)
    }

    pub(crate) fn vertices(&self) -> Vec<Vertex> {
        self.operations.iter().map(|operation| operation.vertex.clone()).collect()
    }
}

/// Whether it is more than a setting of the image.
fn works_on_files(instruction: &Instruction) -> bool {
    matches!(instruction.kind, Kind::Run(_) | Kind::Copy(_) | Kind::Workdir(_))
}

/// The places of a stage's FROM and of what works on files after it.
fn places(plan: &Plan, index: usize) -> impl Iterator<Item = Place> + use<> {
    let stage = &plan.stages[index];
    let name = match (&stage.name, plan.stages.len()) {
        (Some(name), _) => name.clone(),
        (None, 1) => String::new(),
        (None, _) => format!("stage-{index}"),
    };
    let of = 1 + stage.instructions.iter().filter(|it| works_on_files(it)).count();
    (1..=of).map(move |number| Place { stage: name.clone(), number, of })
}

/// An instruction on top of its inputs.
pub(crate) fn step(instruction: &Instruction, inputs: Vec<Digest>) -> Vertex {
    let documents = match &instruction.kind {
        Kind::Run(run) => &run.heredocs[..],
        Kind::Copy(copy) => &copy.files[..],
        _ => &[],
    };
    let documents: Vec<String> = documents.iter().map(|document| document.file()).collect();
    let parts = [instruction.text.as_str()];
    let what = cache::key(parts.into_iter().chain(documents.iter().map(String::as_str)));
    let digest = digest("step", what, &inputs);
    Vertex { digest, name: instruction.text.clone(), inputs, place: None }
}

fn vertex(text: &str, given: Digest, inputs: Vec<Digest>) -> Vertex {
    let what = cache::key([text, &given.hex()]);
    Vertex { digest: digest("from", what, &inputs), name: text.to_owned(), inputs, place: None }
}

fn digest(kind: &str, what: Digest, inputs: &[Digest]) -> Digest {
    let inputs: Vec<String> = inputs.iter().map(Digest::hex).collect();
    let what = what.hex();
    cache::key([kind, &what].into_iter().chain(inputs.iter().map(String::as_str)))
}

/// What changes the meaning of instructions from outside of their stage.
fn settings(plan: &Plan, arguments: &BTreeMap<String, Option<String>>) -> Digest {
    let mut parts = vec![plan.escape.to_string()];
    for (name, value) in arguments {
        parts.extend(value.iter().map(|value| format!("{name}={value}")));
    }
    parts.extend(plan.global_values.iter().map(|(name, value)| format!("{name}:{value}")));
    cache::key(parts.iter().map(String::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;
    use crate::plan::{self, Choices};

    /// Each operation as `name <- names of its inputs`.
    fn shown(graph: &Graph<'_>) -> Vec<String> {
        let name = |digest: &Digest| {
            let mut operations = graph.operations.iter();
            let found = operations.find(|operation| operation.vertex.digest == *digest);
            found.expect("inputs are operations of the graph").vertex.name.clone()
        };
        let show = |operation: &Operation<'_>| {
            let inputs: Vec<String> = operation.vertex.inputs.iter().map(name).collect();
            format!("{} <- {}", operation.vertex.name, inputs.join(", "))
        };
        graph.operations.iter().map(show).collect()
    }

    fn planned(text: &str, arguments: &[(&str, &str)], check: impl FnOnce(&Graph<'_>)) {
        let arguments = arguments.iter().map(|(n, v)| ((*n).into(), Some((*v).into()))).collect();
        let contexts = BTreeMap::new();
        let choices = Choices { arguments: &arguments, target: None, contexts: &contexts };
        let dockerfile = parse::parse(text).expect("parses");
        let plan = plan::plan(dockerfile, choices).expect("plans");
        check(&Graph::new(&plan, &arguments).expect("a graph"));
    }

    fn digests(text: &str, arguments: &[(&str, &str)]) -> Vec<Digest> {
        let mut digests = Vec::new();
        planned(text, arguments, |graph| {
            digests = graph.operations.iter().map(|operation| operation.vertex.digest).collect();
        });
        digests
    }

    #[test]
    fn operations_stand_on_their_inputs() {
        let text = "ARG V=1\nFROM a:$V AS one\nRUN x\nFROM b AS unused\nFROM scratch\n\
                    COPY --from=one /x /\nCOPY y /\n";
        planned(text, &[], |graph| {
            let want = [
                "ARG V=1 <- ",
                "FROM a:$V AS one <- ",
                "RUN x <- FROM a:$V AS one",
                "FROM scratch <- ",
                "COPY --from=one /x / <- FROM scratch, RUN x",
                "COPY y / <- COPY --from=one /x /",
            ];
            assert_eq!(shown(graph), want);
        });
    }

    #[test]
    fn the_same_work_has_the_same_digest_and_other_work_another() {
        let text = "ARG V=1\nFROM a:$V\nRUN x <<E\none\nE\nRUN y\n";
        let one = digests(text, &[]);
        assert_eq!(one, digests(text, &[]));
        // A name of a stage and a comment are nothing to what is done.
        assert_eq!(one, digests(&text.replace("a:$V", "a:$V AS b\n# c"), &[]));
        let other = digests(&text.replace("one", "two"), &[]);
        assert_eq!((one[..2] == other[..2], one[2] == other[2]), (true, false));
        assert_ne!(one[3], other[3], "what stands on other work is other work");
        let given = digests(text, &[("V", "2")]);
        assert!(one.iter().zip(&given).all(|(one, given)| one != given));
    }
}
