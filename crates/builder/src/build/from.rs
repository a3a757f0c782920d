//! FROM: the beginning of a stage, with the triggers that its base has for it.

use super::{Build, Running};
use crate::BuildError;
use crate::event::{Event, Vertex};
use crate::graph;
use crate::instruction::{Instruction, Kind};
use crate::parse;
use crate::plan::{Base, Stage};
use crate::request::Executor;
use crate::state::State;

impl<E: Executor> Build<'_, E> {
    /// Begins a stage, and does the triggers that its base has for it.
    pub(super) async fn from(
        &self,
        vertex: &Vertex,
        index: usize,
        stage: &Stage,
    ) -> Result<State, BuildError> {
        let mut state = match &stage.base {
            Base::Scratch => State::scratch(),
            Base::Stage(base) => {
                let base = self.stage(*base).await;
                base.expect("the plan has what a stage stands on").next_stage()
            }
            Base::Image(reference) => {
                let image = self.image(vertex, reference).await?;
                let config = self.content.config(image.id)?;
                let layers = self.content.manifest(image.id)?.layers;
                State::on(image.id, config, layers)
            }
        };
        let image = state.base.unwrap_or(state.chain);
        let triggers = state.image.config.on_build.take().unwrap_or_default();
        if triggers.is_empty() {
            self.completed(vertex, image).await;
            return Ok(state);
        }
        // The triggers are for the first image made from theirs, not for the ones after it.
        state.base = None;
        let mut end = vertex.digest;
        let mut steps = Vec::new();
        for trigger in triggers {
            let instruction = read_trigger(&trigger, stage.line, self.plan.escape)?;
            let mut vertex = graph::step(&instruction, vec![end]);
            vertex.name = trigger;
            end = vertex.digest;
            steps.push((vertex, instruction));
        }
        let vertices = steps.iter().map(|(vertex, _)| vertex.clone()).collect();
        let triggered = Event::Triggered { vertex: vertex.digest, triggers: vertices };
        self.events.send(triggered).await;
        self.completed(vertex, image).await;
        for (vertex, instruction) in &steps {
            self.events.send(Event::Started(vertex.digest)).await;
            let running = Running { vertex, stage: index };
            self.instruction(running, &mut state, instruction).await?;
        }
        Ok(state)
    }
}

/// A trigger is a small Dockerfile of one instruction; its faults are of the line with FROM.
fn read_trigger(text: &str, line: usize, escape: char) -> Result<Instruction, BuildError> {
    let directive = if escape == '\\' { "" } else { "# escape=`\n" };
    let at = |message: String| BuildError::Dockerfile {
        line,
        message: format!("ONBUILD {text}: {message}"),
    };
    let parsed = parse::parse(&format!("{directive}{text}\n"));
    let mut lines = parsed.map_err(|error| at(error.to_string()))?.lines;
    if lines.len() != 1 {
        return Err(at("is not one instruction".to_owned()));
    }
    let instruction = Instruction::read(lines.remove(0)).map_err(at)?;
    if matches!(instruction.kind, Kind::From(_) | Kind::OnBuild(_) | Kind::Maintainer(_)) {
        return Err(at("isn't allowed as an ONBUILD trigger".to_owned()));
    }
    Ok(Instruction { line, ..instruction })
}
