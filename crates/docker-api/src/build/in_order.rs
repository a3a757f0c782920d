//! The events of operations that are done at once, as if they were done one after the other.
//!
//! The classic protocol is a text that people read and no operation has a name in, so what comes
//! from an operation before its turn is held until then.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bulkhead_build_service::Event;
use bulkhead_types::Digest;

/// Bytes of output that are held. Beyond them the longest is shown ahead of its turn: a build does
/// not have to wait for the operations before, and its text does not have to fit into memory.
const MAX_HELD: usize = 1 << 20;

/// What to show next.
#[derive(Debug)]
pub(super) enum Shown {
    Event(Event),
    /// Output of an operation whose turn has not come.
    Ahead {
        vertex: Digest,
        text: String,
    },
}

#[derive(Debug, Default)]
pub(super) struct InOrder {
    /// Operations whose turn is to come, the one that has it first.
    turns: VecDeque<Digest>,
    held: BTreeMap<Digest, VecDeque<Event>>,
    /// Of the text in `held`.
    bytes: usize,
    failed: BTreeSet<Digest>,
}

impl InOrder {
    /// Takes an event as it comes, and returns what can be shown now.
    pub(super) fn take(&mut self, event: Event) -> Vec<Shown> {
        let mut shown = Vec::new();
        let Some(vertex) = vertex(&event) else {
            if let Event::Planned(vertices) = &event {
                self.turns = vertices.iter().map(|vertex| vertex.digest).collect();
            }
            return vec![Shown::Event(event)];
        };
        if self.turns.front() == Some(&vertex) {
            self.show(event, &mut shown);
        } else {
            self.hold(vertex, event);
            if self.bytes > MAX_HELD {
                shown.extend(self.ahead());
            }
        }
        shown
    }

    /// What is held when the build has ended: why it failed comes last.
    pub(super) fn rest(mut self) -> Vec<Shown> {
        let (failed, other): (Vec<_>, Vec<_>) =
            self.turns.iter().copied().partition(|vertex| self.failed.contains(vertex));
        let vertices = other.into_iter().chain(failed);
        let held = vertices.filter_map(|vertex| self.held.remove(&vertex));
        held.flatten().map(Shown::Event).collect()
    }

    /// Shows an event of the operation that has its turn, and, when it was its last, what is held of
    /// those that follow.
    fn show(&mut self, event: Event, shown: &mut Vec<Shown>) {
        let mut next = Some(event);
        while let Some(event) = next {
            if let Event::Triggered { triggers, .. } = &event {
                let after = self.turns.split_off(1.min(self.turns.len()));
                self.turns.extend(triggers.iter().map(|trigger| trigger.digest));
                self.turns.extend(after);
            }
            if let Event::Completed { .. } = &event {
                self.turns.pop_front();
            }
            shown.push(Shown::Event(event));
            let held = self.turns.front().and_then(|vertex| self.held.get_mut(vertex));
            next = held.and_then(VecDeque::pop_front);
            self.bytes -= next.as_ref().map_or(0, length);
        }
    }

    fn hold(&mut self, vertex: Digest, event: Event) {
        if let Event::Failed(vertex) = &event {
            self.failed.insert(*vertex);
        }
        self.bytes += length(&event);
        let held = self.held.entry(vertex).or_default();
        match (held.back_mut(), event) {
            (
                Some(Event::Log { stream, text, .. }),
                Event::Log { stream: same, text: more, .. },
            ) if *stream == same => {
                text.push_str(&more);
            }
            (_, event) => held.push_back(event),
        }
    }

    /// Takes the text out of what is held of one operation, the one with the most, to its last whole
    /// line.
    fn ahead(&mut self) -> Option<Shown> {
        let longest = |events: &VecDeque<Event>| events.iter().map(length).max();
        let (vertex, events) = self.held.iter_mut().max_by_key(|(_, events)| longest(events))?;
        let event = events.iter_mut().max_by_key(|event| length(event))?;
        let Event::Log { text, .. } = event else { return None };
        let rest = text.split_off(text.rfind('\n').map_or(text.len(), |end| end + 1));
        let text = std::mem::replace(text, rest);
        self.bytes -= text.len();
        Some(Shown::Ahead { vertex: *vertex, text })
    }
}

/// The operation that an event is about.
fn vertex(event: &Event) -> Option<Digest> {
    match event {
        Event::Planned(_) | Event::Warning(_) => None,
        Event::Started(vertex) | Event::CacheHit(vertex) | Event::Failed(vertex) => Some(*vertex),
        Event::Triggered { vertex, .. }
        | Event::Running { vertex, .. }
        | Event::Progress { vertex, .. }
        | Event::Log { vertex, .. }
        | Event::Completed { vertex, .. } => Some(*vertex),
    }
}

