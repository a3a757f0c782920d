//! Whose log it is, as the records say it.

use std::collections::BTreeMap;

use bulkhead_types::Timestamp;
use regex_lite::Regex;
use serde::{Deserialize, Serialize};

use crate::container::Container;
use crate::options::OptionError;
use crate::tag;

/// What every record of a log says of its container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    pub id: String,
    pub name: String,
    pub image_id: String,
    pub image_name: String,
    pub command: String,
    pub created: Timestamp,
    pub hostname: String,
    pub tag: String,
    /// Labels and variables that were chosen, by their own names.
    pub attributes: BTreeMap<String, String>,
}

impl Origin {
    /// The first twelve digits of the id.
    pub(crate) fn short_id(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }
}

/// `tag`, and which labels and variables go along: `labels`, `labels-regex`, `env`, `env-regex` (moby:
/// daemon/logger/loginfo.go, `ExtraAttributes`).
#[derive(Debug, Clone, Default)]
pub struct Selection {
    tag: Option<String>,
    labels: Vec<String>,
    labels_regex: Option<Regex>,
    env: Vec<String>,
    env_regex: Option<Regex>,
}

impl Selection {
    /// The options that this reads.
    pub const NAMES: [&str; 5] = ["tag", "labels", "labels-regex", "env", "env-regex"];

    /// # Errors
    /// A template or a regular expression that is none.
    pub fn parse(given: &BTreeMap<String, String>) -> Result<Self, OptionError> {
        let value =
            |name: &str| given.get(name).map(String::as_str).filter(|text| !text.is_empty());
        let list = |name: &str| {
            let names = value(name).unwrap_or_default().split(',');
            names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
        };
        let regex = |name: &str| {
            let regex = value(name).map(Regex::new).transpose();
            regex.map_err(|error| OptionError::Invalid(format!("log opt '{name}': {error}")))
        };
        let selection = Self {
            tag: value("tag").map(str::to_owned),
            labels: list("labels"),
            labels_regex: regex("labels-regex")?,
            env: list("env"),
            env_regex: regex("env-regex")?,
        };
        // A template that is wrong is so for every container.
        selection.origin(&sample()).map_err(OptionError::Invalid)?;
        Ok(selection)
    }

    /// # Errors
    /// A sentence: a tag that cannot be made for this container.
    pub fn origin(&self, container: &Container) -> Result<Origin, String> {
        Ok(Origin {
            id: container.id.clone(),
            name: container.name.clone(),
            image_id: container.image_id.clone(),
            image_name: container.image_name.clone(),
            command: container.command.join(" "),
            created: container.created,
            hostname: container.hostname.clone(),
            tag: tag::render(self.tag.as_deref().unwrap_or(tag::DEFAULT), container)?,
            attributes: self.attributes(container),
        })
    }

    /// The labels and variables that were chosen.
    pub fn attributes(&self, container: &Container) -> BTreeMap<String, String> {
        let chosen = |names: &[String], regex: &Option<Regex>, name: &str| {
            names.iter().any(|own| own == name)
                || regex.as_ref().is_some_and(|regex| regex.is_match(name))
        };
        let labels = container.labels.iter();
        let labels = labels.filter(|(name, _)| chosen(&self.labels, &self.labels_regex, name));
        let env = container.env.iter().filter_map(|pair| pair.split_once('='));
        let env = env.filter(|(name, _)| chosen(&self.env, &self.env_regex, name));
        let labels = labels.map(|(name, value)| (name.clone(), value.clone()));
        labels.chain(env.map(|(name, value)| (name.to_owned(), value.to_owned()))).collect()
    }

    /// The tag for a container, where one was asked for.
    pub fn tag(&self, container: &Container) -> Option<String> {
        tag::render(self.tag.as_deref()?, container).ok()
    }
}

/// Equal by what was asked for.
impl PartialEq for Selection {
    fn eq(&self, other: &Self) -> bool {
        let regex = |regex: &Option<Regex>| regex.as_ref().map(|regex| regex.as_str().to_owned());
        self.tag == other.tag
            && self.labels == other.labels
            && self.env == other.env
            && regex(&self.labels_regex) == regex(&other.labels_regex)
            && regex(&self.env_regex) == regex(&other.env_regex)
    }
}

impl Eq for Selection {}

fn sample() -> Container {
    Container {
        id: "0".repeat(64),
        name: "name".to_owned(),
        image_id: format!("sha256:{}", "0".repeat(64)),
        image_name: "image".to_owned(),
        command: vec!["program".to_owned()],
        created: Timestamp::UNIX_EPOCH,
        hostname: "host".to_owned(),
        env: Vec::new(),
        labels: BTreeMap::new(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn origin() -> Origin {
        let selection = [("tag", "{{.Name}}/{{.ID}}"), ("labels", "own"), ("env-regex", "^A")];
        let selection = selection.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let container = Container {
            id: "abcdef0123456789".repeat(4),
            name: "web".to_owned(),
            env: ["A1=x".to_owned(), "B=y".to_owned()].to_vec(),
            labels: [("own", "1"), ("other", "2")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            ..sample()
        };
        Selection::parse(&selection.into()).unwrap().origin(&container).unwrap()
    }

    #[test]
    fn what_was_chosen_goes_along() {
        let origin = origin();
        assert_eq!(origin.tag, "web/abcdef012345");
        let attributes: Vec<_> = origin.attributes.iter().collect();
        assert_eq!(format!("{attributes:?}"), r#"[("A1", "x"), ("own", "1")]"#);
    }
}
