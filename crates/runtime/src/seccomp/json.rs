//! Docker's JSON format of profiles (moby/profiles: seccomp/seccomp.go), which extends that of the
//! OCI runtime specification (config-linux.md, "Seccomp").

use serde::Deserialize;

use crate::{Capabilities, capabilities};

use super::profile::{Action, Condition, Profile, Rule};
use super::table::{Architecture, Call, NATIVE};
use super::{SeccompError, names};

/// Reads a profile and resolves its conditions; `None` if it switches the filter off, as an empty
/// object does.
///
/// `kernel` is the running one's (version, patch level).
pub(super) fn parse(
    text: &str,
    capabilities: Capabilities,
    kernel: (u64, u64),
) -> Result<Option<Profile>, SeccompError> {
    let file: File = serde_json::from_str(text).map_err(SeccompError::Decode)?;
    let calls = file.syscalls.unwrap_or_default();
    let Some(default) = file.default_action.filter(|action| !action.is_empty()) else {
        // with rules but without a default, Docker passes "" on and runc refuses it
        return if calls.is_empty() { Ok(None) } else { Err(SeccompError::Action(String::new())) };
    };
    for flag in file.flags.iter().flatten() {
        names::flag(flag)?;
    }
    let mut rules = Vec::new();
    for call in calls {
        rules.extend(call.resolve(capabilities, kernel)?);
    }
    Ok(Some(Profile {
        default: action(&default, file.default_errno_ret)?,
        architectures: architectures(
            file.architectures.unwrap_or_default(),
            file.arch_map.unwrap_or_default(),
        )?,
        rules,
        close_socketcall: true,
    }))
}

/// Reads `6.18.44-something` as (6, 18).
pub(super) fn release(text: &str) -> (u64, u64) {
    let mut numbers = text.split(|it: char| !it.is_ascii_digit()).map(|it| it.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    default_action: Option<String>,
    default_errno_ret: Option<u32>,
    architectures: Option<Vec<String>>,
    arch_map: Option<Vec<ArchMap>>,
    syscalls: Option<Vec<Entry>>,
    flags: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: String,
    sub_architectures: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    name: Option<String>,
    names: Option<Vec<String>>,
    action: String,
    errno_ret: Option<u32>,
    args: Option<Vec<Argument>>,
    includes: Option<When>,
    excludes: Option<When>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u32,
    #[serde(default)]
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct When {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

impl Entry {
    /// None where the conditions say so.
    fn resolve(
        self,
        capabilities: Capabilities,
        kernel: (u64, u64),
    ) -> Result<Vec<Rule>, SeccompError> {
        let mut names = self.names.unwrap_or_default();
        if let Some(name) = self.name.filter(|name| !name.is_empty()) {
            if !names.is_empty() {
                return Err(SeccompError::NameAndNames);
            }
            names.push(name);
        }
        let excludes = self.excludes.unwrap_or_default();
        let excluded_by_kernel = excludes.kernel_reached(kernel)?;
        let includes = self.includes.unwrap_or_default();
        let kernel_reached = includes.kernel_reached(kernel)?;

        let mut has = excludes.caps.iter().flatten().map(|name| has_capability(capabilities, name));
        if has.any(|it| it)
            || excludes.names_native() == Some(true)
            || excluded_by_kernel == Some(true)
        {
            return Ok(Vec::new());
        }
        let mut has = includes.caps.iter().flatten().map(|name| has_capability(capabilities, name));
        if !has.all(|it| it)
            || includes.names_native() == Some(false)
            || kernel_reached == Some(false)
        {
            return Ok(Vec::new());
        }

        let action = action(&self.action, self.errno_ret)?;
        let conditions = self.args.unwrap_or_default();
        let conditions: Vec<Condition> = conditions
            .iter()
            .map(|it| names::condition(it.index, &it.op, it.value, it.value_two))
            .collect::<Result<_, _>>()?;
        let calls = names.iter().filter_map(|name| Call::named(name)).collect();
        Ok(names::rules(calls, action, conditions))
    }
}

impl When {
    /// `None` if it names no architecture.
    fn names_native(&self) -> Option<bool> {
        let arches = self.arches.as_ref().filter(|arches| !arches.is_empty())?;
        Some(arches.iter().any(|name| name == NATIVE[0].go_name()))
    }

    fn kernel_reached(&self, kernel: (u64, u64)) -> Result<Option<bool>, SeccompError> {
        let Some(text) = self.min_kernel.as_ref().filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let parsed = text.split_once('.').and_then(|(version, level)| {
            Some((u64::from(version.parse::<u8>().ok()?), u64::from(level.parse::<u8>().ok()?)))
        });
        match parsed {
            Some(wanted) if wanted != (0, 0) => Ok(Some(kernel >= wanted)),
            _ => Err(SeccompError::KernelVersion(text.clone())),
        }
    }
}

fn has_capability(capabilities: Capabilities, name: &str) -> bool {
    capabilities::parse(name).is_some_and(|bit| capabilities.has(bit))
}

/// A listener is a matter of the OCI runtime's, so `SCMP_ACT_NOTIFY` is unknown here.
fn action(name: &str, errno_ret: Option<u32>) -> Result<Action, SeccompError> {
    match names::action(name, errno_ret)? {
        Action::Notify => Err(SeccompError::Action(name.to_owned())),
        action => Ok(action),
    }
}

/// The native architecture, and those of its kind that the profile names.
fn architectures(
    listed: Vec<String>,
    map: Vec<ArchMap>,
) -> Result<Vec<Architecture>, SeccompError> {
    let mut names = match (listed.is_empty(), map.is_empty()) {
        (false, false) => return Err(SeccompError::ArchitecturesAndMap),
        (false, true) => listed,
        (true, _) => {
            let own = map.into_iter().find(|it| it.architecture == NATIVE[0].profile_name());
            own.and_then(|it| it.sub_architectures).unwrap_or_default()
        }
    };
    names.push(NATIVE[0].profile_name().to_owned());
    let named = |it: &Architecture| names.iter().any(|name| name == it.profile_name());
    Ok(Architecture::ALL.into_iter().filter(named).collect())
}
