//! B: capabilities, identity, set-user-ID programs and the image's lists of users.

use anyhow::Result;

use crate::judge::{Case, Control, Mode, Outcome, all, each, ensure, facts, scene};
use crate::rig::{Facts, Rig};

const ROOT: &[Mode] = &[Mode::Default, Mode::Host];

/// CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE,
/// SYS_CHROOT, SETFCAP.
const GRANTED: &str = "00000000800405fb";
/// The same with NET_RAW, which reaches no other network from a user namespace of one's own.
const GRANTED_OF_OWN: &str = "00000000800425fb";
const NONE: &str = "0000000000000000";

pub const CASES: &[Case] = &[
    facts("B1", |facts, mode| {
        let granted = granted(mode.flags());
        sets(facts, if mode == Mode::User { NONE } else { granted }, granted)
    }),
    scene(
        "B2",
        ROOT,
        |rig, flags| {
            let facts = rig.probe(&[flags, &["--user", "1000"]].concat(), &["status"])?;
            Ok(sets(&facts, NONE, granted(flags)))
        },
        Control::Other("root", |rig| Ok(sets(&rig.probe(&[], &["status"])?, NONE, granted(&[])))),
    ),
    scene("B3", ROOT, |rig, flags| set_user_id(rig, &[flags, NNP].concat()), {
        Control::Other("without no-new-privileges, as in Docker", |rig| set_user_id(rig, &[]))
    }),
    scene("B4", ROOT, |rig, flags| file_capabilities(rig, &[flags, NNP].concat()), {
        Control::Other("without no-new-privileges", |rig| file_capabilities(rig, &[]))
    }),
    scene(
        "B5",
        ROOT,
        |rig, flags| {
            let users = ["4294967296", "-1", "2147483648", "1000:99999999999", "+0", "0x0"];
            let tried = users.map(|user| image_user(rig, flags, user));
            Ok(all(tried.into_iter().collect::<Result<Vec<_>>>()?))
        },
        Control::Other("USER 0", |rig| image_user(rig, &[], "0")),
    ),
    scene(
        "B6",
        ROOT,
        |rig, flags| {
            let box_ = rig.stay(flags, &[])?;
            let mut outcomes = Vec::new();
            for (user, wanted) in
                [("1", Some("1")), ("+0", None), ("0x0", None), ("1:", Some("1")), (" 0", None)]
            {
                let said = box_.exec(&["-u", user], &["id", "-u"])?;
                let found = (said.code == 0).then(|| said.stdout.trim().to_owned());
                outcomes
                    .push(ensure(found.as_deref() == wanted, || format!("{user:?}: {found:?}")));
            }
            Ok(all(outcomes))
        },
        Control::Other("exec -u 0", |rig| {
            let box_ = rig.stay(&[], &[])?;
            let id = box_.exec(&["-u", "0"], &["id", "-u"])?.ok()?;
            Ok(ensure(id != "0", || "it is root".to_owned()))
        }),
    ),
    scene("B7", ROOT, hostile_lists, {
        Control::Other("an honest list", |rig| list_of_users(rig, &[], "true", "web"))
    }),
    scene(
        "B8",
        ROOT,
        |rig, flags| {
            let user = rig.probe(&[flags, &["--user", "1000:1000"]].concat(), &["status"])?;
            let root = rig.probe(flags, &["status"])?;
            Ok(all([groups(&user, "1000"), groups(&root, "0 44")]))
        },
        Control::Other("--group-add 7", |rig| {
            let facts = rig.probe(&["--user", "1000:1000", "--group-add", "7"], &["status"])?;
            Ok(groups(&facts, "1000"))
        }),
    ),
    facts("B9", |facts, _| each(facts, &["oom score"], &["EACCES"])),
];

const NNP: &[&str] = &["--security-opt", "no-new-privileges"];

fn granted(flags: &[&str]) -> &'static str {
    if flags.contains(&"--userns=host") { GRANTED } else { GRANTED_OF_OWN }
}

