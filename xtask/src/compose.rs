//! Debian's Docker Compose 2.40 against Bulkhead: what its users see is what they see of Docker 28.5.
//!
//! Each directory of `compose/cases` is a project with a script that uses it as a person would. What
//! that shows is in its `expected.txt`, which `cargo xtask compose --record` has written with Debian's
//! own dockerd in the same kind of namespaces (`clients/enter.sh`). Only what differs from run to run
//! is taken out (`compose/normal.sed`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::setup;
use crate::shell::Shell;
use crate::tally::{Case, Outcome, Tally};

const PACKAGES: &[(&str, &str)] = &[("/usr/bin/mmdebstrap", "mmdebstrap")];

/// Where the engines, the clients and the scripts run.
const SYSTEM: &str = "base-files,bash,bsdutils,busybox-static,ca-certificates,containerd,coreutils,curl,\
    dash,diffutils,docker-cli,docker-compose,docker.io,findutils,grep,gzip,iproute2,iptables,jq,\
    libc-bin,mount,nftables,procps,runc,sed,tar,tini-static,util-linux";

/// The image of everything that services are made of.
const SERVICES: &str = "base-files,bash,bind9-dnsutils,busybox-static,coreutils,curl,dash,grep,iproute2,\
    libc-bin,nginx-light,postgresql,python3,redis-server,sed";

/// Cases that run at once: they mostly wait.
const JOBS: usize = 4;

/// Whose answers are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Engine {
    Bulkhead,
    Docker,
}

impl Engine {
    fn name(self) -> &'static str {
        match self {
            Self::Bulkhead => "bulkhead",
            Self::Docker => "docker",
        }
    }
}

/// What each case has shown, by its name.
type Transcripts = BTreeMap<String, String>;

/// `cargo xtask compose [--docker | --record] [CASE …]`.
pub fn run(words: &[&str]) -> Result<()> {
    setup::require_root()?;
    let (flags, names): (Vec<&str>, Vec<&str>) =
        words.iter().partition(|word| word.starts_with('-'));
    let (engine, record) = match flags.as_slice() {
        [] => (Engine::Bulkhead, false),
        ["--docker"] => (Engine::Docker, false),
        ["--record"] => (Engine::Docker, true),
        _ => bail!("use compose [--docker | --record] [CASE …]"),
    };
    let names = chosen(&names)?;
    setup::packages(PACKAGES)?;
    let root = unpack()?;
    let program = match engine {
        Engine::Bulkhead => setup::program("dev")?.join("bulkhead"),
        // it is put there and not run
        Engine::Docker => std::env::current_exe()?,
    };
    let shown = all_of(&root, &program, engine, &names)?;
    if record {
        for (name, text) in &shown {
            // what is left has only to do with all of them
            if name != AFTERWARDS {
                std::fs::write(cases().join(name).join("expected.txt"), text)?;
            } else if names.len() == chosen(&[])?.len() {
                std::fs::write(cases().join("expected.txt"), text)?;
            }
        }
        return Ok(());
    }
    let mut tally = Tally::default();
    tally.cases(judge(&shown, &names), &mut |_| Vec::new());
    tally.finish()
}

/// The part of the tests.
pub fn test(tally: &mut Tally, bin: &Path) {
    let mut root = PathBuf::new();
    tally.check("compose: unpack Debian's docker-compose and the services' programs", || {
        setup::packages(PACKAGES)?;
        root = unpack()?;
        Ok(())
    });
    if !root.exists() {
        return;
    }
    let started = Instant::now();
    let cases = |names: &[String]| {
        let shown = all_of(&root, &bin.join("bulkhead"), Engine::Bulkhead, names);
        shown.map_or_else(
            |cause| vec![Case::new("compose: run", Outcome::Failed(format!("{cause:#}")))],
            |shown| judge(&shown, names),
        )
    };
    let all = match chosen(&[]) {
        Ok(all) => all,
        Err(cause) => return tally.check("compose: its cases", || Err(cause)),
    };
    let first = cases(&all);
    tally.cases(first, &mut |failed| {
        let failed: Vec<String> = failed
            .iter()
            .filter_map(|name| name.strip_prefix("compose: "))
            .filter(|name| all.iter().any(|known| known == name))
            .map(str::to_owned)
            .collect();
        cases(&failed)
    });
    println!("compose: {:.1} s", started.elapsed().as_secs_f64());
}

/// These cases; all if none is named.
fn chosen(names: &[&str]) -> Result<Vec<String>> {
    let mut known = Vec::new();
    for entry in std::fs::read_dir(cases())? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            known.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    known.sort();
    if let Some(unknown) = names.iter().find(|name| !known.iter().any(|case| case == *name)) {
        bail!("there is no case {unknown:?}: use {}", known.join(", "));
    }
    known.retain(|case| names.is_empty() || names.contains(&case.as_str()));
    Ok(known)
}

