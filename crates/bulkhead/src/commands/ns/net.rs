//! `ns --net`: network namespaces with their links, and which ends belong together.

use std::fmt::Write as _;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use bulkhead_network::named;
use bulkhead_network::view::{self, Link};
use serde::Serialize;

use super::survey::Known;
use crate::failure::Failure;
use crate::terminal::printable;

/// A namespace with links, under whatever names it has.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Namespace {
    pub inode: u64,
    /// The one that this was asked in.
    pub host: bool,
    pub containers: Vec<String>,
    /// What `ip netns` calls it.
    pub names: Vec<String>,
    pub links: Vec<Shown>,
    /// Published ports of its containers: `0.0.0.0:8080 → 80/tcp`.
    pub ports: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    pub index: u32,
    pub name: String,
    pub kind: Option<String>,
    pub up: bool,
    pub addresses: Vec<String>,
    /// The bridge that it is a port of.
    pub bridge: Option<String>,
    /// The other end of a veth.
    pub peer: Option<Peer>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    pub link: String,
    /// The namespace that it is in.
    pub inode: u64,
}

/// A namespace that was looked at, and how to look again.
struct Found {
    namespace: Namespace,
    links: Vec<Link>,
    netns: OwnedFd,
}

/// Looks at the namespaces of this program, of the containers, and of `ip netns`.
pub fn survey(known: &[Known], ports: &[(String, Vec<String>)]) -> Result<Vec<Namespace>, Failure> {
    let mut all: Vec<Found> = Vec::new();
    let own = open("/proc/self/ns/net")?;
    add(&mut all, own, |namespace| namespace.host = true)?;
    for (name, _, pid) in known {
        // one that has ended since has none
        if let Ok(netns) = open(&format!("/proc/{pid}/ns/net")) {
            let own = ports.iter().find(|(container, _)| container == name);
            add(&mut all, netns, |namespace| {
                namespace.containers.push(name.clone());
                namespace.ports.extend(own.into_iter().flat_map(|(_, ports)| ports.clone()));
            })?;
        }
    }
    for (name, _) in named::list().map_err(|cause| Failure::new(cause.to_string()))? {
        if let Ok(netns) = named::open(&name) {
            add(&mut all, netns, |namespace| namespace.names.push(name.clone()))?;
        }
    }
    let shown: Vec<Vec<Shown>> = all.iter().map(|one| shown(one, &all)).collect();
    let with_links = |(found, links): (Found, Vec<Shown>)| Namespace { links, ..found.namespace };
    Ok(all.into_iter().zip(shown).map(with_links).collect())
}

fn open(path: &str) -> Result<OwnedFd, Failure> {
    let opened = File::open(path).map(OwnedFd::from);
    opened.map_err(|cause| Failure::new(format!("cannot open {path}: {cause}")))
}

/// Adds a name to the namespace, which is looked at once.
fn add(
    all: &mut Vec<Found>,
    netns: OwnedFd,
    name: impl FnOnce(&mut Namespace),
) -> Result<(), Failure> {
    let (inode, links) =
        view::links_of(netns.as_fd()).map_err(|cause| Failure::new(cause.to_string()))?;
    if let Some(known) = all.iter_mut().find(|known| known.namespace.inode == inode) {
        name(&mut known.namespace);
        return Ok(());
    }
    let mut namespace = Namespace { inode, ..Namespace::default() };
    name(&mut namespace);
    all.push(Found { namespace, links, netns });
    Ok(())
}

fn shown(own: &Found, all: &[Found]) -> Vec<Shown> {
    let link = |link: &Link| {
        let bridge = link.controller.and_then(|index| {
            own.links.iter().find(|other| other.index == index).map(|bridge| bridge.name.clone())
        });
        Shown {
            index: link.index,
            name: link.name.clone(),
            kind: link.kind.clone(),
            up: link.up,
            addresses: link.addresses.clone(),
            bridge,
            peer: peer(own, link, all),
        }
    };
    own.links.iter().map(link).collect()
}

/// The other end points back. Indexes are told apart by the number that this namespace knows the other by.
fn peer(own: &Found, link: &Link, all: &[Found]) -> Option<Peer> {
    if link.kind.as_deref() != Some("veth") {
        return None;
    }
    let index = link.peer?;
    let is_end = |end: &&Link| {
        end.index == index && end.peer == Some(link.index) && end.kind.as_deref() == Some("veth")
    };
    let found = |found: &Found| {
        let end = found.links.iter().find(is_end)?;
        Some(Peer { link: end.name.clone(), inode: found.namespace.inode })
    };
    match link.peer_namespace {
        None => found(own),
        Some(number) => all
            .iter()
            .filter(|other| other.namespace.inode != own.namespace.inode)
            .filter(|other| other.links.iter().any(|end| is_end(&end)))
            .find(|other| view::number_of(own.netns.as_fd(), other.netns.as_fd()) == Some(number))
            .and_then(found),
    }
}

