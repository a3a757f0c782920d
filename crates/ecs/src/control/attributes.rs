use super::{Control, Setback, attempt};
use crate::attribute::{self, Attribute};
use crate::error::{Code, Error};
use crate::page::{self, Order, Page};

/// Whether attributes are put on instances or taken from them.
enum Edit {
    Put,
    Delete,
}

impl Control {
    /// Puts custom attributes on container instances.
    ///
    /// # Errors
    /// `TargetNotFoundException` where an instance is not there.
    pub fn put_attributes(
        &self,
        cluster: Option<&str>,
        attributes: &[Attribute],
    ) -> Result<Vec<Attribute>, Error> {
        self.edit_attributes(cluster, attributes, Edit::Put)
    }

    pub fn delete_attributes(
        &self,
        cluster: Option<&str>,
        attributes: &[Attribute],
    ) -> Result<Vec<Attribute>, Error> {
        self.edit_attributes(cluster, attributes, Edit::Delete)
    }

    /// Attributes of the instances of a cluster, each with its instance as target.
    pub fn list_attributes(
        &self,
        cluster: Option<&str>,
        name: Option<&str>,
        value: Option<&str>,
        next_token: Option<&str>,
        maximum: Option<i64>,
    ) -> Result<Page<Attribute>, Error> {
        let cluster = self.active_cluster(cluster)?.value.cluster_name;
        let mut found = Vec::new();
        for (_, node) in self.nodes(&cluster)? {
            for own in &node.instance.attributes {
                let named = name.is_none_or(|name| own.name == name);
                if named && value.is_none_or(|value| own.value.as_deref() == Some(value)) {
                    found.push(Attribute {
                        target_id: Some(node.instance.container_instance_arn.to_string()),
                        target_type: None,
                        ..own.clone()
                    });
                }
            }
        }
        let key = |one: &Attribute| {
            format!("{}\n{}", one.target_id.as_deref().unwrap_or_default(), one.name)
        };
        found.sort_by_key(key);
        page::cut(found, key, Order::Ascending, next_token, maximum)
    }

    fn edit_attributes(
        &self,
        cluster: Option<&str>,
        attributes: &[Attribute],
        edit: Edit,
    ) -> Result<Vec<Attribute>, Error> {
        if attributes.is_empty() || attributes.len() > 10 {
            return Err(Error::invalid("Give between 1 and 10 attributes."));
        }
        let cluster = self.active_cluster(cluster)?.value.cluster_name;
        let mut done = Vec::new();
        for attribute in attributes {
            attribute::check(attribute)?;
            let target = attribute.target_id.as_deref().unwrap_or_default();
            let missing =
                || Error::new(Code::TargetNotFound, format!("The target {target} was not found."));
            let instance = attempt(|| {
                let mut record = self.find_instance(&cluster, target)?.ok_or_else(missing)?;
                let own = &mut record.value.attributes;
                own.retain(|old| old.name != attribute.name);
                if let Edit::Put = edit {
                    // the target type marks it as a user's, so that a new registration leaves it
                    let target_type = Some("container-instance".into());
                    own.push(Attribute { target_type, target_id: None, ..attribute.clone() });
                }
                record.value.version += 1;
                self.store.commit(&[record.unchanged()], &[record.put()])?;
                Ok::<_, Setback>(record.value)
            })?;
            done.push(Attribute {
                target_id: Some(instance.container_instance_arn.to_string()),
                target_type: Some("container-instance".into()),
                ..attribute.clone()
            });
            self.publish_instance(instance);
        }
        Ok(done)
    }
}