/// Compares what was shown with what Docker shows.
fn judge(shown: &Transcripts, names: &[String]) -> Vec<Case> {
    let afterwards = AFTERWARDS.to_owned();
    let all = chosen(&[]).is_ok_and(|all| all.len() == names.len());
    names
        .iter()
        .chain(all.then_some(&afterwards))
        .map(|name| {
            let of = cases().join(if *name == AFTERWARDS { "" } else { name });
            Case::of(format!("compose: {name}"), || {
                let expected = of.join("expected.txt");
                let text = shown.get(name).context("it did not come to its end")?;
                let got = setup::target().join("compose").join(format!("{name}.txt"));
                std::fs::write(&got, text)?;
                let said = Shell::default().ask(&format!(
                    "diff -U 2 --label docker --label bulkhead {} {}",
                    expected.display(),
                    got.display()
                ))?;
                ensure!(said.success, "it differs from Docker:\n{}", said.output);
                Ok(())
            })
        })
        .collect()
}

/// What an engine leaves when all cases have ended.
const AFTERWARDS: &str = "afterwards";

/// Runs an engine and the cases, in namespaces of their own.
fn all_of(root: &Path, program: &Path, engine: Engine, names: &[String]) -> Result<Transcripts> {
    let scripts = root.with_file_name("scripts");
    let _ = std::fs::remove_dir_all(&scripts);
    std::fs::create_dir_all(&scripts)?;
    let sources = setup::root().join("xtask/src");
    let shell = Shell::default();
    let copied =
        shell.ask(&format!("cp -r {}/compose {}", sources.display(), scripts.display()))?;
    ensure!(copied.success, "{}", copied.output);
    std::fs::copy(sources.join("clients/enter.sh"), scripts.join("enter.sh"))?;
    std::fs::write(
        scripts.join("main.sh"),
        format!(
            "ENGINE={} CASES='{}' JOBS={JOBS}\n. /bulkhead/compose/run.sh\n",
            engine.name(),
            names.join(" ")
        ),
    )?;
    let cgroup = format!("bulkhead-compose-{}", std::process::id());
    let said = shell.ask(&format!(
        "timeout --kill-after 10 900 sh {}/enter.sh {} {} main.sh {cgroup}",
        scripts.display(),
        root.display(),
        program.display()
    ))?;
    // what was mounted there has gone with the namespaces
    std::fs::remove_dir(root.with_extension("scratch").join(&cgroup))?;
    crate::clients::remove(&cgroup).context("cgroups are left on the host")?;
    std::fs::write(root.with_file_name("said.txt"), &said.output)?;
    let shown = read(&said.output);
    ensure!(
        shown.contains_key(AFTERWARDS),
        "the engine did not come up, or not to its end: {}",
        said.output
    );
    Ok(shown)
}

/// Takes what `run.sh` writes apart: `=== NAME`, and the lines of that case.
fn read(said: &str) -> Transcripts {
    let mut shown = Transcripts::new();
    let mut current = String::new();
    for line in said.lines() {
        if let Some(took) = line.strip_prefix("=== took ") {
            println!("compose: {took} s");
        } else if let Some(name) = line.strip_prefix("=== ") {
            name.clone_into(&mut current);
        } else {
            let text = shown.entry(current.clone()).or_default();
            text.push_str(line);
            text.push('\n');
        }
    }
    shown
}

fn cases() -> PathBuf {
    setup::root().join("xtask/src/compose/cases")
}

/// Two Debian systems whose packages are unpacked, not installed, and the images of them; made once.
fn unpack() -> Result<PathBuf> {
    let place = setup::target().join("compose");
    let root = place.join("root");
    if !root.exists() {
        let (partial, services) = (place.join("partial"), place.join("services"));
        for old in [&partial, &services] {
            let _ = std::fs::remove_dir_all(old);
        }
        std::fs::create_dir_all(&place)?;
        let archive = setup::debian_archive()?;
        for (directory, packages) in [(&partial, SYSTEM), (&services, SERVICES)] {
            // A mirror may be a snapshot whose Release file is past its date.
            Shell::default().run(&format!(
                "mmdebstrap --variant=extract --aptopt='Acquire::Check-Valid-Until \"false\"' \
                 --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr --include={packages} \
                 sid {} 'deb {archive} sid main'",
                directory.display(),
            ))?;
        }
        Shell::default().run(&format!(
            "sh {} {} {}",
            setup::root().join("xtask/src/compose/image.sh").display(),
            partial.display(),
            services.display()
        ))?;
        std::fs::remove_dir_all(&services)?;
        std::fs::rename(&partial, &root)?;
    }
    Ok(root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transcripts_are_told_apart() {
        let shown = read("=== a\none\ntwo\n=== b\n=== c\nthree\n");
        let text = |name: &str| shown.get(name).map(String::as_str);
        assert_eq!(text("a"), Some("one\ntwo\n"));
        assert_eq!(text("b"), None);
        assert_eq!(text("c"), Some("three\n"));
    }
}
