//! Plans as bytes, for a child that was made before its plan.
//!
//! The format is postcard's, and only programs of one build read what each other wrote.

use std::sync::Arc;

use bulkhead_sys::seccomp::{Flags, Instruction};
use rustix::process::{Resource, Rlimit};
use serde::de::{DeserializeOwned, Error as _};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Plan;
use crate::seccomp::Compiled;

/// Bytes that are no plan of this build's.
#[derive(Debug, thiserror::Error)]
#[error("a plan that cannot be read: {0}")]
pub struct DecodeError(#[from] postcard::Error);

impl Plan {
    /// The plan as bytes that [`Plan::decode`] makes an equal one of.
    ///
    /// # Errors
    /// None for a plan that was compiled; postcard's in name.
    pub fn encode(&self) -> Result<Vec<u8>, DecodeError> {
        Ok(postcard::to_extend(self, Vec::with_capacity(16 << 10))?)
    }

    /// Reads what [`Plan::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] for anything else, as far as it can be told.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Ok(postcard::from_bytes(bytes)?)
    }
}

/// A path that need not be UTF-8.
pub(super) mod path {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::{Path, PathBuf};

    use super::*;

    pub fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(path.as_os_str().as_bytes())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        let bytes = <&[u8]>::deserialize(deserializer)?;
        Ok(OsString::from_vec(bytes.to_vec()).into())
    }
}

/// The types of the OCI specification leave fields out in JSON, which postcard cannot.
pub(super) mod json {
    use super::*;

    pub fn serialize<T: Serialize, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let bytes = serde_json::to_vec(value).map_err(S::Error::custom)?;
        serializer.serialize_bytes(&bytes)
    }

    pub fn deserialize<'de, T: DeserializeOwned, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        serde_json::from_slice(<&[u8]>::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

pub(super) mod file_type {
    use rustix::fs::FileType;

    use super::*;

    pub fn serialize<S: Serializer>(kind: &FileType, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(kind.as_raw_mode())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<FileType, D::Error> {
        u32::deserialize(deserializer).map(FileType::from_raw_mode)
    }
}

/// Limits by their number, getrlimit(2).
pub(super) mod limits {
    use super::*;

    const ALL: [Resource; 16] = [
        Resource::Cpu,
        Resource::Fsize,
        Resource::Data,
        Resource::Stack,
        Resource::Core,
        Resource::Rss,
        Resource::Nproc,
        Resource::Nofile,
        Resource::Memlock,
        Resource::As,
        Resource::Locks,
        Resource::Sigpending,
        Resource::Msgqueue,
        Resource::Nice,
        Resource::Rtprio,
        Resource::Rttime,
    ];

    pub fn serialize<S: Serializer>(
        limits: &[(Resource, Rlimit)],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let number = |wanted: &Resource| ALL.iter().position(|it| it == wanted);
        let limits: Option<Vec<_>> = limits
            .iter()
            .map(|(resource, limit)| Some((number(resource)?, limit.current, limit.maximum)))
            .collect();
        limits.ok_or_else(|| S::Error::custom("a limit without a number"))?.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<(Resource, Rlimit)>, D::Error> {
        let limits = Vec::<(usize, Option<u64>, Option<u64>)>::deserialize(deserializer)?;
        let limit = |(number, current, maximum): (usize, _, _)| {
            let resource = ALL.get(number).ok_or_else(|| D::Error::custom("an unknown limit"))?;
            Ok((*resource, Rlimit { current, maximum }))
        };
        limits.into_iter().map(limit).collect()
    }
}

/// A filter's instructions as one run of bytes: the usual filter has a thousand of them.
pub(super) mod filter {
    use super::*;

    type Parts<'a> = (&'a [u8], Flags, bool);

    const SIZE: usize = size_of::<Instruction>();

    pub fn serialize<S: Serializer>(
        filter: &Option<Compiled>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::new();
        let parts = filter.as_ref().map(|filter| {
            bytes.reserve(filter.instructions.len() * SIZE);
            for it in filter.instructions.iter() {
                bytes.extend(it.code.to_le_bytes());
                bytes.extend([it.jump_true, it.jump_false]);
                bytes.extend(it.k.to_le_bytes());
            }
            (filter.flags, filter.listener)
        });
        parts.map(|(flags, listener)| (Bytes(&bytes), flags, listener)).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Compiled>, D::Error> {
        let parts = Option::<Parts<'de>>::deserialize(deserializer)?;
        let Some((bytes, flags, listener)) = parts else { return Ok(None) };
        let (instructions, []) = bytes.as_chunks::<SIZE>() else {
            return Err(D::Error::custom("half an instruction"));
        };
        let instructions: Arc<[Instruction]> = instructions
            .iter()
            .map(|&[c0, c1, jump_true, jump_false, k0, k1, k2, k3]| Instruction {
                code: u16::from_le_bytes([c0, c1]),
                jump_true,
                jump_false,
                k: u32::from_le_bytes([k0, k1, k2, k3]),
            })
            .collect();
        Ok(Some(Compiled { instructions, flags, listener }))
    }

    struct Bytes<'a>(&'a [u8]);

    impl Serialize for Bytes<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_bytes(self.0)
        }
    }
}
