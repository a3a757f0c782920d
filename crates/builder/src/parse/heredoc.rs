use super::Fault;
use crate::expand::{self, Style};

/// `<<NAME`, `<<-NAME`, `<<"NAME"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeredocMark {
    pub(crate) name: String,
    /// No part of the name is quoted, so variables in the content are replaced.
    pub(crate) expand: bool,
    /// `<<-`: leading tabs are taken off.
    pub(crate) chomp: bool,
}

/// A here-document: its mark and the lines up to the end mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heredoc {
    pub(crate) mark: HeredocMark,
    pub(crate) content: String,
}

impl Heredoc {
    /// The content as a file: without leading tabs after `<<-`.
    pub(crate) fn file(&self) -> String {
        if !self.mark.chomp {
            return self.content.clone();
        }
        self.content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }
}

impl HeredocMark {
    /// Reads a word such as `3<<-"EOF"`; `None` if it is none.
    pub(crate) fn read(word: &str) -> Result<Option<Self>, Fault> {
        let rest = word.trim_start_matches(|c: char| c.is_ascii_digit());
        let Some(rest) = rest.strip_prefix("<<") else { return Ok(None) };
        let (chomp, rest) = match rest.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let rest = rest.trim_start();
        if rest.is_empty() || rest.contains('<') {
            return Ok(None);
        }
        let split = |raw_quotes| {
            let style = Style { raw_quotes, keep_unset: true, ..Style::default() };
            expand::words(rest, '\\', style, &|_| None).map_err(|error| error.to_string())
        };
        let (plain, raw) = (split(false)?, split(true)?);
        let ([name], [raw]) = (&plain[..], &raw[..]) else { return Ok(None) };
        let quotes = |text: &str| text.matches(['\'', '"']).count();
        Ok(Some(Self { name: name.clone(), expand: quotes(name) == quotes(raw), chomp }))
    }

    pub(super) fn ends_at(&self, line: &str) -> bool {
        let line = line.trim_end_matches(['\r', '\n']);
        self.name == if self.chomp { line.trim_start_matches('\t') } else { line }
    }
}

/// All here-documents that an instruction starts, in order.
pub(super) fn marks(instruction: &str) -> Result<Vec<HeredocMark>, Fault> {
    let style = Style { raw_quotes: true, raw_escapes: true, keep_unset: true, ..Style::default() };
    // A shell command may hold quotes that only the shell understands; then `<<` is the shell's.
    let words = expand::words(instruction, '\\', style, &|_| None).unwrap_or_default();
    words.iter().filter_map(|word| HeredocMark::read(word).transpose()).collect()
}