/// Bytes of output.
fn length(event: &Event) -> usize {
    match event {
        Event::Log { text, .. } => text.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_build_service::Vertex;
    use bulkhead_types::Stream;

    use super::*;

    fn digest(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    fn vertices(names: &[&str]) -> Vec<Vertex> {
        let vertex = |name: &&str| Vertex {
            digest: digest(name),
            name: (*name).to_owned(),
            inputs: Vec::new(),
            place: None,
        };
        names.iter().map(vertex).collect()
    }

    /// `+a` begins, `-a` completes, `!a` fails, `a:text` says, `a>b,c` has triggers.
    fn event(text: &str) -> Event {
        let (mark, name) = text.split_at(1);
        match mark {
            "+" => Event::Started(digest(name)),
            "-" => Event::Completed { vertex: digest(name), image: None },
            "!" => Event::Failed(digest(name)),
            _ => match text.split_once('>') {
                Some((name, triggers)) => {
                    let triggers: Vec<&str> = triggers.split(',').collect();
                    Event::Triggered { vertex: digest(name), triggers: vertices(&triggers) }
                }
                None => {
                    let (name, text) = text.split_once(':').expect("an event");
                    Event::Log {
                        vertex: digest(name),
                        stream: Stream::Stdout,
                        text: text.to_owned(),
                    }
                }
            },
        }
    }

    fn told(shown: Vec<Shown>, names: &[&str]) -> Vec<String> {
        let name = |wanted: Digest| {
            *names.iter().find(|name| digest(name) == wanted).expect("one of the names")
        };
        let tell = |shown| match shown {
            Shown::Event(Event::Started(vertex)) => format!("+{}", name(vertex)),
            Shown::Event(Event::Completed { vertex, .. }) => format!("-{}", name(vertex)),
            Shown::Event(Event::Failed(vertex)) => format!("!{}", name(vertex)),
            Shown::Event(Event::Log { vertex, text, .. }) => format!("{}:{text}", name(vertex)),
            Shown::Event(Event::Triggered { vertex, .. }) => format!("{}>", name(vertex)),
            Shown::Ahead { vertex, text } => format!("{}~{}", name(vertex), text.len()),
            other @ Shown::Event(_) => format!("{other:?}"),
        };
        shown.into_iter().map(tell).collect()
    }

    #[test]
    fn operations_are_shown_one_after_the_other() {
        // `d` stands there twice; `x` and `y` are triggers of `b`.
        let names = ["a", "b", "x", "y", "c", "d"];
        let mut order = InOrder::default();
        order.take(Event::Planned(vertices(&["a", "b", "c", "d", "d"])));
        let mut shown = Vec::new();
        for text in [
            "+a", "+b", "b>x,y", "-b", "+x", "x:1", "+d", "a:A", "d:D", "-d", "x:2", "-x", "+d",
            "-a", "+y", "-y", "-d", "+c", "c:C", "-c",
        ] {
            shown.extend(order.take(event(text)));
        }
        let want = [
            "+a", "a:A", "-a", "+b", "b>", "-b", "+x", "x:12", "-x", "+y", "-y", "+c", "c:C", "-c",
            "+d", "d:D", "-d", "+d", "-d",
        ];
        assert_eq!(told(shown, &names), want);
        assert!(order.rest().is_empty());
    }

    #[test]
    fn the_end_shows_everything_and_the_failure_last() {
        let names = ["a", "b", "c"];
        let mut order = InOrder::default();
        order.take(Event::Planned(vertices(&names)));
        let mut shown = Vec::new();
        for text in ["+a", "+b", "b:why", "+c", "c:C", "!b"] {
            shown.extend(order.take(event(text)));
        }
        assert_eq!(told(shown, &names), ["+a"]);
        assert_eq!(told(order.rest(), &names), ["+c", "c:C", "+b", "b:why", "!b"]);
    }

    #[test]
    fn what_is_held_is_bounded_and_not_lost() {
        let names = ["a", "b"];
        let mut order = InOrder::default();
        order.take(Event::Planned(vertices(&names)));
        order.take(event("+b"));
        let line = format!("b:{}\n", "x".repeat(1023));
        let mut bytes = 0;
        for count in 1..=5000 {
            for shown in order.take(event(&line)) {
                let Shown::Ahead { text, .. } = shown else { panic!("{shown:?}") };
                assert!(text.ends_with('\n'));
                bytes += text.len();
            }
            assert!(count * 1024 - bytes <= MAX_HELD, "{count}");
        }
        order.take(event("b:half"));
        let rest = told(order.rest(), &names).concat();
        assert_eq!(bytes + rest.len() - "+bb:half".len(), 5000 * 1024);
        assert!(rest.ends_with("half"));
    }
}
