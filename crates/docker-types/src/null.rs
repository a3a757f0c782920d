//! Go's rules for members that are missing, `null` or zero.

use serde::{Deserialize, Deserializer};

/// Reads `null` as the type's default.
pub(crate) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A JSON object of Docker's: names as Go writes them, every member optional, `null` or not.
macro_rules! object {
    (
        $(#[$about:meta])*
        pub struct $name:ident {
            $( $(#[$about_member:meta])* pub $member:ident: $kind:ty, )*
        }
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        pub struct $name {
            $(
                $(#[$about_member])*
                #[serde(
                    deserialize_with = "crate::null::null_is_default",
                    skip_serializing_if = "crate::null::is_default"
                )]
                pub $member: $kind,
            )*
        }
    };
}

/// The same, but every member is written, as Docker does for a few of its types.
macro_rules! whole_object {
    (
        $(#[$about:meta])*
        pub struct $name:ident {
            $( $(#[$about_member:meta])* pub $member:ident: $kind:ty, )*
        }
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        pub struct $name {
            $(
                $(#[$about_member])*
                #[serde(deserialize_with = "crate::null::null_is_default")]
                pub $member: $kind,
            )*
        }
    };
}

pub(crate) use {object, whole_object};
