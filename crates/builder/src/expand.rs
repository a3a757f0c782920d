//! Docker's shell-like words: quotes, escapes and variables, without running a shell.
//!
//! The dialect is BuildKit's (its reference, "Environment replacement"): `$x`, `${x}`, the
//! modifiers `:-` `-` `:+` `+` `:?` `?`, `#` `##` `%` `%%` and `/old/new`, single quotes that
//! keep everything, double quotes that keep all but variables.

mod pattern;

use std::iter::Peekable;
use std::str::Chars;

use pattern::{Length, Pattern};

/// Where a variable's value comes from.
pub type Variables<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// What could not be expanded, for the line's error message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    #[error("unexpected end of statement while looking for matching {0}")]
    Unterminated(&'static str),
    #[error("syntax error: missing '{0}' in ${{}}")]
    Missing(char),
    #[error("syntax error: bad substitution")]
    BadSubstitution,
    #[error("unsupported modifier ({0}) in substitution")]
    Modifier(String),
    #[error("invalid pattern ({0}) in substitution")]
    Pattern(String),
    #[error("{0}")]
    Required(String),
    #[error("the expanded text is longer than {} bytes", LONGEST)]
    TooLong,
    #[error("variables are nested more than {} deep", DEEPEST)]
    TooDeep,
}

/// How quotes and escapes come out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Style {
    /// Quotes stay in the result.
    pub raw_quotes: bool,
    /// Escape characters stay in the result.
    pub raw_escapes: bool,
    /// Quotes are ordinary characters (a here-document's body).
    pub ignore_quotes: bool,
    /// A variable without a value stays as it was written.
    pub keep_unset: bool,
}

/// Expands one word: blanks stay as they are.
pub fn word(text: &str, escape: char, variables: &Variables<'_>) -> Result<String, ExpandError> {
    styled(text, escape, Style::default(), variables)
}

/// Expands one word in a style of its own.
pub fn styled(
    text: &str,
    escape: char,
    style: Style,
    variables: &Variables<'_>,
) -> Result<String, ExpandError> {
    Lexer::new(text, escape, style, variables).until(None).map(|(text, _)| text)
}

/// Expands and then splits at blanks that are not quoted or escaped.
pub fn words(
    text: &str,
    escape: char,
    style: Style,
    variables: &Variables<'_>,
) -> Result<Vec<String>, ExpandError> {
    Lexer::new(text, escape, style, variables).until(None).map(|(_, words)| words)
}

struct Lexer<'a> {
    rest: Peekable<Chars<'a>>,
    escape: char,
    style: Style,
    variables: &'a Variables<'a>,
    depth: usize,
}

impl<'a> Lexer<'a> {
    fn new(text: &'a str, escape: char, style: Style, variables: &'a Variables<'a>) -> Self {
        Self { rest: text.chars().peekable(), escape, style, variables, depth: 0 }
    }

    /// Reads up to `stop` (consumed) or, without one, the end.
    fn until(&mut self, stop: Option<char>) -> Result<(String, Vec<String>), ExpandError> {
        let mut text = String::new();
        let mut words = Words::default();
        loop {
            let Some(next) = self.rest.next() else {
                return match stop {
                    None => Ok((text, words.finish())),
                    Some(stop) => Err(ExpandError::Missing(stop)),
                };
            };
            match next {
                _ if stop == Some(next) => return Ok((text, words.finish())),
                '\'' | '"' if !self.style.ignore_quotes => {
                    let quoted = if next == '"' { self.double()? } else { self.single()? };
                    words.push_quoted(&quoted);
                    text += &quoted;
                }
                '$' => {
                    let value = self.variable()?;
                    value.chars().for_each(|c| words.push(c));
                    text += &value;
                }
                '<' => {
                    let mark = self.here_document_mark();
                    words.push_quoted(&mark);
                    text += &mark;
                }
                _ if next == self.escape => {
                    if self.style.raw_escapes {
                        words.push_quoted(next.encode_utf8(&mut [0; 4]));
                        text.push(next);
                    }
                    let Some(escaped) = self.rest.next() else { continue };
                    words.push_quoted(escaped.encode_utf8(&mut [0; 4]));
                    text.push(escaped);
                }
                _ => {
                    words.push(next);
                    text.push(next);
                }
            }
            within_limit(&text)?;
        }
    }

