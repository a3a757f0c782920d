//! What a log cannot take now: the disk is full, or refuses.
//!
//! The program goes on, since a service that stands still because its log does is the greater harm
//! (and Docker's users know no other). Its output is kept as far as it is bounded, and written when the
//! disk takes it; of what is more, the log says how much is missing, and where.

use std::collections::VecDeque;

/// How much output is kept for a log that cannot be written, in bytes: a pipe's length.
const MOST: usize = 64 << 10;
/// What an entry costs beside its text.
const ENTRY: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// Oldest first.
    entries: VecDeque<Entry>,
    size: usize,
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

    fn cost(&self) -> usize {
        match &self.content {
            Content::Line(line) => ENTRY + line.len(),
            // Two at most stand between lines, one of each stream, and lines are bounded.
            Content::Missing(_) => 0,
        }
    }
}

impl Backlog {
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Keeps a line, or counts it as missing.
    pub fn push(&mut self, stream: usize, time: &str, line: &[u8]) {
        if self.size + ENTRY + line.len() <= MOST {
            return self.add(stream, time, Content::Line(line.to_owned()));
        }
        let more = line.len() as u64;
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

    fn add(&mut self, stream: usize, time: &str, content: Content) {
        let entry = Entry { stream, time: time.to_owned(), content };
        self.size += entry.cost();
        self.entries.push_back(entry);
    }

    pub fn first(&self) -> Option<&Entry> {
        self.entries.front()
    }

    /// The first entry is in the log.
    pub fn pop(&mut self) {
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
