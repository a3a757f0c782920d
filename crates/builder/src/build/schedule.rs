//! Which operation is done when: each once what it needs is done, in the graph's order as long as
//! there is room.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

use bulkhead_image::StoredImage;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::{Build, Running, run};
use crate::BuildError;
use crate::event::{Event, Warning};
use crate::graph::{Action, Graph, Operation};
use crate::instruction::{Instruction, Kind};
use crate::request::Executor;
use crate::state::State;

/// Operations that are done at once. A RUN may take a whole machine, and memory for each: a few keep
/// it busy while others wait for a registry or a disk.
const AT_ONCE: usize = 4;

impl<E: Executor> Build<'_, E> {
    /// Does all operations, and returns the target's image. The first that fails ends the build:
    /// what needs it is never begun, and what goes on beside it is given up.
    pub(super) async fn run_all(&self, graph: &Graph<'_>) -> Result<StoredImage, BuildError> {
        self.events.send(Event::Planned(graph.vertices())).await;
        let mut schedule = Schedule::of(&graph.operations);
        let mut running = FuturesUnordered::new();
        // Stages of which some operations are done and the next is not begun.
        let mut states: BTreeMap<usize, State> = BTreeMap::new();
        loop {
            while running.len() < AT_ONCE
                && let Some(place) = schedule.next()
            {
                let operation = &graph.operations[place];
                let state = operation.stage().and_then(|stage| states.remove(&stage));
                running.push(async move { (place, self.operation(operation, state).await) });
            }
            let Some((place, done)) = running.next().await else { break };
            if let Some((stage, state)) = graph.operations[place].stage().zip(done?) {
                if graph.ends_stage(place) {
                    self.finished.send_modify(|stages| {
                        stages.insert(stage, Arc::new(state));
                    });
                } else {
                    states.insert(stage, state);
                }
            }
            schedule.done(place);
        }
        let target = self.plan.order.last().expect("a plan has its target");
        let target = self.finished.borrow().get(target).cloned();
        let target = target.expect("every operation is done, and the target's are among them");
        self.warn_of_unused_arguments(graph).await;
        self.finish(State::clone(&target))
    }

    /// Does one operation with its stage's state, and returns what that has become.
    async fn operation(
        &self,
        operation: &Operation<'_>,
        state: Option<State>,
    ) -> Result<Option<State>, BuildError> {
        let vertex = &operation.vertex;
        self.events.send(Event::Started(vertex.digest)).await;
        match operation.action {
            Action::Declare(_) => {
                self.events.send(Event::Completed { vertex: vertex.digest, image: None }).await;
                Ok(None)
            }
            Action::From(index, stage) => {
                let state = self.from(vertex, index, stage).await;
                if state.is_err() {
                    self.events.send(Event::Failed(vertex.digest)).await;
                }
                state.map(Some)
            }
            Action::Step(stage, instruction) => {
                let mut state = state.expect("FROM comes first in a stage");
                self.instruction(Running { vertex, stage }, &mut state, instruction).await?;
                Ok(Some(state))
            }
        }
    }

    /// A stage that is whole; waits until it is. `None`: the plan has no stage of that number.
    ///
    /// Only stages before one's own may be waited for. The first operation in the graph's order that
    /// is not done is always being done, as what is free goes to the first that is ready, so such a
    /// wait ends however many wait.
    pub(super) async fn stage(&self, number: usize) -> Option<Arc<State>> {
        if !self.plan.order.contains(&number) {
            return None;
        }
        let mut finished = self.finished.subscribe();
        let stages = finished.wait_for(|stages| stages.contains_key(&number)).await;
        stages.expect("the sender is this build's own").get(&number).cloned()
    }

    fn finish(&self, mut state: State) -> Result<StoredImage, BuildError> {
        if !self.request.labels.is_empty() {
            state.base = None;
            let labels = state.image.config.labels.get_or_insert_default();
            labels.extend(self.request.labels.clone());
        }
        match state.base {
            // Nothing but FROM: the base itself, whose bytes must stay what they are.
            Some(id) => {
                let images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
                let mut known = images.values().filter_map(|image| image.get());
                let base = known.find(|image| image.id == id);
                Ok(base.expect("every base came from `image`").clone())
            }
            None => Ok(self.content.write_image(&state.image, &state.layers)?),
        }
    }

    async fn warn_of_unused_arguments(&self, graph: &Graph<'_>) {
        let stages: Vec<_> = self.finished.borrow().values().cloned().collect();
        let mut declared: BTreeSet<&String> =
            stages.iter().flat_map(|state| &state.declared).collect();
        for operation in &graph.operations {
            if let Action::Declare(Instruction { kind: Kind::Arg(names), .. }) = operation.action {
                declared.extend(names.iter().map(|(name, _)| name));
            }
        }
        let given = self.request.arguments.keys();
        let unused: Vec<String> = given
            .filter(|name| !declared.contains(name) && !run::is_predefined(name))
            .cloned()
            .collect();
        if !unused.is_empty() {
            self.events.send(Event::Warning(Warning::UnusedArguments(unused))).await;
        }
    }
}

/// The operations that are not begun, by their places in the graph.
#[derive(Debug)]
struct Schedule {
    /// How many of those that an operation needs are not done.
    missing: Vec<usize>,
    /// Who needs an operation.
    dependents: Vec<Vec<usize>>,
    ready: BTreeSet<usize>,
}

impl Schedule {
    fn of(operations: &[Operation<'_>]) -> Self {
        let needs: Vec<&[usize]> =
            operations.iter().map(|operation| &operation.needs[..]).collect();
        Self::new(&needs)
    }

    fn new(needs: &[&[usize]]) -> Self {
        let missing: Vec<usize> = needs.iter().map(|needed| needed.len()).collect();
        let mut dependents = vec![Vec::new(); needs.len()];
        for (place, needed) in needs.iter().enumerate() {
            for need in *needed {
                dependents[*need].push(place);
            }
        }
        let ready = (0..needs.len()).filter(|place| missing[*place] == 0).collect();
        Self { missing, dependents, ready }
    }

    /// The first operation that can be begun.
    fn next(&mut self) -> Option<usize> {
        self.ready.pop_first()
    }

    fn done(&mut self, place: usize) {
        for dependent in std::mem::take(&mut self.dependents[place]) {
            self.missing[dependent] -= 1;
            if self.missing[dependent] == 0 {
                self.ready.insert(dependent);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_wait_for_what_they_need_and_the_first_goes_first() {
        // Two stages of two operations, and one that needs both; the second of the first stage is
        // named twice, as a COPY from the stage it stands on does.
        let mut schedule = Schedule::new(&[&[], &[0], &[], &[2], &[1, 1, 3]]);
        assert_eq!([schedule.next(), schedule.next(), schedule.next()], [Some(0), Some(2), None]);
        schedule.done(2);
        schedule.done(0);
        assert_eq!([schedule.next(), schedule.next()], [Some(1), Some(3)]);
        schedule.done(3);
        assert_eq!(schedule.next(), None, "what it needs else is not done");
        schedule.done(1);
        assert_eq!([schedule.next(), schedule.next()], [Some(4), None]);
    }
}