    /// After `'`: everything up to the next `'`, which nothing can escape.
    fn single(&mut self) -> Result<String, ExpandError> {
        let mut text = String::new();
        self.push_quote('\'', &mut text);
        loop {
            match self.rest.next() {
                None => return Err(ExpandError::Unterminated("single-quote")),
                Some('\'') => {
                    self.push_quote('\'', &mut text);
                    return Ok(text);
                }
                Some(other) => text.push(other),
            }
        }
    }

    /// After `"`: variables are expanded, and only `"`, `$` and the escape can be escaped.
    fn double(&mut self) -> Result<String, ExpandError> {
        let mut text = String::new();
        self.push_quote('"', &mut text);
        loop {
            match self.rest.next() {
                None => return Err(ExpandError::Unterminated("double-quote")),
                Some('"') => {
                    self.push_quote('"', &mut text);
                    return Ok(text);
                }
                Some('$') => text += &self.variable()?,
                Some(escape) if escape == self.escape => {
                    if self.style.raw_escapes {
                        text.push(escape);
                    }
                    match self.rest.peek() {
                        None => {}
                        Some(&next) if next == '"' || next == '$' || next == escape => {
                            text.push(next);
                            self.rest.next();
                        }
                        Some(_) => text.push(escape),
                    }
                }
                Some(other) => text.push(other),
            }
            within_limit(&text)?;
        }
    }

    fn push_quote(&self, quote: char, text: &mut String) {
        if self.style.raw_quotes {
            text.push(quote);
        }
    }

    /// After `<`: a second one and the blanks behind it belong to the word that they introduce.
    fn here_document_mark(&mut self) -> String {
        let mut mark = "<".to_owned();
        if self.rest.next_if_eq(&'<').is_some() {
            mark.push('<');
            while let Some(blank) = self.rest.next_if(|c| matches!(c, ' ' | '\t' | '\r')) {
                mark.push(blank);
            }
        }
        mark
    }

