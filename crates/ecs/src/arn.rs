use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// The name of a resource, `arn:aws:ecs:REGION:ACCOUNT:KIND/…/ID`.
///
/// One that came from another control plane may have any form; its parts are then empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Arn(String);

impl Arn {
    /// What stands behind the last slash: an id, a cluster's name, or `FAMILY:REVISION`.
    pub fn id(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// Of a task definition.
    pub fn family(&self) -> Option<&str> {
        self.id().split_once(':').map(|(family, _)| family)
    }
}

impl Deref for Arn {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Arn {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Arn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for Arn {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<Arn> for String {
    fn from(arn: Arn) -> Self {
        arn.0
    }
}

/// Where things live in AWS's naming: the region and account that stand in every ARN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub region: String,
    pub account: String,
}

impl Default for Place {
    fn default() -> Self {
        Self { region: "us-east-1".into(), account: "000000000000".into() }
    }
}

impl Place {
    fn arn(&self, resource: fmt::Arguments<'_>) -> Arn {
        Arn(format!("arn:aws:ecs:{}:{}:{resource}", self.region, self.account))
    }

    pub fn cluster(&self, name: &str) -> Arn {
        self.arn(format_args!("cluster/{name}"))
    }

    pub fn container(&self, cluster: &str, task: &str, id: &str) -> Arn {
        self.arn(format_args!("container/{cluster}/{task}/{id}"))
    }

    pub fn container_instance(&self, cluster: &str, id: &str) -> Arn {
        self.arn(format_args!("container-instance/{cluster}/{id}"))
    }

    pub fn task(&self, cluster: &str, id: &str) -> Arn {
        self.arn(format_args!("task/{cluster}/{id}"))
    }

    pub fn task_definition(&self, family: &str, revision: u32) -> Arn {
        self.arn(format_args!("task-definition/{family}:{revision}"))
    }
}

/// The name of a cluster given by name or ARN; nothing given means `default`.
pub(crate) fn cluster_name(reference: Option<&str>) -> &str {
    match reference {
        None | Some("") => "default",
        Some(text) => text.rsplit_once(":cluster/").map_or(text, |(_, name)| name),
    }
}

/// The id in `reference`, which is an id, `arn:…:KIND/ID` or `arn:…:KIND/CLUSTER/ID`.
///
/// `None` where the ARN is of another kind or names another cluster than `cluster`.
pub(crate) fn member_id<'a>(kind: &str, cluster: &str, reference: &'a str) -> Option<&'a str> {
    if !reference.starts_with("arn:") {
        // the short form CLUSTER/ID is accepted too
        return match reference.split_once('/') {
            None => Some(reference),
            Some((named, id)) => (named == cluster).then_some(id),
        };
    }
    let resource = reference.splitn(6, ':').nth(5)?;
    let rest = resource.strip_prefix(kind)?.strip_prefix('/')?;
    match rest.split_once('/') {
        None => Some(rest),
        Some((named, id)) => (named == cluster).then_some(id),
    }
}

/// The cluster that an ARN of a task or an instance names in itself.
pub(crate) fn cluster_of_member(reference: &str) -> Option<&str> {
    let resource = reference.splitn(6, ':').nth(5)?;
    let mut parts = resource.split('/');
    let (_, cluster, id) = (parts.next()?, parts.next()?, parts.next());
    id.map(|_| cluster)
}

/// A task definition as users name it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum DefinitionReference<'a> {
    /// The newest ACTIVE revision of the family.
    Family(&'a str),
    Revision(&'a str, u32),
}

impl<'a> DefinitionReference<'a> {
    /// Reads `family`, `family:revision` or an ARN.
    pub(crate) fn parse(text: &'a str) -> Result<Self, Error> {
        let invalid = || {
            Error::client(format!(
                "Invalid revision number in task definition '{text}': give a family, family:revision or an ARN."
            ))
        };
        let name = match text.strip_prefix("arn:") {
            Some(_) => text.rsplit_once(":task-definition/").ok_or_else(invalid)?.1,
            None => text,
        };
        match name.split_once(':') {
            None => Ok(Self::Family(name)),
            Some((family, revision)) => revision
                .parse()
                .map(|revision| Self::Revision(family, revision))
                .map_err(|_| invalid()),
        }
    }
}

/// 32 lower-case hexadecimal digits, the form of ECS's task and instance ids.
pub(crate) fn fresh_id() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the kernel has random bytes after boot");
    format!("{:032x}", u128::from_be_bytes(bytes))
}

/// A random UUID (version 4), the form of container ids in ARNs.
pub(crate) fn fresh_uuid() -> String {
    uuid::Uuid::new_v4().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_names_ids_or_arns() {
        let place = Place::default();
        assert_eq!(cluster_name(None), "default");
        assert_eq!(cluster_name(Some(&place.cluster("blue"))), "blue");
        let arn = place.task("blue", "0123");
        assert_eq!((arn.id(), arn.family()), ("0123", None));
        for (cluster, reference, expected) in [
            ("blue", "0123", Some("0123")),
            ("blue", &*arn, Some("0123")),
            ("green", &*arn, None),
            ("blue", "blue/0123", Some("0123")),
            ("blue", "arn:aws:ecs:us-east-1:000000000000:task/0123", Some("0123")),
            ("blue", "arn:aws:ecs:us-east-1:000000000000:service/blue/x", None),
        ] {
            assert_eq!(member_id("task", cluster, reference), expected, "{reference}");
        }
        assert_eq!(cluster_of_member(&arn), Some("blue"));
    }

    #[test]
    fn task_definitions_have_three_spellings() {
        use DefinitionReference::*;
        assert_eq!(DefinitionReference::parse("web").unwrap(), Family("web"));
        assert_eq!(DefinitionReference::parse("web:3").unwrap(), Revision("web", 3));
        let arn = Place::default().task_definition("web", 3);
        assert_eq!((arn.id(), arn.family()), ("web:3", Some("web")));
        assert_eq!(DefinitionReference::parse(&arn).unwrap(), Revision("web", 3));
        assert!(DefinitionReference::parse("web:newest").is_err());
    }

    #[test]
    fn fresh_ids_have_ecs_forms() {
        assert_eq!(fresh_id().len(), 32);
        let uuid = fresh_uuid();
        assert_eq!((uuid.len(), uuid.as_bytes()[14]), (36, b'4'));
        assert_ne!(fresh_id(), fresh_id());
    }
}
