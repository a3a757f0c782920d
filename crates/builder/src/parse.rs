//! A Dockerfile's text, cut into numbered instructions: directives, comments, continuation
//! lines, here-documents. What an instruction means is `instruction`'s business.

mod arguments;
mod directive;
mod heredoc;

pub(crate) use arguments::Arguments;
use directive::Directives;
pub(crate) use heredoc::{Heredoc, HeredocMark};

use crate::BuildError;

/// A Dockerfile cut into instructions.
#[derive(Debug)]
pub(crate) struct Dockerfile {
    pub(crate) lines: Vec<Line>,
    /// `\`, or a backtick after `# escape=`.
    pub(crate) escape: char,
    /// What is accepted but should not be written so, for the user's eyes.
    pub(crate) warnings: Vec<String>,
}

/// One instruction with all its continuation lines.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// Where the instruction starts, counted from 1.
    pub(crate) number: usize,
    /// As written: `RUN`, `run`, `Run`.
    pub(crate) keyword: String,
    /// The words that start with `--`.
    pub(crate) flags: Vec<String>,
    pub(crate) arguments: Arguments,
    pub(crate) heredocs: Vec<Heredoc>,
    /// The whole instruction, continuation lines joined.
    pub(crate) text: String,
}

/// A fault in the text of one instruction; its line is added where that is known.
pub(crate) type Fault = String;

/// Cuts `text` into instructions. Every error names its line.
pub(crate) fn parse(text: &str) -> Result<Dockerfile, BuildError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.len() > LARGEST {
        return Err(at(1, format!("the Dockerfile is larger than {LARGEST} bytes")));
    }
    let mut source = text.split_inclusive('\n').zip(1..);
    let mut directives = Directives::default();
    let mut lines = Vec::new();
    let mut warnings = Vec::new();
    let mut last = 0;
    while let Some((raw, number)) = source.next() {
        last = number;
        let first = raw.trim_end_matches(['\r', '\n']).trim_start();
        directives.read(first).map_err(|fault| at(number, fault))?;
        if first.starts_with('#') {
            continue;
        }
        let (mut joined, mut continues) = cut_continuation(first, directives.escape);
        let mut whole = joined.to_owned();
        let mut blank_inside = false;
        while continues {
            let Some((raw, number)) = source.next() else { break };
            last = number;
            if raw.trim_start().starts_with('#') {
                continue;
            }
            let next = raw.trim_end_matches(['\r', '\n']);
            if next.trim().is_empty() {
                blank_inside = true;
                continue;
            }
            (joined, continues) = cut_continuation(next, directives.escape);
            whole += joined;
        }
        if whole.trim().is_empty() {
            continue;
        }
        if blank_inside {
            warnings.push(format!("Empty continuation line found in: {}", whole.trim()));
        }
        let mut line =
            Line::read(&whole, number, directives.escape).map_err(|fault| at(number, fault))?;
        for mark in line.heredoc_marks().map_err(|fault| at(number, fault))? {
            let mut content = String::new();
            loop {
                let Some((raw, line)) = source.next() else {
                    return Err(at(number, format!("unterminated heredoc <<{}", mark.name)));
                };
                last = line;
                if mark.ends_at(raw) {
                    break;
                }
                content += raw;
            }
            line.heredocs.push(Heredoc { mark, content });
        }
        lines.push(line);
    }
    if lines.is_empty() {
        return Err(at(last.max(1), "file with no instructions".to_owned()));
    }
    Ok(Dockerfile { lines, escape: directives.escape, warnings })
}

impl Line {
    /// Reads one instruction from a line without continuation.
    pub(crate) fn read(text: &str, number: usize, escape: char) -> Result<Self, Fault> {
        let trimmed = text.trim();
        let (keyword, rest) = trimmed.split_once(arguments::BLANKS).unwrap_or((trimmed, ""));
        let (flags, rest) = arguments::split_flags(rest, escape);
        let arguments = Arguments::read(keyword, rest.trim(), number, escape)?;
        Ok(Self {
            number,
            keyword: keyword.to_owned(),
            flags,
            arguments,
            heredocs: Vec::new(),
            text: trimmed.to_owned(),
        })
    }

    /// Where here-documents may stand: ADD, COPY and RUN, not in JSON form, also below ONBUILD.
    fn heredoc_marks(&self) -> Result<Vec<HeredocMark>, Fault> {
        let inner = match &self.arguments {
            Arguments::Trigger(inner) => inner,
            _ => self,
        };
        let takes = ["add", "copy", "run"].contains(&inner.keyword.to_ascii_lowercase().as_str());
        if !takes || matches!(inner.arguments, Arguments::Json(_)) || !self.text.contains("<<") {
            return Ok(Vec::new());
        }
        heredoc::marks(&self.text)
    }
}

