//! Circles of imports: files of one crate that need each other cannot be read, tested or moved one
//! after the other.
//!
//! A file is a module. One that names another by a path (`use crate::a::B`, `super::a::b()`) needs
//! it; a module and those below it belong together and make no circle between themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Result, ensure};

use crate::setup;

pub fn check() -> Result<()> {
    let (mut found, mut members) = (Vec::new(), 0);
    let crates = std::fs::read_dir(setup::root().join("crates"))?;
    let mut sources: Vec<_> = crates.flatten().map(|entry| entry.path().join("src")).collect();
    sources.extend(["xtask", "tests"].map(|name| setup::root().join(name).join("src")));
    sources.sort();
    for source in sources {
        let name = source.parent().and_then(Path::file_name).unwrap_or_default();
        let files = Files::read(&source)?;
        for circle in files.circles() {
            members += circle.len();
            found.push(format!("{}: {}", name.to_string_lossy(), circle.join(" ⇄ ")));
        }
    }
    for circle in &found {
        println!("circle {circle}");
    }
    println!("{} circles of imports, {members} files in them", found.len());
    ensure!(found.is_empty(), "files of one crate import each other in circles: see above");
    Ok(())
}

/// The modules of one crate by path (`a::b`), each with its text; the root's path is empty.
struct Files(BTreeMap<Vec<String>, String>);

impl Files {
    fn read(source: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        let mut waiting = vec![(source.to_owned(), Vec::new())];
        while let Some((directory, module)) = waiting.pop() {
            for entry in std::fs::read_dir(&directory)? {
                let path = entry?.path();
                let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                let mut own = module.clone();
                if stem == "tests" || (module.is_empty() && stem == "bin") {
                    continue;
                }
                if !(module.is_empty() && ["lib", "main"].contains(&stem.as_str())) {
                    own.push(stem);
                }
                if path.is_dir() {
                    waiting.push((path, own));
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    files.insert(own, std::fs::read_to_string(&path)?);
                }
            }
        }
        Ok(Self(files))
    }

    /// Each group of files of which any needs any other, if only by way of a third.
    fn circles(&self) -> Vec<Vec<String>> {
        let made = self.made();
        let needs: BTreeMap<&Vec<String>, BTreeSet<&Vec<String>>> = self
            .0
            .iter()
            .map(|(module, text)| (module, self.needed(module, text, &made)))
            .collect();
        let reached = |from: &Vec<String>| {
            let (mut seen, mut waiting) = (BTreeSet::new(), vec![from.clone()]);
            while let Some(module) = waiting.pop() {
                for next in &needs[&module] {
                    if seen.insert((*next).clone()) {
                        waiting.push((*next).clone());
                    }
                }
            }
            seen
        };
        let reach: BTreeMap<_, _> = self.0.keys().map(|module| (module, reached(module))).collect();
        let mut circles = BTreeSet::new();
        for module in self.0.keys() {
            let circle: Vec<String> = reach[module]
                .iter()
                .filter(|other| reach[other].contains(module))
                .map(|module| module.join("::"))
                .collect();
            if circle.len() > 1 {
                circles.insert(circle);
            }
        }
        circles.into_iter().collect()
    }

    fn needed(&self, module: &[String], text: &str, made: &Made<'_>) -> BTreeSet<&Vec<String>> {
        let mut needed = BTreeSet::new();
        for path in paths(text) {
            let Some(path) = absolute(module, &path) else { continue };
            // the longest beginning that is a file
            let file = (0..=path.len()).rev().find_map(|end| self.0.get_key_value(&path[..end]));
            let Some((file, _)) = file else { continue };
            // what it passes on of those right below it
            let origin =
                path.get(file.len()).and_then(|name| made.get(&(&file[..], name.as_str())));
            let file =
                origin.and_then(|path| self.0.get_key_value(*path)).map_or(file, |(own, _)| own);
            if !file.starts_with(module) && !module.starts_with(file) {
                needed.insert(file);
            }
        }
        needed
    }

    /// The file that makes what the module above it may export under a name.
    fn made(&self) -> Made<'_> {
        let mut made = Made::new();
        for (path, text) in &self.0 {
            let Some((_, above)) = path.split_last() else { continue };
            for line in text.lines().filter(|line| line.starts_with("pub")) {
                let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
                if words.any(|word| KINDS.contains(&word))
                    && let Some(name) = words.next()
                {
                    made.entry((above, name)).or_insert(path);
                }
            }
        }
        made
    }
}

/// (module, name) → file
type Made<'a> = BTreeMap<(&'a [String], &'a str), &'a Vec<String>>;

