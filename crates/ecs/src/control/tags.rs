use super::definitions::StoredDefinition;
use super::{Control, Setback, attempt};
use crate::cluster::Cluster;
use crate::error::{Code, Error};
use crate::instance::ContainerInstance;
use crate::record::{self, Record, key};
use crate::tag::{self, Tag};
use crate::task::Task;

/// A resource that can have tags, by its key in the store.
enum Tagged {
    Cluster(String),
    Definition(String),
    Instance(String),
    Task(String),
}

impl Control {
    /// Adds tags to a cluster, task definition, container instance or task.
    pub fn tag_resource(&self, arn: &str, tags: &[Tag]) -> Result<(), Error> {
        tag::check(tags)?;
        self.change_tags(arn, |own| tag::merge(own, tags)).map(drop)
    }

    pub fn untag_resource(&self, arn: &str, keys: &[String]) -> Result<(), Error> {
        self.change_tags(arn, |own| {
            own.retain(|tag| !keys.contains(&tag.key));
            Ok(())
        })
        .map(drop)
    }

    pub fn list_tags_for_resource(&self, arn: &str) -> Result<Vec<Tag>, Error> {
        self.change_tags(arn, |_| Ok(()))
    }

    /// Applies `change` to the resource's tags and answers with them; writes only what changed.
    fn change_tags(
        &self,
        arn: &str,
        change: impl Fn(&mut Vec<Tag>) -> Result<(), Error>,
    ) -> Result<Vec<Tag>, Error> {
        let missing =
            || Error::new(Code::ResourceNotFound, format!("The resource {arn} was not found."));
        macro_rules! change_in {
            ($key:expr, $kind:ty) => {
                attempt(|| {
                    let mut record: Record<$kind> =
                        record::read(&*self.store, $key)?.ok_or_else(missing)?;
                    let before = record.value.tags.clone();
                    change(&mut record.value.tags)?;
                    if record.value.tags != before {
                        self.store.commit(&[record.unchanged()], &[record.put()])?;
                    }
                    Ok::<_, Setback>(record.value.tags)
                })
            };
        }
        match resource(arn)? {
            Tagged::Cluster(key) => change_in!(&key, Cluster),
            Tagged::Definition(key) => change_in!(&key, StoredDefinition),
            Tagged::Instance(key) => change_in!(&key, ContainerInstance),
            Tagged::Task(key) => change_in!(&key, Task),
        }
    }
}

fn resource(arn: &str) -> Result<Tagged, Error> {
    let invalid = || {
        Error::invalid(format!(
            "Invalid ARN '{arn}': give the ARN of a cluster, task definition, container instance or task."
        ))
    };
    let rest =
        arn.starts_with("arn:").then(|| arn.splitn(6, ':').nth(5)).flatten().ok_or_else(invalid)?;
    let (kind, path) = rest.split_once('/').ok_or_else(invalid)?;
    let member = || path.split_once('/').ok_or_else(invalid);
    match kind {
        "cluster" => Ok(Tagged::Cluster(key::cluster(path))),
        "container-instance" => {
            member().map(|(cluster, id)| Tagged::Instance(key::instance(cluster, id)))
        }
        "task" => member().map(|(cluster, id)| Tagged::Task(key::task(cluster, id))),
        "task-definition" => {
            let (family, revision) = path.split_once(':').ok_or_else(invalid)?;
            let revision = revision.parse().map_err(|_| invalid())?;
            Ok(Tagged::Definition(key::definition(family, revision)))
        }
        _ => Err(invalid()),
    }
}
