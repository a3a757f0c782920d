//! What a log cannot take now: the disk is full, or refuses.
//!
//! The program goes on, since a service that stands still because its log does is the greater harm
//! (and Docker's users know no other). Its output is kept as far as it is bounded, and written when the
//! disk takes it; of what is more, the log says how much is missing, and where. A [`Spool`] has all of
//! it too, for the warden after this one.

use std::collections::VecDeque;

use super::spool::{Place, Spool, Step};

/// How much output is kept for a log that cannot be written, in bytes: a pipe's length.
const MOST: usize = 64 << 10;
/// What an entry costs beside its text.
const ENTRY: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// Oldest first.
    entries: VecDeque<Entry>,
    size: usize,
    /// None where it cannot be written: then this dies with the warden.
    spool: Option<Spool>,
    /// What the spool does not have yet.
    unsaved: Vec<Step>,
    /// Where another warden was writing the oldest entry when it died.
    interrupted: Option<Place>,
}

#[derive(Debug)]
pub(super) struct Entry {
    /// 0 standard output, 1 standard error.
    pub stream: usize,
    pub time: String,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Line(Vec<u8>),
    /// So many bytes of output were let go here.
    Missing(u64),
}

impl Entry {
    /// What the log's record says.
    pub fn text(&self) -> Vec<u8> {
        match &self.content {
            Content::Line(line) => line.clone(),
            Content::Missing(bytes) => format!(
                "[{bytes} bytes of output are missing here: the log could not be written]\n"
            )
            .into_bytes(),
        }
    }

    fn step(&self) -> Step {
        let (stream, time) = (self.stream as u8, self.time.clone());
        match &self.content {
            Content::Line(line) => Step::Line { stream, time, text: line.clone() },
            Content::Missing(bytes) => Step::Missing { stream, time, bytes: *bytes },
        }
    }

    fn cost(&self) -> usize {
        match &self.content {
            Content::Line(line) => ENTRY + line.len(),
            // Two at most stand between lines, one of each stream, and lines are bounded.
            Content::Missing(_) => 0,
        }
    }
}

impl Backlog {
    /// With what another warden has left in the spool.
    pub fn open(mut spool: Spool) -> Self {
        let mut backlog = Self::default();
        match spool.read() {
            Ok(steps) => steps.into_iter().for_each(|step| backlog.take(step)),
            Err(errno) => eprintln!("what waits for a log cannot be read: {errno}"),
        }
        if backlog.is_empty() {
            spool.remove();
        }
        backlog.spool = Some(spool);
        backlog
    }

    fn take(&mut self, step: Step) {
        let stream_of = |stream: u8| usize::from(stream.min(1));
        let interrupted = match step {
            Step::Line { stream, time, text } => {
                self.add(stream_of(stream), time, Content::Line(text));
                return;
            }
            Step::Missing { stream, time, bytes } => {
                self.miss(stream_of(stream), time, bytes);
                return;
            }
            Step::Writing(place) => Some(place),
            Step::Written => {
                self.drop_first();
                None
            }
        };
        self.interrupted = interrupted;
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Keeps a line, or counts it as missing. To be followed by [`Self::save`].
    pub fn push(&mut self, stream: usize, time: &str, line: &[u8]) {
        let (number, time) = (stream as u8, time.to_owned());
        if self.size + ENTRY + line.len() <= MOST {
            let text = line.to_owned();
            self.unsaved.push(Step::Line { stream: number, time: time.clone(), text });
            return self.add(stream, time, Content::Line(line.to_owned()));
        }
        let more = line.len() as u64;
        match self.unsaved.last_mut() {
            Some(Step::Missing { stream, bytes, .. }) if *stream == number => *bytes += more,
            _ => {
                let time = time.clone();
                self.unsaved.push(Step::Missing { stream: number, time, bytes: more });
            }
        }
        self.miss(stream, time, more);
    }

    fn miss(&mut self, stream: usize, time: String, more: u64) {
        // Lines of both streams are let go in turns: one gap for each is enough.
        let is_gap = |entry: &&mut Entry| matches!(entry.content, Content::Missing(_));
        let gaps = self.entries.iter_mut().rev().take_while(is_gap);
        for gap in gaps.filter(|gap| gap.stream == stream) {
            if let Content::Missing(bytes) = &mut gap.content {
                *bytes += more;
                return;
            }
        }
        self.add(stream, time, Content::Missing(more));
    }

    fn add(&mut self, stream: usize, time: String, content: Content) {
        let entry = Entry { stream, time, content };
        self.size += entry.cost();
        self.entries.push_back(entry);
    }

    /// Where the oldest entry may have been written, as nobody has said; told once.
    pub fn interrupted(&mut self) -> Option<Place> {
        self.interrupted.take()
    }

    /// The first entry is about to be written at this place: should the warden die, the next one
    /// looks there.
    pub fn writing(&mut self, place: Place) {
        self.unsaved.push(Step::Writing(place));
        self.save();
    }

    /// Nothing that was kept is lost with the warden from now on.
    pub fn save(&mut self) {
        let steps = std::mem::take(&mut self.unsaved);
        let Some(spool) = &mut self.spool else { return };
        if self.entries.is_empty() {
            return spool.remove();
        }
        if steps.is_empty() {
            return;
        }
        let entries = &self.entries;
        let all = || {
            let last = steps.last().filter(|step| matches!(step, Step::Writing(_)));
            entries.iter().map(Entry::step).chain(last.cloned()).collect()
        };
        if let Err(errno) = spool.write(&steps, all) {
            eprintln!("what waits for a log is kept in memory only: {errno}");
            spool.remove();
            self.spool = None;
        }
    }

    /// Nobody wants it any more.
    pub fn discard(&mut self) {
        self.entries.clear();
        self.size = 0;
        self.save();
    }

    pub fn first(&self) -> Option<&Entry> {
        self.entries.front()
    }

    /// The first entry is in the log. To be followed by [`Self::save`].
    pub fn pop(&mut self) {
        self.unsaved.push(Step::Written);
        self.drop_first();
    }

    fn drop_first(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.size -= entry.cost();
        }
    }

    /// The text of a stream, gaps marked.
    pub fn of(&self, stream: usize) -> Vec<u8> {
        let own = self.entries.iter().filter(|entry| entry.stream == stream);
        own.flat_map(Entry::text).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_is_counted_where_it_is_missing() {
        let mut backlog = Backlog::default();
        let line = |number: usize| format!("{number:>31}\n").into_bytes();
        let fit = MOST / (ENTRY + 32);
        for number in 0..fit + 10 {
            backlog.push(number % 2, "now", &line(number));
        }
        assert!(backlog.size <= MOST);
        assert_eq!(backlog.entries.len(), fit + 2, "a gap for each stream");
        // Room comes, and what follows the gap stands behind it.
        backlog.pop();
        backlog.push(0, "later", b"fits\n");
        let text = String::from_utf8(backlog.of(0)).unwrap();
        let gap = "[160 bytes of output are missing here: the log could not be written]\nfits\n";
        assert!(text.ends_with(gap), "{text}");
        while !backlog.is_empty() {
            backlog.pop();
        }
        assert_eq!(backlog.size, 0);
    }
}