fn sets(facts: &Facts, held: &str, granted: &str) -> Outcome {
    for (set, wanted) in [
        ("CapEff", held),
        ("CapPrm", held),
        ("CapInh", NONE),
        ("CapAmb", NONE),
        ("CapBnd", granted),
    ] {
        let found = facts.of(&format!("status {set}"));
        if found != wanted {
            return Outcome::Failed(format!("{set} is {found}, not {wanted}"));
        }
    }
    Outcome::Ok
}

fn groups(facts: &Facts, wanted: &str) -> Outcome {
    let found = facts.of("status Groups");
    ensure(found == wanted, || format!("groups {found:?}, not {wanted:?}"))
}

fn set_user_id(rig: &Rig, flags: &[&str]) -> Result<Outcome> {
    let said = rig.run(&[flags, &["--user", "1000"]].concat(), &["/suid-probe", "status"])?.ok()?;
    let facts = Facts::parse(&said);
    let ids = facts.of("status Uid");
    Ok(ensure(ids.split_whitespace().all(|id| id == "1000"), || format!("uids {ids}")))
}

fn file_capabilities(rig: &Rig, flags: &[&str]) -> Result<Outcome> {
    let line = "cp /probe /tmp/p && /probe setcap /tmp/p && /probe as 1000 /tmp/p status";
    let facts = Facts::parse(&rig.run(flags, &["sh", "-c", line])?.ok()?);
    let held = facts.of("status CapEff");
    if facts.of("setcap") != "ok" {
        return Ok(Outcome::Failed(format!("setcap: {}", facts.of("setcap"))));
    }
    Ok(ensure(held == NONE, || format!("gained {held}")))
}

/// CVE-2024-40635: a number that does not fit became root.
fn image_user(rig: &Rig, flags: &[&str], user: &str) -> Result<Outcome> {
    let archive = rig.daemon.directory().join("probe.tar");
    let path = archive.to_string_lossy();
    let change = format!("USER {user}");
    let import = ["import", "-c", "ENV PATH=/bin", "-c", &change, &path, "user-of-image"];
    let imported = rig.daemon.docker(&import)?;
    if imported.code != 0 {
        return Ok(Outcome::Ok);
    }
    let words = [&["run", "--rm"], flags, &["user-of-image", "id", "-u"]].concat();
    let said = rig.daemon.docker(&words)?;
    Ok(ensure(said.code != 0, || format!("USER {user} ran as {}", said.stdout.trim())))
}

/// CVE-2026-47262 and others: what an image calls /etc/passwd is read by the engine.
fn hostile_lists(rig: &Rig, flags: &[&str]) -> Result<Outcome> {
    let canary = rig.daemon.directory().join("canary-passwd");
    std::fs::write(&canary, "evil:x:0:0::/:/bin/sh\n")?;
    let link = format!("rm /etc/passwd; ln -s {} /etc/passwd", canary.display());
    let mut outcomes = Vec::new();
    for (change, user) in [
        (link.as_str(), "evil"),
        ("rm /etc/passwd; mkfifo /etc/passwd", "web"),
        ("rm /etc/passwd; ln -s /dev/zero /etc/passwd", "web"),
        ("rm /etc/passwd; mkdir /etc/passwd", "web"),
        (
            "dd if=/dev/zero of=/etc/passwd bs=1M count=1 seek=1023 2>/dev/null; \
             echo late:x:5:5::/:/bin/sh >> /etc/passwd",
            "late",
        ),
    ] {
        outcomes.push(list_of_users(rig, flags, change, user)?);
    }
    Ok(all(outcomes))
}

/// Fails if the user is found, or if the engine waits for long.
fn list_of_users(rig: &Rig, flags: &[&str], change: &str, user: &str) -> Result<Outcome> {
    let box_ = rig.stay(flags, &[])?;
    box_.exec(&[], &["sh", "-c", change])?.ok()?;
    let began = std::time::Instant::now();
    let said = box_.exec(&["-u", user], &["id"])?;
    let took = began.elapsed();
    Ok(ensure(said.code != 0 && took.as_secs() < 20, || {
        format!("after {change:?}: status {} in {took:?}: {}", said.code, said.stdout)
    }))
}
