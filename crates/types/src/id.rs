use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::{hex, unhex};

/// The 64-digit id of a container, an exec or a network.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id([u8; 32]);

impl Id {
    /// Draws a new id from the kernel's random source.
    ///
    /// The first 12 digits are never all decimal: Docker redraws too, because a short id that is
    /// a number cannot be told from one in scripts and is refused as a hostname by some tools.
    pub fn random() -> Self {
        loop {
            let mut bytes = [0; 32];
            getrandom::fill(&mut bytes)
                .expect("getrandom(2) with no flags fails only before Linux 3.17");
            let id = Self(bytes);
            if id.short().bytes().any(|digit| digit.is_ascii_alphabetic()) {
                return id;
            }
        }
    }

    /// The first 12 digits, as Docker's tables show ids.
    pub fn short(&self) -> String {
        hex(&self.0[..6])
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

/// A text that is not 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid id {0:?}: expected 64 lower-case hexadecimal digits")]
pub struct InvalidId(pub String);

impl FromStr for Id {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        unhex(text).map(Self).ok_or_else(|| InvalidId(text.to_owned()))
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A name that a user gives to a container, a network or a volume: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
///
/// The pattern is Docker's (moby: daemon/names/names.go), which keeps `/` and `..` out of every
/// path and host name that is made from it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Name(String);

impl Name {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A text that does not match `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid name ({0}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")]
pub struct InvalidName(pub String);

impl FromStr for Name {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        let rest = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
        if first && rest && (2..=253).contains(&text.len()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidName(text.to_owned()))
        }
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_never_hold_a_path() {
        for good in ["web", "a1", "A_b.c-d", "0x"] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in ["", "a", ".a", "-a", "a/b", "..", "a b", "é1", "a\n"] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }

    #[test]
    fn ids_survive_a_round_trip() {
        let id = Id::random();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.short().len(), 12);
        assert!("../../x".parse::<Id>().is_err());
    }
}
