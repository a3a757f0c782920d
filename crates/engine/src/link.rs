//! `--link`, as it is asked for.

use std::fmt;
use std::str::FromStr;

use crate::EngineError;
use crate::extra_host::is_word;
use crate::text::serde_by_text;

/// A container that another one may call by an alias.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its name or id, as it was asked for.
    pub container: String,
    pub alias: String,
}

impl FromStr for Link {
    type Err = EngineError;

    /// Reads `container[:alias]`, as `--link` and ECS's `links` write it.
    fn from_str(text: &str) -> Result<Self, EngineError> {
        let link = text.trim_start_matches('/');
        let (name, alias) = match link.split_once(':') {
            // The engine's own form, as inspect shows it: `/name:/container/alias`.
            Some((name, alias)) => (name, alias.rsplit('/').next().unwrap_or(alias)),
            None => (link, link),
        };
        if name.is_empty() || alias.is_empty() || alias.contains(':') || !is_word(alias) {
            return Err(EngineError::invalid(format!("bad format for links: {text:?}")));
        }
        Ok(Self { container: name.to_owned(), alias: alias.to_owned() })
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.container, self.alias)
    }
}

serde_by_text!(Link);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_read() {
        for (text, container, alias) in [
            ("db", "db", "db"),
            ("db:database", "db", "database"),
            ("/db:/web/database", "db", "database"),
        ] {
            let link = Link { container: container.to_owned(), alias: alias.to_owned() };
            assert_eq!(text.parse::<Link>().unwrap(), link);
            assert_eq!(link.to_string().parse::<Link>().unwrap(), link);
        }
        for wrong in ["", ":a", "a:", "a:b:c", "db:a\n6.6.6.6 evil"] {
            assert!(wrong.parse::<Link>().is_err(), "{wrong}");
        }
    }
}
