//! A network namespace on one page.

use std::fmt::Write as _;

use bulkhead_network::view::{Chain, Link, View};
use serde_json::{Value, json};

use crate::table;

pub fn text(name: &str, view: &View) -> String {
    let named = |index: u32| {
        let found = view.links.iter().find(|link| link.index == index);
        found.map_or_else(|| format!("#{index}"), |link| link.name.clone())
    };
    let mut page = format!("NETWORK NAMESPACE {name}\n");
    let links = view.links.iter().map(|link| {
        let state = if link.up { "up" } else { "down" };
        [
            link.name.clone(),
            state.to_owned(),
            link.addresses.join(", "),
            link.mac.clone().unwrap_or_default(),
            link.mtu.map(|mtu| mtu.to_string()).unwrap_or_default(),
            belongs(link, &named),
        ]
    });
    section(&mut page, "LINK\tSTATE\tADDRESSES\tHARDWARE\tMTU\tKIND", links);
    let routes = view.routes.iter().map(|route| {
        [
            route.to.clone(),
            route.gateway.map(|gateway| gateway.to_string()).unwrap_or_default(),
            route.link.map(named).unwrap_or_default(),
            route.metric.map(|metric| metric.to_string()).unwrap_or_default(),
        ]
    });
    section(&mut page, "ROUTE\tGATEWAY\tLINK\tMETRIC", routes);
    let neighbours = view.neighbours.iter().map(|neighbour| {
        [
            neighbour.address.to_string(),
            neighbour.mac.clone().unwrap_or_default(),
            named(neighbour.link),
            neighbour.state.clone(),
        ]
    });
    section(&mut page, "NEIGHBOUR\tHARDWARE\tLINK\tSTATE", neighbours);
    let sockets = view.sockets.iter().map(|socket| {
        [
            socket.protocol.to_owned(),
            socket.local.clone(),
            socket.remote.clone(),
            socket.state.to_owned(),
            socket.uid.to_string(),
        ]
    });
    section(&mut page, "SOCKET\tLOCAL\tREMOTE\tSTATE\tUID", sockets);
    page.push_str("\nFIREWALL\n");
    if view.chains.is_empty() {
        page.push_str("no rules\n");
    }
    for chain in &view.chains {
        let _ = writeln!(page, "{}", heading(chain));
        for rule in &chain.rules {
            let _ = writeln!(page, "  {rule}");
        }
    }
    page.lines().map(|line| crate::terminal::printable(line) + "\n").collect()
}

fn belongs(link: &Link, named: &impl Fn(u32) -> String) -> String {
    let kind = link.kind.clone().unwrap_or_default();
    match (link.controller, link.peer) {
        (Some(bridge), _) => format!("{kind} on {}", named(bridge)),
        (None, Some(peer)) if link.peer_namespace.is_some() => {
            format!("{kind}, its other end is #{peer} of another namespace")
        }
        (None, Some(peer)) => format!("{kind} with {}", named(peer)),
        (None, None) => kind,
    }
}

fn heading(chain: &Chain) -> String {
    let own = format!("{} {} {}", chain.family, chain.table, chain.name);
    match &chain.hook {
        None => own,
        Some(hook) => {
            let policy = if hook.accepts { "accept" } else { "drop" };
            format!("{own}: {} {} {}, policy {policy}", hook.kind, hook.place, hook.priority)
        }
    }
}

fn section<const N: usize>(
    page: &mut String,
    titles: &str,
    rows: impl Iterator<Item = [String; N]>,
) {
    let mut text = titles.to_owned();
    for row in rows {
        text.push('\n');
        text.push_str(&row.join("\t"));
    }
    let shown = table::align(&text, table::LIST);
    page.push('\n');
    shown.lines().for_each(|line| {
        let _ = writeln!(page, "{}", line.trim_end());
    });
}

pub fn json(name: &str, view: &View) -> Value {
    json!({
        "name": name,
        "links": view.links.iter().map(link).collect::<Vec<_>>(),
        "routes": view.routes.iter().map(|route| json!({
            "to": route.to, "gateway": route.gateway, "link": route.link, "metric": route.metric,
        })).collect::<Vec<_>>(),
        "neighbours": view.neighbours.iter().map(|neighbour| json!({
            "address": neighbour.address, "mac": neighbour.mac, "link": neighbour.link, "state": neighbour.state,
        })).collect::<Vec<_>>(),
        "sockets": view.sockets.iter().map(|socket| json!({
            "protocol": socket.protocol, "local": socket.local, "remote": socket.remote,
            "state": socket.state, "uid": socket.uid,
        })).collect::<Vec<_>>(),
        "firewall": view.chains.iter().map(|chain| json!({
            "family": chain.family, "table": chain.table, "chain": chain.name, "rules": chain.rules,
            "hook": chain.hook.as_ref().map(|hook| json!({
                "type": hook.kind, "hook": hook.place, "priority": hook.priority,
                "policy": if hook.accepts { "accept" } else { "drop" },
            })),
        })).collect::<Vec<_>>(),
    })
}

fn link(link: &Link) -> Value {
    json!({
        "index": link.index, "name": link.name, "kind": link.kind, "up": link.up, "mtu": link.mtu,
        "mac": link.mac, "addresses": link.addresses, "controller": link.controller,
        "peer": link.peer, "peerNamespace": link.peer_namespace,
    })
}