/// Containers and the host first, bridges with their ports below them, then other links.
pub fn text(namespaces: &[Namespace]) -> String {
    let title = |inode: u64| {
        let found = namespaces.iter().find(|namespace| namespace.inode == inode);
        found.map_or_else(|| inode.to_string(), heading)
    };
    let mut text = String::new();
    for namespace in namespaces {
        if !text.is_empty() {
            text.push('\n');
        }
        let _ = writeln!(text, "{} (net {})", heading(namespace), namespace.inode);
        let free = namespace.links.iter().filter(|link| link.bridge.is_none());
        for link in free {
            draw(&mut text, "  ", link, &title);
            let ports =
                namespace.links.iter().filter(|port| port.bridge.as_ref() == Some(&link.name));
            let ports: Vec<&Shown> = ports.collect();
            for (at, port) in ports.iter().enumerate() {
                let branch = if at + 1 == ports.len() { "  └── " } else { "  ├── " };
                draw(&mut text, branch, port, &title);
            }
        }
        for port in &namespace.ports {
            let _ = writeln!(text, "  port {}", printable(port));
        }
    }
    text
}

fn heading(namespace: &Namespace) -> String {
    let mut words = Vec::new();
    if namespace.host {
        words.push("host".to_owned());
    }
    words.extend(namespace.containers.iter().cloned());
    words.extend(namespace.names.iter().map(|name| format!("netns {name}")));
    match words.is_empty() {
        true => "no name".to_owned(),
        false => printable(&words.join(", ")),
    }
}

fn draw(text: &mut String, lead: &str, link: &Shown, title: &impl Fn(u64) -> String) {
    let mut line = format!("{lead}{}", printable(&link.name));
    if let Some(kind) = &link.kind {
        let _ = write!(line, "  {kind}");
    }
    if !link.up {
        line.push_str("  down");
    }
    if !link.addresses.is_empty() {
        let _ = write!(line, "  {}", link.addresses.join(", "));
    }
    if let Some(peer) = &link.peer {
        let _ = write!(line, "  ── {} in {}", printable(&peer.link), title(peer.inode));
    }
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bridges_have_their_ports_below_them() {
        let link = |index, name: &str, kind: &str| Shown {
            index,
            name: name.to_owned(),
            kind: Some(kind.to_owned()).filter(|kind| !kind.is_empty()),
            up: true,
            ..Shown::default()
        };
        let end = |name: &str, inode| Some(Peer { link: name.to_owned(), inode });
        let port = |index, name: &str, peer| Shown {
            bridge: Some("br0".to_owned()),
            peer,
            ..link(index, name, "veth")
        };
        let namespaces = [
            Namespace {
                inode: 1,
                host: true,
                links: vec![
                    link(1, "lo", ""),
                    Shown { addresses: vec!["10.0.0.1/16".to_owned()], ..link(2, "br0", "bridge") },
                    port(3, "veth1", end("eth0", 2)),
                    port(4, "veth2", end("eth0", 3)),
                ],
                ..Namespace::default()
            },
            Namespace {
                inode: 2,
                containers: vec!["web".to_owned()],
                links: vec![Shown {
                    addresses: vec!["10.0.0.2/16".to_owned()],
                    peer: end("veth1", 1),
                    ..link(2, "eth0", "veth")
                }],
                ports: vec!["0.0.0.0:8080 → 80/tcp".to_owned()],
                ..Namespace::default()
            },
            Namespace {
                inode: 3,
                names: vec!["blue".to_owned()],
                links: vec![Shown { up: false, ..link(1, "lo", "") }],
                ..Namespace::default()
            },
        ];
        insta::assert_snapshot!(text(&namespaces), @r"
        host (net 1)
          lo
          br0  bridge  10.0.0.1/16
          ├── veth1  veth  ── eth0 in web
          └── veth2  veth  ── eth0 in netns blue

        web (net 2)
          eth0  veth  10.0.0.2/16  ── veth1 in host
          port 0.0.0.0:8080 → 80/tcp

        netns blue (net 3)
          lo  down
        ");
    }
}
