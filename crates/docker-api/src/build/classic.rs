//! The classic builder's lines, made from a build's events: `Step 1/6 : FROM ubuntu`,
//! ` ---> Using cache`, ` ---> Running in …`, ` ---> Removed intermediate container …`, ` ---> …`. docker-py finds the
//! image's id in them.

use std::collections::BTreeMap;

use bulkhead_build_service::{Event, Vertex, Warning};
use bulkhead_types::{Digest, Stream};
use serde_json::json;
use tokio::sync::mpsc::Receiver;

use super::in_order::{InOrder, Shown};
use crate::lines::Lines;

/// What of `--cache-from` is on this machine, and what is not.
#[derive(Debug, Default)]
pub(super) struct CacheFrom {
    pub(super) found: Vec<String>,
    pub(super) missing: Vec<String>,
}

impl CacheFrom {
    /// Whether a build may take any step from the cache: with sources of which none is here, Docker
    /// takes none (moby: builder/dockerfile/imagecontext, `MakeImageCache`).
    pub(super) fn allows_cache(&self) -> bool {
        self.missing.is_empty() || !self.found.is_empty()
    }
}

/// Shows one build. A quiet one is read as well, or it would stand still.
#[derive(Debug)]
pub(super) struct ClassicOutput {
    lines: Option<Lines>,
    order: InOrder,
    words: Words,
}

impl ClassicOutput {
    pub(super) fn new(lines: Option<Lines>) -> Self {
        Self { lines, order: InOrder::default(), words: Words::default() }
    }

    /// Says how little `--cache-from` can do.
    pub(super) async fn cache_from(&self, sources: &CacheFrom) {
        for image in &sources.found {
            self.stream(format!(
                "[Warning] cache-from {image}: of an image that was not built on this machine no \
                 step is used again\n"
            ))
            .await;
        }
        for image in &sources.missing {
            self.stream(format!("[Warning] cache-from {image}: there is no such image here\n"))
                .await;
        }
    }

    /// Returns when the build has told its last event.
    pub(super) async fn show(mut self, mut events: Receiver<Event>) {
        while let Some(event) = events.recv().await {
            // Progress says itself what it is about, and is nothing to anybody afterwards.
            if let Event::Progress { progress, .. } = event {
                if let Some(lines) = &self.lines {
                    lines.progress(progress);
                }
                continue;
            }
            let shown = self.order.take(event);
            self.tell(shown).await;
        }
        let rest = std::mem::take(&mut self.order).rest();
        self.tell(rest).await;
    }

    async fn tell(&mut self, shown: Vec<Shown>) {
        for shown in shown {
            if let Some(text) = self.words.of(shown) {
                self.stream(text).await;
            }
        }
    }

    async fn stream(&self, text: String) {
        if let Some(lines) = &self.lines {
            lines.send_when_read(json!({ "stream": text })).await;
        }
    }
}

/// Where a build has come to, which its lines count.
#[derive(Debug, Default)]
struct Words {
    names: BTreeMap<Digest, Name>,
    step: usize,
    steps: usize,
    /// Of the FROM whose line comes next.
    triggers: usize,
    /// Of the RUN that goes on.
    container: Option<Digest>,
}

/// How an operation is announced.
#[derive(Debug)]
enum Name {
    /// With a number.
    Step(String),
    Trigger(String),
}

impl Words {
    /// `None`: nothing that this protocol shows.
    fn of(&mut self, shown: Shown) -> Option<String> {
        let event = match shown {
            Shown::Event(event) => event,
            Shown::Ahead { vertex, text } => {
                let (Name::Step(name) | Name::Trigger(name)) = self.names.get(&vertex)?;
                return Some(format!("# Ahead of its step, from {name}\n{text}"));
            }
        };
        Some(match event {
            Event::Planned(vertices) => {
                self.steps = vertices.len();
                self.know(vertices, Name::Step);
                return None;
            }
            Event::Triggered { triggers, .. } => {
                self.triggers = triggers.len();
                self.know(triggers, Name::Trigger);
                return None;
            }
            Event::Started(vertex) => match self.names.get(&vertex)? {
                Name::Step(name) => {
                    self.step += 1;
                    format!("Step {}/{} : {name}\n", self.step, self.steps)
                }
                Name::Trigger(name) => format!("{name}\n"),
            },
            Event::Running { container, .. } => {
                self.container = Some(container);
                format!(" ---> Running in {}\n", container.short())
            }
            Event::CacheHit(_) => " ---> Using cache\n".to_owned(),
            Event::Log { stream: Stream::Stdout, text, .. } => text,
            Event::Log { stream: Stream::Stderr, text, .. } => red(&text),
            Event::Completed { image, .. } => {
                let mut text = String::new();
                // A step's container is never kept. Docker names one that it removes after a step that
                // succeeded (moby: builder/dockerfile/containerbackend.go, `RemoveAll`).
                if let Some(container) = self.container.take() {
                    text.push_str(&format!(
                        " ---> Removed intermediate container {}\n",
                        container.short()
                    ));
                }
                text.push_str(&format!(" ---> {}\n", image?.short()));
                match std::mem::take(&mut self.triggers) {
                    0 => {}
                    1 => text.push_str("# Executing 1 build trigger\n"),
                    count => text.push_str(&format!("# Executing {count} build triggers\n")),
                }
                text
            }
            Event::Warning(Warning::Dockerfile(text)) => format!("[WARNING]: {text}\n"),
            Event::Warning(Warning::UnusedArguments(names)) => {
                let names = names.join(" ");
                format!("[Warning] One or more build-args [{names}] were not consumed\n")
            }
            Event::Progress { .. } | Event::Failed(_) => return None,
        })
    }

