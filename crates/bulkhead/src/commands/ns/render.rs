//! The picture as text, for terminals of 80 columns and more.

use std::fmt::Write;

use super::picture::{Container, KINDS, Mapping, Picture, PidNamespace, Source, UserNamespace};

/// The table of containers, the two trees, and what could not be seen.
pub fn text(picture: &Picture) -> String {
    let mut text = String::new();
    if !picture.containers.is_empty() {
        table(&picture.containers, &mut text);
        text.push('\n');
    }
    text.push_str("PID NAMESPACES\n");
    let ids = |namespace: &PidNamespace| (namespace.inode, namespace.parent);
    tree(&picture.pid_namespaces, &ids, &|namespace| pid_lines(picture, namespace), &mut text);
    text.push_str("\nUSER NAMESPACES\n");
    let ids = |namespace: &UserNamespace| (namespace.inode, namespace.parent);
    tree(&picture.user_namespaces, &ids, &|namespace| user_lines(picture, namespace), &mut text);
    if !picture.notes.is_empty() {
        text.push('\n');
    }
    for note in &picture.notes {
        wrap(&format!("Note: {note}"), &mut text);
    }
    text
}

fn wrap(line: &str, text: &mut String) {
    const WIDTH: usize = 80;
    let mut used = 0;
    for word in line.split(' ') {
        let length = word.chars().count();
        match used {
            0 => {}
            used if used + 1 + length > WIDTH => {
                text.push_str("\n  ");
            }
            _ => text.push(' '),
        }
        let begun = text.rfind('\n').map_or(0, |at| at + 1);
        text.push_str(word);
        used = text[begun..].chars().count();
    }
    text.push('\n');
}

type Ids<'a, T> = &'a dyn Fn(&T) -> (u64, Option<u64>);
type Lines<'a, T> = &'a dyn Fn(&T) -> Vec<String>;

/// Draws nodes below their parents; one whose parent is not among them is a root.
fn tree<T>(nodes: &[T], ids: Ids<'_, T>, lines: Lines<'_, T>, text: &mut String) {
    let known = |inode| nodes.iter().any(|node| ids(node).0 == inode);
    for root in nodes.iter().filter(|node| !ids(node).1.is_some_and(known)) {
        draw(nodes, root, ("", ""), ids, lines, text);
    }
}

fn draw<T>(
    nodes: &[T],
    node: &T,
    (first, rest): (&str, &str),
    ids: Ids<'_, T>,
    lines: Lines<'_, T>,
    text: &mut String,
) {
    let below: Vec<&T> = nodes.iter().filter(|child| ids(child).1 == Some(ids(node).0)).collect();
    for (index, line) in lines(node).iter().enumerate() {
        let lead = match (index, below.is_empty()) {
            (0, _) => first.to_owned(),
            (_, true) => format!("{rest}    "),
            (_, false) => format!("{rest}│   "),
        };
        let _ = writeln!(text, "{}", format!("{lead}{line}").trim_end());
    }
    for (index, child) in below.iter().enumerate() {
        let (branch, after) = if index + 1 == below.len() {
            ("└── ", "    ")
        } else {
            ("├── ", "│   ")
        };
        let (first, after) = (format!("{rest}{branch}"), format!("{rest}{after}"));
        draw(nodes, child, (&first, &after), ids, lines, text);
    }
}

fn pid_lines(picture: &Picture, it: &PidNamespace) -> Vec<String> {
    let parents: Vec<_> = picture
        .pid_namespaces
        .iter()
        .map(|namespace| (namespace.inode, namespace.parent))
        .collect();
    let mut head = heading(picture, "pid", it.inode, it.host, &parents);
    let _ = write!(head, ", {}", count(it.processes));
    let mut lines = vec![head];
    let mut detail = Vec::new();
    if let Some(first) = &it.first_process {
        let pids: Vec<String> = first.pids.iter().map(u32::to_string).collect();
        detail.push(format!("{} is {}", visible(&first.command), pids.join(" → ")));
    }
    if let Some(user) = it.user_namespace.filter(|_| !it.host) {
        detail.push(format!("owned by user namespace {user}"));
    }
    lines.extend((!detail.is_empty()).then(|| detail.join(", ")));
    lines
}