    /// After `$`.
    fn variable(&mut self) -> Result<String, ExpandError> {
        if self.rest.next_if_eq(&'{').is_none() {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok(match (self.variables)(&name) {
                Some(value) => value,
                None if self.style.keep_unset => format!("${name}"),
                None => String::new(),
            });
        }
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(ExpandError::TooDeep);
        }
        let value = self.braces();
        self.depth -= 1;
        value
    }

    /// After `${`.
    fn braces(&mut self) -> Result<String, ExpandError> {
        match self.rest.peek() {
            None => return Err(ExpandError::Missing('}')),
            Some('{' | '}' | ':') => return Err(ExpandError::BadSubstitution),
            Some(_) => {}
        }
        let name = self.name();
        let value = (self.variables)(&name);
        let unset = value.is_none() && self.style.keep_unset;
        let mut modifier = self.rest.next().ok_or(ExpandError::Missing('}'))?;
        let colon = modifier == ':';
        if colon {
            modifier = self.rest.next().ok_or(ExpandError::Missing('}'))?;
        }
        let spelling = if colon { format!(":{modifier}") } else { modifier.to_string() };
        match modifier {
            '}' if !colon => Ok(match value {
                None if unset => format!("${{{name}}}"),
                value => value.unwrap_or_default(),
            }),
            '-' | '+' | '?' => {
                let word = self.part('}', self.style.raw_escapes)?;
                if unset {
                    return Ok(format!("${{{name}{spelling}{word}}}"));
                }
                let empty = colon && value.as_deref() == Some("");
                let given = value.is_some() && !empty;
                match (modifier, given) {
                    ('-', false) | ('+', true) => Ok(word),
                    ('+', false) => Ok(String::new()),
                    ('?', false) => {
                        let state = if empty { "empty" } else { "unset" };
                        let because = match word.as_str() {
                            "" => format!("is not allowed to be {state}"),
                            _ => word,
                        };
                        Err(ExpandError::Required(format!("{name}: {because}")))
                    }
                    _ => Ok(value.unwrap_or_default()),
                }
            }
            '#' | '%' if !colon => {
                let word = self.part('}', true)?;
                if unset {
                    return Ok(format!("${{{name}{spelling}{word}}}"));
                }
                let (length, pattern) = match word.strip_prefix(modifier) {
                    Some(pattern) => (Length::Longest, pattern),
                    None => (Length::Shortest, word.as_str()),
                };
                let parsed = Pattern::parse(pattern)?;
                let value = value.unwrap_or_default();
                match modifier {
                    '#' => parsed.without_prefix(&value, length),
                    _ => parsed.without_suffix(&value, length),
                }
            }
            '/' if !colon => {
                let all = self.rest.next_if_eq(&'/').is_some();
                let pattern = self.part('/', true)?;
                let replacement = self.part('}', true)?;
                if unset {
                    return Ok(format!("${{{name}/{pattern}/{replacement}}}"));
                }
                Pattern::parse(&pattern)?.replaced(&value.unwrap_or_default(), &replacement, all)
            }
            _ => Err(ExpandError::Modifier(spelling)),
        }
    }

    /// One part of `${…}`, itself expanded.
    fn part(&mut self, stop: char, raw_escapes: bool) -> Result<String, ExpandError> {
        let outer = std::mem::replace(&mut self.style.raw_escapes, raw_escapes);
        let part = self.until(Some(stop)).map(|(text, _)| text);
        self.style.raw_escapes = outer;
        part
    }

    /// Letters, digits and `_`; or only digits; or one of the shell's special parameters.
    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.rest.peek() {
            Some(c) if c.is_numeric() => {
                while let Some(digit) = self.rest.next_if(|c| c.is_numeric()) {
                    name.push(digit);
                }
                return name;
            }
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => {
                name.extend(self.rest.next());
                return name;
            }
            _ => {}
        }
        while let Some(part) = self.rest.next_if(|c| c.is_alphanumeric() || *c == '_') {
            name.push(part);
        }
        name
    }
}

/// Collects what `until` reads, cut at blanks.
#[derive(Default)]
struct Words {
    done: Vec<String>,
    current: String,
}

impl Words {
    fn push(&mut self, next: char) {
        if !next.is_whitespace() {
            self.current.push(next);
        } else if !self.current.is_empty() {
            self.done.push(std::mem::take(&mut self.current));
        }
    }

    fn push_quoted(&mut self, text: &str) {
        self.current += text;
    }

    fn finish(mut self) -> Vec<String> {
        if !self.current.is_empty() {
            self.done.push(self.current);
        }
        self.done
    }
}

fn within_limit(text: &str) -> Result<(), ExpandError> {
    if text.len() > LONGEST { Err(ExpandError::TooLong) } else { Ok(()) }
}

/// Bytes of one expanded text. `ENV A=$A$A` doubles with each line, so there must be an end;
/// execve(2) takes no longer string than 128 KiB anyway.
const LONGEST: usize = 1 << 20;