/// Takes the escape character off the end of a line that goes on below.
fn cut_continuation(line: &str, escape: char) -> (&str, bool) {
    match line.trim_end_matches([' ', '\t']).strip_suffix(escape) {
        // An escaped escape character is an ordinary one.
        Some(before) if !before.ends_with(escape) => (before, true),
        _ => (line, false),
    }
}

fn at(line: usize, message: Fault) -> BuildError {
    BuildError::Dockerfile { line, message }
}

/// Bytes. BuildKit stops at lines of 64 KiB; the sum is what costs memory.
const LARGEST: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(source: &str) -> Vec<(usize, String)> {
        let parsed = parse(source).expect(source);
        parsed.lines.into_iter().map(|line| (line.number, line.text)).collect()
    }

    #[test]
    fn lines_are_joined_and_numbered() {
        for (source, want) in [
            ("FROM a\nRUN b", vec![(1, "FROM a"), (2, "RUN b")]),
            ("\u{feff}FROM a", vec![(1, "FROM a")]),
            ("FROM a\r\nRUN b\r\n", vec![(1, "FROM a"), (2, "RUN b")]),
            ("\n\n# note\n  FROM a", vec![(4, "FROM a")]),
            ("RUN a \\\n  b \\ \t\nc\nRUN d", vec![(1, "RUN a   b c"), (4, "RUN d")]),
            ("RUN a \\\n# note\n\n  && b\n", vec![(1, "RUN a   && b")]),
            ("RUN a \\", vec![(1, "RUN a")]),
            ("RUN a \\\\\nRUN b", vec![(1, "RUN a \\\\"), (2, "RUN b")]),
            ("# escape=`\nRUN a `\n b\\\n", vec![(2, "RUN a  b\\")]),
            ("#comment\n# escape=`\nRUN a \\\n b", vec![(3, "RUN a  b")]),
            ("# check=skip=all\n# syntax=docker/dockerfile:1\nFROM a", vec![(3, "FROM a")]),
        ] {
            let want: Vec<_> = want.into_iter().map(|(n, t)| (n, t.to_owned())).collect();
            assert_eq!(texts(source), want, "{source:?}");
        }
    }

    #[test]
    fn blank_continuation_lines_are_warned_of() {
        let parsed = parse("RUN a \\\n\n b\n").expect("parses");
        assert_eq!(parsed.warnings, ["Empty continuation line found in: RUN a  b"]);
    }

    #[test]
    fn here_documents_belong_to_their_instruction() {
        let source =
            "RUN <<EOF cat - <<-'B C'\n\techo $x\nEOF\n\tone\n\t\tB C\nCOPY <<\"E\" /x\n#a\nE\n";
        let parsed = parse(source).expect("parses");
        let [run, copy] = &parsed.lines[..] else { panic!("{parsed:?}") };
        let all: Vec<_> = [run, copy]
            .iter()
            .flat_map(|line| &line.heredocs)
            .map(|h| (h.mark.name.as_str(), h.mark.expand, h.mark.chomp, h.content.as_str()))
            .collect();
        assert_eq!(
            all,
            [
                ("EOF", true, false, "\techo $x\n"),
                ("B C", false, true, "\tone\n"),
                ("E", false, false, "#a\n"),
            ]
        );
        assert_eq!((run.number, copy.number), (1, 6));
    }

    #[test]
    fn faults_name_their_line() {
        for (source, want) in [
            ("", "line 1: file with no instructions"),
            ("# only\n# comments\n", "line 2: file with no instructions"),
            ("FROM a\n\nENV PATH", "line 3: ENV must have two arguments"),
            (
                "FROM a\nENV a=b c",
                "line 2: Syntax error - can't find = in \"c\". Must be of the form: name=value",
            ),
            (
                "FROM a\nCMD [\"x\", [\"y\"]]",
                "line 2: when using JSON array syntax, arrays must be comprised of strings only",
            ),
            ("FROM a\nRUN <<EOF\nx\n", "line 2: unterminated heredoc <<EOF"),
            ("# escape=x\nFROM a", "line 1: invalid escape token 'x' does not match ` or \\"),
            (
                "# escape=`\n# escape=`\nFROM a",
                "line 2: only one escape parser directive can be used",
            ),
        ] {
            let error = parse(source).expect_err(source).to_string();
            assert_eq!(error, format!("dockerfile parse error on {want}"), "{source:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics_and_every_fault_has_a_line(
            source in r#"((FROM|RUN|COPY|ENV|ONBUILD|# escape=`|HEALTHCHECK|CMD) ?|[\["'\\<E=#` \t,]|\n|\PC){0,60}"#,
        ) {
            match parse(&source) {
                Ok(parsed) => prop_assert!(parsed.lines.iter().all(|line| line.number > 0)),
                Err(BuildError::Dockerfile { line, .. }) => {
                    prop_assert!((1..=source.lines().count().max(1)).contains(&line));
                }
                Err(other) => prop_assert!(false, "{other}"),
            }
        }
    }
}
