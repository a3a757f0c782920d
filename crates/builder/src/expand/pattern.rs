use super::ExpandError;

/// A shell pattern as `${x#…}` takes it: `*`, `?` and escaped characters, no brackets
/// (POSIX 2.13.1 without bracket expressions, as BuildKit has it).
#[derive(Debug)]
pub(super) struct Pattern {
    spelling: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Any,
    One,
    Literal(char),
}

/// Which match `#` and `##`, `%` and `%%` mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    Shortest,
    Longest,
}

impl Pattern {
    pub(super) fn parse(spelling: &str) -> Result<Self, ExpandError> {
        let mut parts = Vec::new();
        let mut rest = spelling.chars();
        while let Some(next) = rest.next() {
            parts.push(match next {
                '*' => Part::Any,
                '?' => Part::One,
                '\\' => match rest.next() {
                    Some(escaped @ ('*' | '?' | '\\' | '}' | '/')) => Part::Literal(escaped),
                    _ => return Err(ExpandError::Pattern(spelling.to_owned())),
                },
                other => Part::Literal(other),
            });
        }
        Ok(Self { spelling: spelling.to_owned(), parts })
    }

    pub(super) fn without_prefix(
        &self,
        value: &str,
        length: Length,
    ) -> Result<String, ExpandError> {
        let text: Vec<char> = value.chars().collect();
        self.affordable(text.len())?;
        let end = self.end(&text, &self.parts, length).unwrap_or(0);
        Ok(text[end..].iter().collect())
    }

    pub(super) fn without_suffix(
        &self,
        value: &str,
        length: Length,
    ) -> Result<String, ExpandError> {
        let text: Vec<char> = value.chars().rev().collect();
        self.affordable(text.len())?;
        let parts: Vec<Part> = self.parts.iter().rev().copied().collect();
        let end = self.end(&text, &parts, length).unwrap_or(0);
        Ok(text[end..].iter().rev().collect())
    }

    /// Replaces the first match, or all; each is the longest at the leftmost place.
    pub(super) fn replaced(
        &self,
        value: &str,
        replacement: &str,
        all: bool,
    ) -> Result<String, ExpandError> {
        let text: Vec<char> = value.chars().collect();
        self.affordable(text.len().saturating_mul(text.len()))?;
        let mut result = String::new();
        let mut at = 0;
        let mut after_match = false;
        while at <= text.len() {
            // An empty match counts, but not right behind another one (Go's regexp, and so BuildKit).
            match self.end(&text[at..], &self.parts, Length::Longest) {
                Some(length) if length > 0 || !after_match => {
                    result += replacement;
                    at += length;
                    after_match = length > 0;
                    if !all {
                        break;
                    }
                    if length > 0 {
                        continue;
                    }
                }
                _ => after_match = false,
            }
            result.extend(text.get(at));
            at += 1;
        }
        result.extend(text.get(at..).unwrap_or_default());
        Ok(result)
    }

    /// Where a match that starts at the start of `text` ends, in characters.
    fn end(&self, text: &[char], parts: &[Part], length: Length) -> Option<usize> {
        // reached[p]: the first p parts match what was read so far.
        let mut reached = vec![false; parts.len() + 1];
        reached[0] = true;
        let through_stars = |reached: &mut Vec<bool>| {
            for (index, part) in parts.iter().enumerate() {
                if reached[index] && *part == Part::Any {
                    reached[index + 1] = true;
                }
            }
        };
        through_stars(&mut reached);
        let mut found = None;
        for position in 0..=text.len() {
            if reached[parts.len()] {
                found = Some(position);
                if length == Length::Shortest {
                    break;
                }
            }
            let Some(next) = text.get(position) else { break };
            let mut after = vec![false; parts.len() + 1];
            for (index, part) in parts.iter().enumerate().filter(|(index, _)| reached[*index]) {
                match part {
                    Part::Any => after[index] = true,
                    Part::One => after[index + 1] = true,
                    Part::Literal(literal) if literal == next => after[index + 1] = true,
                    Part::Literal(_) => {}
                }
            }
            through_stars(&mut after);
            if !after.contains(&true) {
                break;
            }
            reached = after;
        }
        found
    }

    /// The work grows with the product of both lengths; nobody needs this much.
    fn affordable(&self, places: usize) -> Result<(), ExpandError> {
        if places.saturating_mul(self.parts.len() + 1) > 1 << 24 {
            return Err(ExpandError::Pattern(self.spelling.clone()));
        }
        Ok(())
    }
}
