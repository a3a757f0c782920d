//! `.dockerignore`: which files of the context COPY and ADD do not see.

use bulkhead_types::glob::{Dialect, Glob};

/// The patterns of one file, in order: the last one that matches decides.
#[derive(Debug, Default)]
pub(crate) struct Ignore {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    glob: Glob,
    /// `!pattern`
    keeps: bool,
}

impl Ignore {
    /// Reads the file's text, or the words of `COPY --exclude`. The error is the wrong pattern.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut rules = Vec::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let line = line.trim();
            let (keeps, pattern) = match line.strip_prefix('!') {
                Some(pattern) => (true, pattern.trim()),
                None => (false, line),
            };
            if pattern.is_empty() {
                if keeps {
                    return Err(line.to_owned());
                }
                continue;
            }
            let clean = clean(pattern);
            let glob = Glob::parse(&clean, Dialect::Ignore).ok_or_else(|| line.to_owned())?;
            rules.push(Rule { glob, keeps });
        }
        Ok(Self { rules })
    }

    /// Whether `path` (relative, without `.` and `..`) is left out. A pattern that matches a
    /// directory matches what is below it.
    pub(crate) fn excludes(&self, path: &str) -> bool {
        let mut excluded = false;
        for rule in &self.rules {
            if rule.keeps == excluded && prefixes(path).any(|prefix| rule.glob.matches(prefix)) {
                excluded = !rule.keeps;
            }
        }
        excluded
    }

    /// Whether something below an excluded directory may still be kept.
    pub(crate) fn may_keep_below_excluded(&self) -> bool {
        self.rules.iter().any(|rule| rule.keeps)
    }
}

/// The path and each directory on the way to it.
fn prefixes(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at]).chain([path])
}

/// Go's `filepath.Clean`, without a leading slash.
fn clean(pattern: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    if parts.is_empty() { ".".to_owned() } else { parts.join("/") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_last_match_wins() {
        for (text, path, want) in [
            ("", "a", false),
            ("# a\na", "a", true),
            ("#a", "#a", false),
            ("*.md\n!README.md", "README.md", false),
            ("*.md\n!README.md", "x.md", true),
            ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", true),
            ("*.md", "docs/x.md", false),
            ("**/*.md", "docs/x.md", true),
            ("node_modules", "node_modules/a/b", true),
            ("node_modules", "x/node_modules", false),
            ("/foo/bar/", "foo/bar/x", true),
            ("./a/../b", "b", true),
            ("*\n!src", "src/a.c", false),
            ("*\n!src", "other/a.c", true),
            ("*\n!src/**", "src/a.c", false),
            ("docs\n!docs/keep", "docs/keep", false),
            ("docs\n!docs/keep", "docs/lose", true),
            ("  a  \n", "a", true),
            ("! a", "a", false),
        ] {
            let ignore = Ignore::parse(text).expect(text);
            assert_eq!(ignore.excludes(path), want, "{text:?} {path}");
        }
        assert_eq!(Ignore::parse("a\n[").expect_err("a bracket"), "[");
        assert_eq!(Ignore::parse("!").expect_err("nothing to keep"), "!");
    }

    proptest! {
        #[test]
        fn nothing_panics(text in r"([*?!\[\]\\/.a#-]|\n|\PC){0,30}", path in r"([a-c.]|/){1,12}") {
            if let Ok(ignore) = Ignore::parse(&text) {
                ignore.excludes(&path);
            }
        }
    }
}
