//! Compartments that are built ahead: when they are used, and what is left of them.

use std::fs;
use std::os::fd::OwnedFd;

use bulkhead_runtime::cgroup::{Cgroup, Hierarchies, Limits};
use bulkhead_runtime::*;
use bulkhead_warden::*;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::fixture::*;

crate::cases::cases![
    a_ready_one_becomes_the_container,
    other_shapes_leave_them_alone,
    one_too_few_is_no_failure,
    one_that_died_is_not_missed,
    a_range_that_cannot_be_mapped_is_said,
    they_can_be_turned_off,
    an_early_answer_is_followed_by_the_start,
    what_fails_after_an_early_answer_is_told_at_the_start,
    limits_come_through,
    they_hold_next_to_nothing,
    they_end_with_a_killed_warden,
    their_containers_are_born_in_their_cgroups,
];

/// The namespaces of a process that containers do not share, by their numbers.
fn namespaces(pid: u32) -> Vec<u64> {
    let link = |name: &&str| {
        let text = fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
        let text = text.to_str().unwrap();
        text.split(['[', ']']).nth(1).unwrap().parse().unwrap()
    };
    ["user", "net", "ipc", "mnt", "uts", "time_for_children"].iter().map(link).collect()
}

fn pids(compartments: &[(u32, OwnedFd)]) -> Vec<u32> {
    compartments.iter().map(|(pid, _)| *pid).collect()
}

fn a_ready_one_becomes_the_container() {
    let ship = Ship::launch();
    let ready = ship.client.compartments(None).unwrap();
    assert_eq!(ready.len(), 2);
    let before = namespaces(ready[0].0);
    assert!(ready.iter().all(|(pid, _)| *pid != 0));
    assert_ne!(before, namespaces(ready[1].0));
    let wish = ship.wish(&["sh", "-c", "ls /proc/self/fd; echo $$; id -u; hostname"]);
    let id = wish.id;
    let created = ship.create(wish).unwrap();
    assert_eq!(namespaces(created.pid), before);
    ship.client.start(id).unwrap();
    // its memory was the container's until the exec
    await_end(&ready[0].1);
    assert_eq!(ship.exit(id).code, 0);
    // the third descriptor is that of the directory which is read
    assert_eq!(ship.log(id), "0\n1\n2\n3\n1\n0\nbox\n");
    let refilled = ship.client.compartments(None).unwrap();
    assert_eq!(refilled.len(), 2);
    assert_eq!(refilled[0].0, ready[1].0);
    ship.client.forget(id).unwrap();
}

fn other_shapes_leave_them_alone() {
    let ship = Ship::launch();
    let ready = pids(&ship.client.compartments(None).unwrap());
    let host =
        |change: fn(&mut Namespaces)| ship.wish(&["true"]).change(|it| change(&mut it.namespaces));
    assert_eq!(ship.run(host(|it| it.ipc = Source::Host)).0, 0);
    assert_eq!(ship.run(host(|it| it.time = Source::Host)).0, 0);
    let (other, _) = sleeper(&ship);
    let _ = ship.client.compartments(None).unwrap();
    let joined: Vec<_> = ship.client.namespaces(other).unwrap();
    let mut wish = ship.wish(&["true"]);
    for (name, fd) in joined {
        if name == "user" || name == "net" {
            wish.fds.push(fd);
            let source = Source::Join(FdIndex(wish.fds.len() as u16 - 1));
            let namespaces = &mut wish.spec.namespaces;
            *(if name == "net" { &mut namespaces.net } else { &mut namespaces.user }) = source;
        }
    }
    let still = pids(&ship.client.compartments(None).unwrap());
    assert_eq!(ship.run(wish).0, 0);
    assert_eq!(pids(&ship.client.compartments(None).unwrap()), still);
    assert_eq!(still[0], ready[1], "only the sleeper took one");
}

fn one_too_few_is_no_failure() {
    let ship = Ship::launch();
    let ready = ship.client.compartments(Some(1)).unwrap();
    let [(pid, _)] = ready.as_slice() else { panic!("{ready:?}") };
    let ours = namespaces(*pid);
    let wishes = [(); 3].map(|()| ship.wish(&["sh", "-c", "exit 4"]));
    let ids = wishes.each_ref().map(|wish| wish.id);
    let created = wishes.map(|wish| ship.create(wish).unwrap());
    assert_eq!(namespaces(created[0].pid), ours);
    let mut all: Vec<u64> = created.iter().flat_map(|it| namespaces(it.pid)).collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 18, "every one has its own");
    for id in ids {
        ship.client.start(id).unwrap();
    }
    // whichever ends first
    let ended = ids.map(|_| ship.events.recv_timeout(TIMEOUT).unwrap());
    assert!(ended.iter().all(|Event::Exited { exit, .. }| exit.code == 4));
    assert_eq!(ship.client.compartments(None).unwrap().len(), 1);
}

