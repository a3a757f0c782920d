//! E: how the root is made, and what is mounted in it. The rest of the group is a test per CVE,
//! in `tests/escapes`.

use anyhow::Result;

use crate::judge::{Case, Control, How, MODES, Mode, Outcome, all, each, ensure, facts, scene};
use crate::rig::{Facts, Rig};

const ROOT: &[Mode] = &[Mode::Default, Mode::Host];
const ESCAPES: &str = "a race or a bundle of its own: see the tests of `escapes`";

pub const CASES: &[Case] = &[
    scene(
        "E1",
        MODES,
        |rig, flags| {
            let mut places: Vec<String> =
                (3..=20).map(|fd| format!("/proc/self/fd/{fd}")).collect();
            places.extend(["/proc/1/fd/7".to_owned(), "/proc/self/fd/7/../../../..".to_owned()]);
            let tried = places.iter().map(|place| directory(rig, flags, place));
            Ok(all(tried.collect::<Result<Vec<_>>>()?))
        },
        Control::Other("an ordinary directory", |rig| {
            let facts = rig.probe(&["-w", "/tmp"], &["status"])?;
            Ok(ensure(facts.of("directory") != "/tmp", || "it starts in /tmp".to_owned()))
        }),
    ),
    Case { id: "E2", how: How::Lacking(ESCAPES) },
    Case { id: "E3", how: How::Lacking(ESCAPES) },
    Case { id: "E4", how: How::Lacking(ESCAPES) },
    Case { id: "E5", how: How::Lacking(ESCAPES) },
    Case { id: "E6", how: How::Lacking(ESCAPES) },
    Case { id: "E7", how: How::Lacking(ESCAPES) },
    scene(
        "E8",
        ROOT,
        link_as_target,
        Control::Other("a bind mount of the canary", |rig| {
            let canary = canary(rig, "e8")?;
            let volume = format!("{}:/mnt/link", canary.display());
            rig.run(&["-v", &volume], &["touch", "/mnt/link/x"])?.ok()?;
            untouched(&canary)
        }),
    ),
    Case { id: "E9", how: How::Lacking(ESCAPES) },
    scene(
        "E10",
        ROOT,
        odd_targets,
        Control::Other("the canary itself as the source", |rig| {
            let canary = canary(rig, "e10")?;
            let volume = format!("{}:/mnt/plain", canary.display());
            rig.run(&["-v", &volume, "-v", "e10:/mnt/plain/below"], &["true"])?.ok()?;
            let _ = rig.daemon.docker(&["volume", "rm", "-f", "e10"]);
            untouched(&canary)
        }),
    ),
    scene(
        "E11",
        ROOT,
        propagation,
        Control::Other("a mount made before", |rig| seen(rig, &[], true)),
    ),
    scene("E12", MODES, read_only, Control::Other("writable", |rig| written(rig, &[], ""))),
    facts("E13", |facts, _| {
        let calls = ["mount tmpfs", "mount bind", "mount overlay", "pivot_root"];
        each(facts, &calls, &["EPERM"])
    }),
    // a user cannot even chroot
    scene(
        "E14",
        MODES,
        |rig, flags| {
            Ok(each(&rig.probe(flags, &["escape"])?, &["chroot escape"], &["inside", "no chroot"]))
        },
        Control::Other("a root that was only chrooted to", |rig| {
            let root = rig.daemon.directory().join("probe-image");
            let line = format!("chroot {} /probe escape", root.display());
            let facts = Facts::parse(&rig.daemon.shell(&line)?.ok()?);
            Ok(each(&facts, &["chroot escape"], &["inside", "no chroot"]))
        }),
    ),
    scene("E15", ROOT, names_as_options, {
        Control::Other("a good name", |rig| volume_refused(rig, &[], "good-name"))
    }),
];

/// Refused, or a directory inside.
fn directory(rig: &Rig, flags: &[&str], place: &str) -> Result<Outcome> {
    let words = ["sh", "-c", "pwd -P; ls -a"];
    let said = rig.run(&[flags, &["-w", place]].concat(), &words)?;
    let inside = said.code != 0 || said.stdout.lines().any(|line| line == ".probe-root");
    // the engine makes a working directory that is missing, and finds no such one below /proc
    Ok(ensure(inside, || format!("-w {place}: {}", said.stdout)))
}

fn canary(rig: &Rig, name: &str) -> Result<std::path::PathBuf> {
    let canary = rig.daemon.directory().join(format!("canary-{name}"));
    let _ = std::fs::remove_dir_all(&canary);
    std::fs::create_dir_all(&canary)?;
    Ok(canary)
}

fn untouched(canary: &std::path::Path) -> Result<Outcome> {
    let found = std::fs::read_dir(canary)?.count();
    Ok(ensure(found == 0, || format!("{found} entries in the host's canary directory")))
}

/// CVE-2021-30465 without its race: the image leads a volume's target to the host.
fn link_as_target(rig: &Rig, flags: &[&str]) -> Result<Outcome> {
    let canary = canary(rig, "e8")?;
    let made = rig.stay(flags, &[])?;
    let line = format!("mkdir -p /mnt; ln -sfn {} /mnt/link", canary.display());
    made.exec(&[], &["sh", "-c", &line])?.ok()?;
    rig.daemon.docker(&["commit", &made.id, "linked"])?.ok()?;
    let run = [&["run", "--rm", "-v", "e8:/mnt/link"], flags, &["linked", "touch", "/mnt/link/x"]];
    let said = rig.daemon.docker(&run.concat())?;
    let _ = rig.daemon.docker(&["volume", "rm", "e8"]);
    let _ = rig.daemon.docker(&["rmi", "linked"]);
    Ok(all([untouched(&canary)?, ensure(said.code == 0, || said.stderr.clone())]))
}

