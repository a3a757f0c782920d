use std::collections::BTreeMap;

/// One way to authenticate that a server offers in `WWW-Authenticate` (RFC 9110, 11.6.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Challenge {
    /// In lower case.
    pub(super) scheme: String,
    /// Names in lower case.
    pub(super) parameters: BTreeMap<String, String>,
}

impl Challenge {
    /// Reads the challenges of one header value; stops at what it does not understand.
    pub(super) fn parse(header: &str) -> Vec<Self> {
        let mut challenges = Vec::<Self>::new();
        let mut rest = header.trim_start_matches([' ', ',', '\t']);
        while let Some((word, after)) = token(rest) {
            let after = after.trim_start();
            if let Some(value) = after.strip_prefix('=') {
                let Some((value, after)) = value_of(value.trim_start()) else { break };
                let Some(last) = challenges.last_mut() else { break };
                last.parameters.entry(word.to_ascii_lowercase()).or_insert(value);
                rest = after;
            } else {
                let scheme = word.to_ascii_lowercase();
                challenges.push(Self { scheme, parameters: BTreeMap::new() });
                rest = after;
            }
            rest = rest.trim_start_matches([' ', ',', '\t']);
        }
        challenges
    }
}

fn token(text: &str) -> Option<(&str, &str)> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let end = text.bytes().position(|byte| !is_token(byte)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

fn value_of(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = token(text)?;
        return Some((value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[index + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(header: &str) -> String {
        let parts = Challenge::parse(header).into_iter().map(|challenge| {
            let parameters =
                challenge.parameters.iter().map(|(key, value)| format!(" {key}={value}"));
            format!("{}{}", challenge.scheme, parameters.collect::<String>())
        });
        parts.collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn challenges_are_read() {
        for (header, expected) in [
            ("Basic realm=\"x y\"", "basic realm=x y"),
            (
                "Bearer realm=\"https://a/t\",service=\"s\",scope=\"repository:a/b:pull,push\"",
                "bearer realm=https://a/t scope=repository:a/b:pull,push service=s",
            ),
            ("Negotiate, Basic realm=a", "negotiate; basic realm=a"),
            ("bearer REALM = \"a\\\"b\" , x=1", "bearer realm=a\"b x=1"),
            ("Bearer realm=\"cut", "bearer"),
            ("=", ""),
            ("", ""),
        ] {
            assert_eq!(shown(header), expected, "{header}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_read_without_panic(header in "\\PC{0,80}") {
            let _ = Challenge::parse(&header);
        }
    }
}
