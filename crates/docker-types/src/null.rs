//! Go's rules for members that are missing, `null` or zero.

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, forward_to_deserialize_any};

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

/// Reads a struct from an object alone. What serde derives takes a list as well, of the members in their
/// order, which to Go is an error.
pub(crate) struct ObjectsOnly<D>(pub D);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for ObjectsOnly<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// How an object's type is read and written, behind what serde derives for it.
macro_rules! objects_only {
    ($name:ident) => {
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::deserialize(crate::null::ObjectsOnly(deserializer))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                Self::serialize(self, serializer)
            }
        }
    };
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
        #[serde(remote = "Self", rename_all = "PascalCase", default)]
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

        crate::null::objects_only!($name);
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
        #[serde(remote = "Self", rename_all = "PascalCase", default)]
        pub struct $name {
            $(
                $(#[$about_member])*
                #[serde(deserialize_with = "crate::null::null_is_default")]
                pub $member: $kind,
            )*
        }

        crate::null::objects_only!($name);
    };
}

pub(crate) use {object, objects_only, whole_object};
