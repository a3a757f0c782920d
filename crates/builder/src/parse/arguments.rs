use super::{Fault, Line};

/// What follows the keyword and the flags, in the form that the instruction takes.
#[derive(Debug, Clone)]
pub(crate) enum Arguments {
    None,
    /// `["a", "b"]`
    Json(Vec<String>),
    /// Split at blanks; quotes stay.
    Words(Vec<String>),
    /// The rest of the line as it is.
    Text(String),
    /// `name=value …`, or the old `name value`; quotes stay.
    Pairs(Vec<(String, String)>),
    /// `HEALTHCHECK CMD …`: the first word, then the rest.
    Typed(String, Box<Arguments>),
    /// The instruction that ONBUILD keeps for later.
    Trigger(Box<Line>),
}

/// What separates words: Go's `[\t\v\f\r ]`.
pub(super) const BLANKS: [char; 5] = ['\t', '\u{b}', '\u{c}', '\r', ' '];

impl Arguments {
    pub(super) fn read(
        keyword: &str,
        rest: &str,
        number: usize,
        escape: char,
    ) -> Result<Self, Fault> {
        let keyword = keyword.to_ascii_uppercase();
        if rest.is_empty() {
            return Ok(Self::None);
        }
        match keyword.as_str() {
            "ADD" | "COPY" | "VOLUME" => {
                Ok(json(rest)?.unwrap_or_else(|| Self::Words(at_blanks(rest))))
            }
            "FROM" | "EXPOSE" => Ok(Self::Words(at_blanks(rest))),
            "CMD" | "ENTRYPOINT" | "RUN" | "SHELL" => maybe_json(rest),
            "MAINTAINER" | "STOPSIGNAL" | "USER" | "WORKDIR" => Ok(Self::Text(rest.to_owned())),
            "ENV" | "LABEL" => pairs(&keyword, rest, escape),
            "ARG" => Ok(Self::Words(quoted_words(rest, escape))),
            "HEALTHCHECK" => {
                let (kind, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
                let rest = match rest.trim_start() {
                    "" => Self::None,
                    rest => maybe_json(rest)?,
                };
                Ok(Self::Typed(kind.to_owned(), Box::new(rest)))
            }
            "ONBUILD" => {
                // ONBUILD of ONBUILD is refused by `instruction`; reading it here by recursion
                // would let a line decide how deep the stack gets.
                let chained = rest
                    .split(BLANKS)
                    .next()
                    .is_some_and(|word| word.eq_ignore_ascii_case("onbuild"));
                if chained {
                    return Err("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".to_owned());
                }
                Ok(Self::Trigger(Box::new(Line::read(rest, number, escape)?)))
            }
            _ => Ok(Self::Text(rest.to_owned())),
        }
    }
}

/// A JSON array of strings; `None` if it is not JSON, which then is meant for a shell.
fn json(rest: &str) -> Result<Option<Arguments>, Fault> {
    if !rest.starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(rest) else {
        return Ok(None);
    };
    let strings = values.into_iter().map(|value| match value {
        serde_json::Value::String(text) => Some(text),
        _ => None,
    });
    match strings.collect() {
        Some(strings) => Ok(Some(Arguments::Json(strings))),
        None => {
            Err("when using JSON array syntax, arrays must be comprised of strings only".to_owned())
        }
    }
}

fn maybe_json(rest: &str) -> Result<Arguments, Fault> {
    Ok(json(rest)?.unwrap_or_else(|| Arguments::Text(rest.to_owned())))
}

fn at_blanks(rest: &str) -> Vec<String> {
    rest.split(BLANKS).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn pairs(keyword: &str, rest: &str, escape: char) -> Result<Arguments, Fault> {
    let words = quoted_words(rest, escape);
    if !words.first().is_some_and(|word| word.contains('=')) {
        let (name, value) =
            rest.split_once(BLANKS).ok_or_else(|| format!("{keyword} must have two arguments"))?;
        let value = value.trim_start_matches(BLANKS);
        return Ok(Arguments::Pairs(vec![(name.to_owned(), value.to_owned())]));
    }
    let pair = |word: String| match word.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => {
            Err(format!("Syntax error - can't find = in {word:?}. Must be of the form: name=value"))
        }
    };
    words.into_iter().map(pair).collect::<Result<_, _>>().map(Arguments::Pairs)
}

/// Splits at blanks outside of quotes. Quotes and escapes stay: expansion takes them off.
fn quoted_words(rest: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut rest = rest.chars().peekable();
    while let Some(next) = rest.next() {
        if next == escape && quote != Some('\'') {
            // An escape at the very end is dropped.
            if let Some(escaped) = rest.next() {
                word.extend([next, escaped]);
            }
            continue;
        }
        match quote {
            Some(open) if next == open => quote = None,
            None if next == '\'' || next == '"' => quote = Some(next),
            None if next.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            _ => {}
        }
        word.push(next);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Takes the words that start with `--` off the front; a lone `--` ends them. Quotes and
/// escapes are resolved, as flags are compared as they are.
pub(super) fn split_flags(rest: &str, escape: char) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = rest.trim_start();
    while rest.starts_with("--") {
        let mut flag = String::new();
        let mut quote = None;
        let mut characters = rest.char_indices();
        let end = loop {
            let Some((at, next)) = characters.next() else { break rest.len() };
            match quote {
                _ if next == escape => flag.extend(characters.next().map(|(_, c)| c)),
                Some(open) if next == open => quote = None,
                None if next == '\'' || next == '"' => quote = Some(next),
                None if next.is_whitespace() => break at,
                _ => flag.push(next),
            }
        };
        rest = rest[end..].trim_start();
        if flag == "--" {
            break;
        }
        flags.push(flag);
    }
    (flags, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_come_off_the_front() {
        for (text, flags, rest) in [
            ("a b", vec![], "a b"),
            ("--from=x a", vec!["--from=x"], "a"),
            ("--a --b=\"c d\" -- --e", vec!["--a", "--b=c d"], "--e"),
            ("-- a", vec![], "a"),
            ("-x --y", vec![], "-x --y"),
            ("--a=\\", vec!["--a="], ""),
        ] {
            let flags: Vec<String> = flags.into_iter().map(str::to_owned).collect();
            assert_eq!(split_flags(text, '\\'), (flags, rest), "{text}");
        }
    }

    #[test]
    fn pairs_keep_their_quotes() {
        for (text, want) in [
            ("a b c", vec![("a", "b c")]),
            ("a=b c='d e'", vec![("a", "b"), ("c", "'d e'")]),
            ("a=b\\ c \"d e\"=f", vec![("a", "b\\ c"), ("\"d e\"", "f")]),
            ("a=", vec![("a", "")]),
        ] {
            let Ok(Arguments::Pairs(pairs)) = pairs("ENV", text, '\\') else { panic!("{text}") };
            let pairs: Vec<_> = pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            assert_eq!(pairs, want, "{text}");
        }
    }

    #[test]
    fn json_is_json_or_for_the_shell() {
        for (text, is_json) in [
            ("[\"a\", \"b\"]", true),
            ("[ ]", true),
            ("['a']", false),
            ("[\"a\"", false),
            ("[\"a\"] b", false),
            ("[ -f x ] && y", false),
        ] {
            let arguments = maybe_json(text).expect(text);
            assert_eq!(matches!(arguments, Arguments::Json(_)), is_json, "{text}");
        }
    }
}