fn one_that_died_is_not_missed() {
    let ship = Ship::launch();
    let ready = ship.client.compartments(None).unwrap();
    for (_, pidfd) in &ready {
        pidfd_send_signal(pidfd, Signal::KILL).unwrap();
        await_end(pidfd);
    }
    assert_eq!(ship.sh("echo well"), (0, "well\n".into()));
    let refilled = ship.client.compartments(None).unwrap();
    assert_eq!(refilled.len(), 2);
    assert!(pids(&refilled).iter().all(|pid| !pids(&ready).contains(pid)));
    // the dead are reaped
    assert!(ready.iter().all(|(pid, _)| !fs::exists(format!("/proc/{pid}")).unwrap()));
}

fn a_range_that_cannot_be_mapped_is_said() {
    let ship = Ship::launch();
    let wish = ship.wish(&["true"]).change(|spec| {
        spec.id_range = Some(bulkhead_types::IdMap::new(u32::MAX - 10, 20));
    });
    let error = ship.create(wish).unwrap_err().to_string();
    assert!(error.starts_with("map 20 ids from 4294967285"), "{error}");
    assert_eq!(ship.client.compartments(None).unwrap().len(), 2);
    assert_eq!(ship.sh("true").0, 0);
}

fn they_can_be_turned_off() {
    let ship = Ship::launch();
    let ready = ship.client.compartments(None).unwrap();
    assert!(ship.client.compartments(Some(0)).unwrap().is_empty());
    ready.iter().for_each(|(_, pidfd)| await_end(pidfd));
    assert_eq!(ship.sh("echo without").1, "without\n");
    assert!(ship.client.compartments(None).unwrap().is_empty());
    assert_eq!(ship.client.compartments(Some(3)).unwrap().len(), 3);
}

fn an_early_answer_is_followed_by_the_start() {
    let ship = Ship::launch();
    for keep in [0, 1] {
        ship.client.compartments(Some(keep)).unwrap();
        let wish = ship.wish(&["echo", "here"]);
        let id = wish.id;
        let created = ship.create_early(wish).unwrap();
        let netns =
            std::os::unix::fs::MetadataExt::ino(&fs::File::from(created.netns).metadata().unwrap());
        assert_eq!(netns, namespaces(created.pid)[1]);
        ship.client.start(id).unwrap();
        assert_eq!(ship.exit(id).code, 0);
        assert_eq!(ship.log(id), "here\n");
        assert!(matches!(ship.client.start(id), Err(WardenError::Refused(_))));
        ship.client.forget(id).unwrap();
    }
}

fn what_fails_after_an_early_answer_is_told_at_the_start() {
    let ship = Ship::launch();
    for (keep, late) in [(0, false), (0, true), (1, false), (1, true)] {
        ship.client.compartments(Some(keep)).unwrap();
        let wish = ship.wish(&["true"]).change(|spec| spec.rootfs = FdIndex(99));
        let id = wish.id;
        // it may even be dead before there is an answer
        let failed = ship.create_early(wish).and_then(|created| {
            if late {
                await_end(&created.pidfd);
            }
            let failed = ship.client.start(id);
            ship.client.forget(id).unwrap();
            failed
        });
        let error = failed.unwrap_err().to_string();
        assert_eq!(error, "attach root #99: bad file descriptor");
        // one that is killed before its start
        let wish = ship.wish(&["true"]);
        let id = wish.id;
        let created = ship.create(wish).unwrap();
        pidfd_send_signal(&created.pidfd, Signal::KILL).unwrap();
        await_end(&created.pidfd);
        let error = ship.client.start(id).unwrap_err();
        assert!(matches!(&error, WardenError::Start(_)), "{error}");
        ship.client.forget(id).unwrap();
    }
    assert!(ship.client.list().unwrap().is_empty());
    assert!(ship.events.try_recv().is_err(), "what never ran does not end");
}

