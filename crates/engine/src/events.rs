//! What happened: a ring of the last 256 for those who ask late, a channel for those who watch.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use bulkhead_types::{Id, Timestamp};
use tokio::sync::broadcast;

use crate::{Container, Event, Network, NetworkDriver};

const RING: usize = 256;

#[derive(Debug)]
pub(crate) struct Events {
    ring: Mutex<VecDeque<Event>>,
    sender: broadcast::Sender<Event>,
}

impl Default for Events {
    fn default() -> Self {
        Self { ring: Mutex::default(), sender: broadcast::Sender::new(1024) }
    }
}

impl Events {
    /// An event of a container, with what Docker says of it: labels, image, name.
    pub(crate) fn container(&self, container: &Container, action: &str, more: &[(&str, String)]) {
        let labels = container.config.labels.clone().into_iter();
        let own = [
            ("image".to_owned(), container.image.clone()),
            ("name".to_owned(), container.name.to_string()),
        ];
        let more = more.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
        self.publish("container", action, container.id, labels.chain(own).chain(more));
    }

    /// An event of an image, which is told by id or by name.
    pub(crate) fn image(&self, action: &str, image: impl ToString, name: Option<&str>) {
        let name = name.map(|name| ("name".to_owned(), name.to_owned()));
        self.publish("image", action, image, name);
    }

    /// The daemon has read its configuration anew.
    pub(crate) fn reloaded(&self, engine: Id, name: &str, more: BTreeMap<String, String>) {
        let own = ("name".to_owned(), name.to_owned());
        self.publish("daemon", "reload", engine, more.into_iter().chain([own]));
    }

    pub(crate) fn volume(&self, name: &str, action: &str) {
        self.publish("volume", action, name, [("driver".to_owned(), "local".to_owned())]);
    }

    /// `create`, `destroy`, and `connect` and `disconnect` of a container.
    pub(crate) fn network(&self, network: &Network, action: &str, container: Option<Id>) {
        let driver = network.driver();
        self.network_named(network.id, &network.name, driver, action, container);
    }

    /// `connect` or `disconnect` of each network that a container is on.
    pub(crate) fn networks_of(&self, container: &Container, action: &str) {
        for attachment in &container.network.attachments {
            let name = &attachment.network_name;
            let driver = attachment.driver;
            self.network_named(attachment.network, name, driver, action, Some(container.id));
        }
    }

    fn network_named(
        &self,
        id: Id,
        name: &str,
        driver: NetworkDriver,
        action: &str,
        container: Option<Id>,
    ) {
        let kind = driver.name().to_owned();
        let own = [("name".to_owned(), name.to_owned()), ("type".to_owned(), kind)];
        let container = container.map(|id| ("container".to_owned(), id.to_string()));
        self.publish("network", action, id, own.into_iter().chain(container));
    }

    /// `mount` or `unmount` of each volume of a container (moby: volume/mounts, `LogVolumeEvent`).
    pub(crate) fn volumes_of(&self, container: &Container, action: &str) {
        for mount in &container.mounts {
            let Some(name) = &mount.name else { continue };
            let mut attributes = vec![
                ("driver".to_owned(), "local".to_owned()),
                ("container".to_owned(), container.id.to_string()),
            ];
            if action == "mount" {
                attributes.push(("destination".to_owned(), mount.target.clone()));
                attributes.push(("read/write".to_owned(), (!mount.readonly).to_string()));
            }
            self.publish("volume", action, name, attributes);
        }
    }

    fn publish(
        &self,
        kind: &str,
        action: &str,
        actor: impl ToString,
        attributes: impl IntoIterator<Item = (String, String)>,
    ) {
        self.send(Event {
            kind: kind.to_owned(),
            action: action.to_owned(),
            actor: actor.to_string(),
            attributes: attributes.into_iter().collect::<BTreeMap<_, _>>(),
            at: Timestamp::now(),
        });
    }

    fn send(&self, event: Event) {
        // Sent while the ring is locked, so that a subscriber sees each event exactly once.
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.len() == RING {
            ring.pop_front();
        }
        ring.push_back(event.clone());
        let _ = self.sender.send(event);
    }

    pub(crate) fn subscribe(
        &self,
        since: Option<Timestamp>,
    ) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let past = match since {
            Some(since) => ring.iter().filter(|event| event.at >= since).cloned().collect(),
            None => Vec::new(),
        };
        (past, self.sender.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_subscribers_get_the_last_256() {
        let events = Events::default();
        for number in 0..300 {
            events.send(Event {
                kind: "container".into(),
                action: number.to_string(),
                actor: String::new(),
                attributes: BTreeMap::new(),
                at: Timestamp::from_second(number).unwrap(),
            });
        }
        let (past, mut coming) = events.subscribe(Some(Timestamp::from_second(290).unwrap()));
        assert_eq!(past.len(), 10);
        assert_eq!(events.subscribe(Some(Timestamp::UNIX_EPOCH)).0.len(), RING);
        assert!(events.subscribe(None).0.is_empty());
        assert!(coming.try_recv().is_err(), "the past is not sent again");
    }
}