    fn know(&mut self, vertices: Vec<Vertex>, name: impl Fn(String) -> Name) {
        self.names.extend(vertices.into_iter().map(|vertex| (vertex.digest, name(vertex.name))));
    }
}

/// How the classic builder shows what a step says on standard error, whether its client has a
/// terminal or not (moby: pkg/streamformatter/streamwriter.go).
fn red(text: &str) -> String {
    format!("\x1b[91m{text}\x1b[0m")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_any_of_its_sources_nothing_is_cached() {
        let sources = |found: &[&str], missing: &[&str]| {
            let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            CacheFrom { found: names(found), missing: names(missing) }
        };
        assert!(sources(&[], &[]).allows_cache());
        assert!(sources(&["a"], &["b"]).allows_cache());
        assert!(!sources(&[], &["b"]).allows_cache());
    }

    #[test]
    fn a_build_reads_as_the_classic_builders() {
        let vertex = |name: &str| Vertex {
            digest: Digest::of(name.as_bytes()),
            name: name.to_owned(),
            inputs: Vec::new(),
            place: None,
        };
        let digest = |name: &str| Digest::of(name.as_bytes());
        let log = |stream, text: &str| Event::Log {
            vertex: digest("RUN b"),
            stream,
            text: text.to_owned(),
        };
        let events = [
            Event::Warning(Warning::Dockerfile("an empty line".to_owned())),
            Event::Planned(vec![vertex("FROM a"), vertex("RUN b"), vertex("COPY c /")]),
            Event::Started(digest("FROM a")),
            Event::Triggered { vertex: digest("FROM a"), triggers: vec![vertex("USER d")] },
            Event::Completed { vertex: digest("FROM a"), image: Some(digest("image")) },
            Event::Started(digest("USER d")),
            Event::Completed { vertex: digest("USER d"), image: Some(digest("1")) },
            Event::Started(digest("RUN b")),
            Event::Running { vertex: digest("RUN b"), container: digest("key") },
            log(Stream::Stdout, "half a "),
            log(Stream::Stdout, "line\n"),
            log(Stream::Stderr, "a warning\n"),
            Event::Completed { vertex: digest("RUN b"), image: Some(digest("2")) },
            Event::Started(digest("COPY c /")),
            Event::CacheHit(digest("COPY c /")),
            Event::Completed { vertex: digest("COPY c /"), image: Some(digest("3")) },
            Event::Warning(Warning::UnusedArguments(vec!["X".to_owned(), "Y".to_owned()])),
        ];
        let mut words = Words::default();
        let text: String =
            events.into_iter().filter_map(|event| words.of(Shown::Event(event))).collect();
        let short = |name: &str| digest(name).short();
        let want = format!(
            "[WARNING]: an empty line\n\
             Step 1/3 : FROM a\n ---> {}\n# Executing 1 build trigger\nUSER d\n ---> {}\n\
             Step 2/3 : RUN b\n ---> Running in {}\nhalf a line\n\
             \x1b[91ma warning\n\x1b[0m ---> Removed intermediate container {}\n ---> {}\n\
             Step 3/3 : COPY c /\n ---> Using cache\n ---> {}\n\
             [Warning] One or more build-args [X Y] were not consumed\n",
            short("image"),
            short("1"),
            short("key"),
            short("key"),
            short("2"),
            short("3"),
        );
        assert_eq!(text, want);
    }
}