/// What a file can make under a name.
const KINDS: [&str; 8] = ["struct", "enum", "trait", "fn", "type", "const", "static", "union"];

/// From the crate's root; `None` for what is another crate's.
fn absolute(module: &[String], path: &[String]) -> Option<Vec<String>> {
    let mut rest = path.iter();
    let mut full = match rest.next()?.as_str() {
        "crate" => Vec::new(),
        "self" => module.to_vec(),
        "super" => module.split_last()?.1.to_vec(),
        _ => return None,
    };
    for word in rest {
        match word.as_str() {
            "super" => {
                full.pop()?;
            }
            word => full.push(word.to_owned()),
        }
    }
    Some(full)
}

/// Every path in a file that begins at `crate`, `self` or `super`, with groups taken apart. What
/// stands in comments or behind the first `#[cfg(test)]` does not count.
fn paths(text: &str) -> Vec<Vec<String>> {
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    let code: Vec<&str> = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        // `pub(crate)` and the like name no module
        .collect();
    let code = code.join("\n");
    let mut words = Words { rest: &code };
    let mut paths = Vec::new();
    let mut before = "";
    while let Some(word) = words.next() {
        if ["crate", "self", "super"].contains(&word)
            && before != "::"
            && words.peek() == Some("::")
        {
            words.path(vec![word.to_owned()], &mut paths);
        }
        before = word;
    }
    paths
}

/// Names, `::`, and single characters.
struct Words<'a> {
    rest: &'a str,
}

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let text = self.rest.trim_start();
        let name = |c: char| c.is_alphanumeric() || c == '_';
        let length = match text.chars().next()? {
            c if name(c) => text.find(|c: char| !name(c)).unwrap_or(text.len()),
            ':' if text.starts_with("::") => 2,
            c => c.len_utf8(),
        };
        let (word, rest) = text.split_at(length);
        self.rest = rest;
        Some(word)
    }

    fn peek(&self) -> Option<&'a str> {
        Words { rest: self.rest }.next()
    }

    /// Reads on from `start`, which a `::` follows.
    fn path(&mut self, start: Vec<String>, paths: &mut Vec<Vec<String>>) {
        let mut path = start;
        while self.peek() == Some("::") {
            self.next();
            match self.next() {
                Some("{") => return self.group(&path, paths),
                Some(word) if word.chars().all(|c| c.is_alphanumeric() || c == '_') => {
                    path.push(word.to_owned());
                }
                _ => break,
            }
        }
        paths.push(path);
    }

    fn group(&mut self, start: &[String], paths: &mut Vec<Vec<String>>) {
        while let Some(word) = self.next() {
            match word {
                "}" => return,
                "," | "*" => {}
                "as" => {
                    self.next();
                }
                word => self.path([start, &[word.to_owned()]].concat(), paths),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(texts: &[(&str, &str)]) -> Files {
        let module = |path: &str| path.split("::").map(str::to_owned).collect();
        Files(texts.iter().map(|(path, text)| (module(path), (*text).to_owned())).collect())
    }

    #[test]
    fn groups_and_renames_are_taken_apart() {
        let found =
            paths("use crate::{a::{B, c::D as E}, f};\nfn x() { super::g::h() } // crate::i::J");
        let found: Vec<String> = found.iter().map(|path| path.join("::")).collect();
        assert_eq!(found, ["crate::a::B", "crate::a::c::D", "crate::f", "super::g::h"]);
    }

    #[test]
    fn a_circle_by_way_of_a_third() {
        let files = files(&[
            ("a", "use crate::b::B;"),
            ("b", "use super::c::{C, D};"),
            ("c", "fn x() { crate::a::y() }"),
            ("d", "use crate::a::A;"),
        ]);
        assert_eq!(files.circles(), [["a", "b", "c"]]);
    }

    #[test]
    fn a_module_and_its_own_make_none() {
        let files = files(&[("a", "use self::b::B;"), ("a::b", "use super::A; use crate::a::C;")]);
        assert!(files.circles().is_empty());
    }

    #[test]
    fn what_a_module_passes_on_is_where_it_was_made() {
        let files = files(&[
            ("a", "pub use b::*; pub use c::D;"),
            ("a::b", "use super::D;\npub(crate) struct B;"),
            ("a::c", "use crate::a::B;\npub enum D {}"),
        ]);
        assert_eq!(files.circles(), [["a::b", "a::c"]]);
    }

    #[test]
    fn what_tests_import_does_not_count() {
        let files =
            files(&[("a", "use crate::b::B;"), ("b", "#[cfg(test)]\nmod t { use crate::a::A; }")]);
        assert!(files.circles().is_empty());
    }
}
