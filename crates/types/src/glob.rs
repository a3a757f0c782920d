//! Path patterns: Go's `filepath.Match`, and moby's patternmatcher which adds `**`.

/// A compiled pattern. Matching takes time in proportion to pattern × path, whatever they are.
#[derive(Debug, Clone)]
pub struct Glob(Vec<Part>);

#[derive(Debug, Clone)]
enum Part {
    Literal(char),
    /// `?`
    One,
    /// `*`: within one component.
    Star,
    /// `[a-z]`, `[^a-z]`
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
    /// `**` at the end: everything.
    All,
    /// `**/`: nothing, or any directories. Always followed by `Inside`.
    Directories,
    /// In the directories of the part before.
    Inside,
}

/// Whether `**` has a meaning of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// COPY sources, filters of references: Go's `filepath.Match`, in which `**` is `*`.
    Match,
    /// `.dockerignore`: moby/patternmatcher.
    Ignore,
}

impl Glob {
    /// `None` for a pattern with an open bracket or an escape at its end.
    pub fn parse(pattern: &str, dialect: Dialect) -> Option<Self> {
        let mut parts = Vec::new();
        let mut rest = pattern.chars().peekable();
        while let Some(next) = rest.next() {
            match next {
                '*' if dialect == Dialect::Ignore && rest.next_if_eq(&'*').is_some() => {
                    rest.next_if_eq(&'/');
                    if rest.peek().is_none() {
                        parts.push(Part::All);
                    } else {
                        parts.extend([Part::Directories, Part::Inside]);
                    }
                }
                '*' => parts.push(Part::Star),
                '?' => parts.push(Part::One),
                '\\' => parts.push(Part::Literal(rest.next()?)),
                '[' => parts.push(class(&mut rest)?),
                other => parts.push(Part::Literal(other)),
            }
        }
        Some(Self(parts))
    }

    /// Whether the whole of `path` is what the pattern describes.
    pub fn matches(&self, path: &str) -> bool {
        let parts = &self.0;
        let mut reached = vec![false; parts.len() + 1];
        reached[0] = true;
        self.pass_empty(&mut reached);
        for next in path.chars() {
            let mut after = vec![false; parts.len() + 1];
            for (index, part) in parts.iter().enumerate().filter(|(index, _)| reached[*index]) {
                match part {
                    Part::Literal(literal) => after[index + 1] |= *literal == next,
                    Part::One => after[index + 1] |= next != '/',
                    Part::Star => after[index] |= next != '/',
                    Part::Class { negated, ranges } => {
                        let inside =
                            ranges.iter().any(|(low, high)| (*low..=*high).contains(&next));
                        after[index + 1] |= next != '/' && inside != *negated;
                    }
                    Part::All => after[index] = true,
                    Part::Directories => {}
                    Part::Inside => {
                        after[index] = true;
                        after[index + 1] |= next == '/';
                    }
                }
            }
            self.pass_empty(&mut after);
            reached = after;
        }
        reached[parts.len()]
    }

    /// Goes on past the parts that may match nothing.
    fn pass_empty(&self, reached: &mut [bool]) {
        for (index, part) in self.0.iter().enumerate() {
            match part {
                Part::Star | Part::All if reached[index] => reached[index + 1] = true,
                Part::Directories if reached[index] => {
                    reached[index + 1] = true;
                    reached[index + 2] = true;
                }
                _ => {}
            }
        }
    }
}

fn class(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Part> {
    let negated = rest.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        let low = match rest.next()? {
            ']' if !ranges.is_empty() => return Some(Part::Class { negated, ranges }),
            '\\' => rest.next()?,
            '-' | ']' => return None,
            other => other,
        };
        let high = if rest.next_if_eq(&'-').is_some() {
            match rest.next()? {
                '\\' => rest.next()?,
                '-' | ']' => return None,
                other => other,
            }
        } else {
            low
        };
        ranges.push((low, high));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_like_moby() {
        for (pattern, path, want) in [
            ("**", "file", true),
            ("**", "dir/file", true),
            ("**/", "dir/file", true),
            ("dir/**", "dir/file", true),
            ("dir/**", "dir", false),
            ("**/file", "file", true),
            ("**/file", "a/b/file", true),
            ("**/file", "a/bfile", false),
            ("**/**/*.txt", "a/b.txt", true),
            ("a**/*.txt", "a/file.txt", true),
            ("*/file", "a/b/file", false),
            ("*", "a/b", false),
            ("a?c", "a/c", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("a.txt", "axtxt", false),
            (".*", ".env", true),
            (".*", "env", false),
        ] {
            let glob = Glob::parse(pattern, Dialect::Ignore).expect(pattern);
            assert_eq!(glob.matches(path), want, "{pattern} {path}");
        }
        for wrong in ["[", "[a", "[]", "[]a]", "[-x]", "[a-b-c]", "a\\", "[a-]"] {
            assert!(Glob::parse(wrong, Dialect::Match).is_none(), "{wrong}");
        }
    }

    #[test]
    fn bombs_are_linear() {
        let glob = Glob::parse(&"**/*a".repeat(200), Dialect::Ignore).expect("a pattern");
        assert!(!glob.matches(&"a/".repeat(500)));
    }
}