/// `${a:-${a:-…}}` is read by recursion.
const DEEPEST: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn variables(name: &str) -> Option<String> {
        match name {
            "HOME" => Some("/home/me".to_owned()),
            "EMPTY" => Some(String::new()),
            "FILE" => Some("a.tar.gz".to_owned()),
            "SPACES" => Some("one  two".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn words_expand_like_a_shell() {
        for (text, want) in [
            ("$HOME/x", "/home/me/x"),
            ("${HOME}x", "/home/mex"),
            ("'$HOME'", "$HOME"),
            ("\"$HOME\"", "/home/me"),
            ("\\$HOME", "$HOME"),
            ("\"\\$HOME \\x\"", "$HOME \\x"),
            ("$", "$"),
            ("$.", "$."),
            ("${NONE:-d}", "d"),
            ("${EMPTY:-d}", "d"),
            ("${EMPTY-d}", ""),
            ("${NONE-d}", "d"),
            ("${HOME:+yes}", "/home/me".replace("/home/me", "yes").as_str()),
            ("${EMPTY:+yes}", ""),
            ("${EMPTY+yes}", "yes"),
            ("${NONE:-${HOME:-x}}", "/home/me"),
            ("${HOME:?must}", "/home/me"),
            ("${FILE#*.}", "tar.gz"),
            ("${FILE##*.}", "gz"),
            ("${FILE%.*}", "a.tar"),
            ("${FILE%%.*}", "a"),
            ("${FILE/a/b}", "b.tar.gz"),
            ("${FILE//a/b}", "b.tbr.gz"),
            ("${HOME//\\//-}", "-home-me"),
            ("a\\", "a"),
            ("<<EOF", "<<EOF"),
        ] {
            assert_eq!(word(text, '\\', &variables).as_deref(), Ok(want), "{text}");
        }
        assert_eq!(word("`$HOME\\x", '`', &variables).as_deref(), Ok("$HOME\\x"));
    }

    #[test]
    fn wrong_words_say_what_is_wrong() {
        for (text, want) in [
            ("'x", "unexpected end of statement while looking for matching single-quote"),
            ("\"x", "unexpected end of statement while looking for matching double-quote"),
            ("${", "syntax error: missing '}' in ${}"),
            ("${HOME", "syntax error: missing '}' in ${}"),
            ("${}", "syntax error: bad substitution"),
            ("${HOME:x}", "unsupported modifier (:x) in substitution"),
            ("${NONE:?give it}", "NONE: give it"),
            ("${EMPTY:?}", "EMPTY: is not allowed to be empty"),
            ("${NONE?}", "NONE: is not allowed to be unset"),
            ("${HOME#\\x}", "invalid pattern (\\x) in substitution"),
        ] {
            let error = word(text, '\\', &variables).expect_err(text);
            assert_eq!(error.to_string(), want, "{text}");
        }
    }

    #[test]
    fn words_split_after_expansion() {
        let split = |text| words(text, '\\', Style::default(), &variables).expect(text);
        assert_eq!(split("a $SPACES \"$SPACES\" b\\ c"), ["a", "one", "two", "one  two", "b c"]);
        assert_eq!(split("x${NONE:-y z}w"), ["xy", "zw"]);
        assert_eq!(split("cat << EOF x"), ["cat", "<< EOF", "x"]);
    }

    #[test]
    fn bombs_end() {
        let nested = "${a:-".repeat(100_000);
        assert_eq!(word(&nested, '\\', &|_| None), Err(ExpandError::TooDeep));
        let long = |_: &str| Some("x".repeat(600_000));
        assert_eq!(word("$A$A", '\\', &long), Err(ExpandError::TooLong));
    }

    proptest! {
        #[test]
        fn nothing_panics(text in r#"([${}:/#%?+'"\\<a*A-]|é|\PC){0,40}"#, escape in "[\\\\`]") {
            let escape = escape.chars().next().expect("one character");
            for ignore_quotes in [false, true] {
                let style = Style { ignore_quotes, ..Style::default() };
                let _ = styled(&text, escape, style, &variables);
                let style = Style { raw_quotes: true, raw_escapes: true, keep_unset: true, ignore_quotes };
                let _ = words(&text, escape, style, &variables);
            }
        }

        #[test]
        fn plain_text_is_itself(text in "[a-zA-Z0-9 ./_-]{0,40}") {
            prop_assert_eq!(word(&text, '\\', &variables), Ok(text));
        }
    }
}