/// `None` if a volume was mounted there.
fn target(rig: &Rig, flags: &[&str], target: &str) -> Result<Option<String>> {
    let volume = format!("e10:{target}");
    let said = rig.run(&[flags, &["-v", &volume]].concat(), &["true"])?;
    let _ = rig.daemon.docker(&["volume", "rm", "-f", "e10"]);
    Ok((said.code != 0).then_some(said.stderr))
}

fn odd_targets(rig: &Rig, flags: &[&str]) -> Result<Outcome> {
    let canary = canary(rig, "e10")?;
    let parent = "..".to_owned() + &"/..".repeat(12);
    let odd = [
        format!("/{parent}{}", canary.display()),
        format!("//{parent}//{}//x", canary.display()),
        format!("/{}", "a/".repeat(2040)),
        "/bin/busybox/under-a-file".to_owned(),
    ];
    for place in &odd {
        if let Some(error) = target(rig, flags, place)?
            && (error.trim().is_empty() || error.contains("panicked"))
        {
            return Ok(Outcome::Failed(format!("no clean error: {error}")));
        }
    }
    untouched(&canary)
}

fn propagation(rig: &Rig, flags: &[&str]) -> Result<Outcome> {
    seen(rig, flags, false)
}

/// Whether a mount that the host makes below a bind mount's source is seen in the container.
fn seen(rig: &Rig, flags: &[&str], before: bool) -> Result<Outcome> {
    let source = canary(rig, "e11")?;
    std::fs::create_dir(source.join("below"))?;
    let at = source.display().to_string();
    // a shared mount of its own, whatever the host's are
    rig.daemon.shell(&format!("mount --bind {at} {at} && mount --make-shared {at}"))?.ok()?;
    let mount =
        || rig.daemon.shell(&format!("mount -t tmpfs none {at}/below && touch {at}/below/x"))?.ok();
    let seen = (|| {
        if before {
            mount()?;
        }
        let volume = format!("{at}:/mnt");
        let box_ = rig.stay(&[flags, &["-v", &volume]].concat(), &[])?;
        if !before {
            mount()?;
        }
        box_.exec(&[], &["ls", "/mnt/below"])?.ok()
    })();
    rig.daemon.shell(&format!("umount -R {at}"))?.ok()?;
    let seen = seen?;
    Ok(ensure(seen.is_empty(), || format!("the host's mount is seen: {seen}")))
}

fn read_only(rig: &Rig, flags: &[&str]) -> Result<Outcome> {
    written(rig, flags, ":ro")
}

/// Writes to a bind mount, and to a mount below its source.
fn written(rig: &Rig, flags: &[&str], option: &str) -> Result<Outcome> {
    let source = canary(rig, "e12")?;
    std::fs::create_dir(source.join("below"))?;
    let at = source.display().to_string();
    rig.daemon
        .shell(&format!("mount -t tmpfs -o mode=777 none {at}/below; chmod 777 {at}"))?
        .ok()?;
    for file in ["file", "below/file"] {
        std::fs::write(source.join(file), "")?;
        rig.daemon.shell(&format!("chmod 666 {at}/{file}"))?.ok()?;
    }
    let volume = format!("{at}:/mnt{option}");
    let found =
        rig.probe(&[flags, &["-v", &volume]].concat(), &["write", "/mnt/file", "/mnt/below/file"]);
    rig.daemon.shell(&format!("umount {at}/below"))?.ok()?;
    Ok(each(&found?, &["write /mnt/file", "write /mnt/below/file"], &["EROFS"]))
}

fn names_as_options(rig: &Rig, flags: &[&str]) -> Result<Outcome> {
    let names = ["a,lowerdir=/etc", "a\nb", "../../etc", "a/../../b", ".."];
    let tried = names.map(|name| volume_refused(rig, flags, name));
    let mut outcomes = tried.into_iter().collect::<Result<Vec<_>>>()?;
    // in a path it is data
    let source = canary(rig, "e15,lowerdir=_etc")?;
    std::fs::write(source.join("inside"), "")?;
    let mount = format!("{}:/mnt", source.display());
    let seen = rig.run(&[flags, &["-v", &mount]].concat(), &["ls", "/mnt"])?.ok()?;
    outcomes.push(ensure(seen == "inside", || format!("saw {seen:?}")));
    Ok(all(outcomes))
}

fn volume_refused(rig: &Rig, flags: &[&str], name: &str) -> Result<Outcome> {
    let said = rig.daemon.docker(&["volume", "create", name])?;
    if said.code == 0 {
        let volume = format!("{name}:/mnt");
        rig.run(&[flags, &["-v", &volume]].concat(), &["true"])?.ok()?;
    }
    let _ = rig.daemon.docker(&["volume", "rm", "-f", name]);
    Ok(ensure(said.code != 0, || format!("a volume called {name:?} was made")))
}