fn user_lines(picture: &Picture, it: &UserNamespace) -> Vec<String> {
    let parents: Vec<_> = picture
        .user_namespaces
        .iter()
        .map(|namespace| (namespace.inode, namespace.parent))
        .collect();
    let mut head = heading(picture, "user", it.inode, it.host, &parents);
    let _ = write!(head, ", {}", count(it.processes));
    if let Some(owner) = it.owner.filter(|_| !it.host) {
        let _ = write!(head, ", made by uid {owner}");
    }
    let mut lines = vec![head];
    if it.host {
        return lines;
    }
    if it.uid_mappings == it.gid_mappings {
        lines.extend(ranges("ids", &it.uid_mappings));
    } else {
        lines.extend(ranges("uids", &it.uid_mappings));
        lines.extend(ranges("gids", &it.gid_mappings));
    }
    lines
}

/// Whose it is: a container's, one that was made inside a container, or neither.
fn heading(
    picture: &Picture,
    kind: &str,
    inode: u64,
    host: bool,
    parents: &[(u64, Option<u64>)],
) -> String {
    if host {
        return format!("{inode}  the host's");
    }
    let of = |inode: u64| picture.members(kind, inode);
    let above =
        |inode: &u64| parents.iter().find(|(known, _)| known == inode).and_then(|(_, up)| *up);
    let own = of(inode);
    // a container that shares the host's has everything below it, which says nothing
    let is_host = |inode: &u64| {
        let memberships =
            picture.containers.iter().filter_map(|container| container.namespaces.get(kind));
        memberships.into_iter().any(|membership| membership.inode == *inode && membership.host)
    };
    let around = std::iter::successors(above(&inode), above)
        .filter(|inode| !is_host(inode))
        .map(of)
        .find(|members| !members.is_empty());
    match (own.as_slice(), around) {
        ([], None) => format!("{inode}  no container's"),
        ([], Some(members)) => format!("{inode}  inside {}", few(&members, 2)),
        (members, _) => format!("{inode}  {}", few(members, 3)),
    }
}

fn ranges(what: &str, mappings: &[Mapping]) -> Option<String> {
    let range = |first: u32, size: u32| match size {
        1 => first.to_string(),
        _ => format!("{first}-{}", u64::from(first) + u64::from(size) - 1),
    };
    let one = |mapping: &Mapping| {
        format!(
            "{} → {}",
            range(mapping.inside, mapping.size),
            range(mapping.outside, mapping.size)
        )
    };
    let shown: Vec<String> = mappings.iter().take(2).map(one).collect();
    let more = mappings.len().saturating_sub(shown.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    (!shown.is_empty()).then(|| format!("{what} {}{more}", shown.join(", ")))
}

fn table(containers: &[Container], text: &mut String) {
    let mut rows = vec![["CONTAINER", "FROM", "PID"].map(str::to_owned).to_vec()];
    rows[0].extend(KINDS.map(str::to_uppercase));
    for it in containers {
        let from = if it.source == Source::Engine { "engine" } else { "oci" };
        let mut row = vec![shorten(&it.name, 16), from.to_owned(), it.pid.to_string()];
        row.extend(KINDS.map(|kind| it.namespaces.get(kind).map_or_else(String::new, cell)));
        rows.push(row);
    }
    let columns = rows[0].len();
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}  "));
        let _ = writeln!(text, "{}", cells.collect::<String>().trim_end());
    }
}

fn cell(it: &super::picture::Membership) -> String {
    let others: Vec<&str> = it.shared_with.iter().map(String::as_str).collect();
    match (it.inode, it.host, others.as_slice(), &it.name) {
        (0, ..) => "?".to_owned(),
        (_, true, ..) => "host".to_owned(),
        (_, _, [], Some(name)) => format!("={}", shorten(name, 8)),
        (_, _, [], None) => "own".to_owned(),
        (_, _, [one], _) => format!("={}", shorten(one, 8)),
        (_, _, [one, more @ ..], _) => format!("={}+{}", shorten(one, 6), more.len()),
    }
}

fn few(names: &[&str], most: usize) -> String {
    let shown: Vec<String> = names.iter().take(most).map(|name| shorten(name, 24)).collect();
    match names.len().saturating_sub(most) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn count(processes: usize) -> String {
    match processes {
        0 => "no process seen".to_owned(),
        1 => "1 process".to_owned(),
        more => format!("{more} processes"),
    }
}

fn shorten(name: &str, longest: usize) -> String {
    let name = visible(name);
    if name.chars().count() <= longest {
        return name;
    }
    name.chars().take(longest - 1).chain(['…']).collect()
}

/// A process names itself as it likes; nothing of that may steer a terminal.
fn visible(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

#[cfg(test)]
mod tests;