fn limits_come_through() {
    let ship = Ship::launch();
    for (name, soft, hard, option) in [
        ("nofile", 600, 4096, "n"),
        ("nofile", 100, 4096, "n"),
        // fewer than the start itself takes
        ("nofile", 6, 4096, "n"),
        ("nofile", 6, 7, "n"),
        ("core", 0, 0, "c"),
    ] {
        ship.client.compartments(None).unwrap();
        let script = format!("ulimit -S{option}; ulimit -H{option}; cat /proc/self/oom_score_adj");
        let wish = ship.wish(&["sh", "-c", &script]).change(|spec| {
            spec.process.rlimits = vec![(name.into(), soft, hard)];
            spec.process.oom_score_adj = Some(77);
        });
        assert_eq!(ship.run(wish), (0, format!("{soft}\n{hard}\n77\n")));
    }
}

fn they_hold_next_to_nothing() {
    let ship = Ship::launch();
    let secret = format!("SECRET={}", bulkhead_types::Id::random());
    let mut wish = ship.wish(&["sleep", "1000"]);
    let id = wish.id;
    wish.spec.process.environment.push(secret.clone());
    ship.create(wish).unwrap();
    ship.client.start(id).unwrap();
    let ready = ship.client.compartments(None).unwrap();
    let warden = parent(ready[0].0);
    // what was built after a container came does not know of it
    for (pid, _) in &ready {
        assert_eq!(parent(*pid), warden);
        assert_eq!(fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(), 4);
        assert!(!memory(*pid).windows(secret.len()).any(|it| it == secret.as_bytes()));
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        assert_eq!(groups, fs::read_to_string(format!("/proc/{warden}/cgroup")).unwrap());
        let owner = fs::symlink_metadata(format!("/proc/{pid}/environ")).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&owner), 0, "not dumpable");
        assert_eq!(fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap(), "");
    }
    assert!(memory(warden).windows(secret.len()).any(|it| it == secret.as_bytes()));
}

/// What a process can write to, which is where secrets are.
fn memory(pid: u32) -> Vec<u8> {
    use std::os::unix::fs::FileExt;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let file = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut all = Vec::new();
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let number = |text| u64::from_str_radix(text, 16).unwrap();
        let (from, to) = (number(from), number(to));
        let mut bytes = vec![0; (to - from) as usize];
        if file.read_exact_at(&mut bytes, from).is_ok() {
            all.append(&mut bytes);
        }
    }
    all
}

fn they_end_with_a_killed_warden() {
    let ship = Ship::launch();
    let ready = ship.client.compartments(None).unwrap();
    let warden = parent(ready[0].0);
    let open =
        |pid: u32| pidfd_open(Pid::from_raw(pid as i32).unwrap(), PidfdFlags::empty()).unwrap();
    let all: Vec<OwnedFd> = children(warden).into_iter().map(open).collect();
    assert_eq!(all.len(), 3, "a zygote and two compartments");
    pidfd_send_signal(open(warden), Signal::KILL).unwrap();
    all.iter().for_each(await_end);
}

fn their_containers_are_born_in_their_cgroups() {
    let ship = Ship::launch();
    let hierarchies = Hierarchies::detect().unwrap();
    let path = format!("/bulkhead-test-{}", bulkhead_types::Id::random());
    let cgroup = Cgroup::create(&hierarchies, &path, &Limits::default()).unwrap();
    let join = cgroup.join().unwrap();
    let mut wish = ship.wish(&["cat", "/proc/self/cgroup"]);
    let mut add = |fd| {
        wish.fds.push(fd);
        FdIndex(wish.fds.len() as u16 - 1)
    };
    wish.spec.cgroup_v1_procs = join.procs.into_iter().map(&mut add).collect();
    wish.spec.cgroup_v2 = join.v2_dir.map(&mut add);
    let ready = ship.client.compartments(None).unwrap();
    let before = namespaces(ready[0].0);
    let id = wish.id;
    let created = ship.create(wish).unwrap();
    assert_eq!(namespaces(created.pid), before);
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", created.pid)).unwrap();
    let ours = groups.lines().filter(|line| line.ends_with(&path)).count();
    assert_eq!(ours, Cgroup::open(&hierarchies, &path).unwrap().paths().len(), "{groups}");
    ship.client.start(id).unwrap();
    assert_eq!(ship.exit(id).code, 0);
    let seen = ship.log(id);
    assert_eq!(seen.lines().filter(|line| line.ends_with(":/")).count(), ours, "{seen}");
    await_end(&created.pidfd);
    cgroup.delete().unwrap();
}
