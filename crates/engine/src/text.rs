//! Types that are a text in requests and in records: read once, written as they were read.

use std::fmt::Display;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

/// Reads and writes a type by its text.
macro_rules! serde_by_text {
    ($type:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

pub(crate) use serde_by_text;

/// Reads a list of texts from a record and leaves out those that are none of the type: an engine
/// of before the type took them without a look, and no start ever had them.
pub(crate) fn readable<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr,
    T::Err: Display,
{
    let texts = Vec::<String>::deserialize(deserializer)?;
    let read = |text: String| {
        let value = text.parse();
        if let Err(error) = &value {
            tracing::warn!(text, %error, "left out of a record");
        }
        value.ok()
    };
    Ok(texts.into_iter().filter_map(read).collect())
}
