use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use bulkhead_types::oci::{SeccompArgument, SeccompRule};
use proptest::prelude::*;

use super::*;

struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn cache(&self) -> Cache {
        Cache::open(File::open(self.directory.path()).unwrap().into()).unwrap()
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.directory.path()).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

fn profile(errno: u32) -> Seccomp {
    Seccomp {
        default_action: "SCMP_ACT_ERRNO".to_owned(),
        default_errno_ret: Some(errno),
        syscalls: vec![SeccompRule {
            names: vec!["read".to_owned(), "openat".to_owned()],
            action: "SCMP_ACT_ALLOW".to_owned(),
            ..SeccompRule::default()
        }],
        ..Seccomp::default()
    }
}

fn filter(cache: &Cache, seccomp: &Seccomp) -> Compiled {
    cache.filter(seccomp, CompileOptions::default()).unwrap().unwrap()
}

#[test]
fn a_profile_is_found_again() {
    let place = Place::new();
    let want = compile_oci(&profile(1), CompileOptions::default()).unwrap().unwrap();
    assert_eq!(filter(&place.cache(), &profile(1)), want);
    let [file] = &place.files()[..] else { panic!("{:?}", place.files()) };
    let stat = std::fs::metadata(file).unwrap();
    assert_eq!((stat.mode() & 0o7777, stat.len() % 8), (0o600, 0));
    assert_eq!(filter(&place.cache(), &profile(1)), want);
    let again = std::fs::metadata(file).unwrap();
    assert_eq!((again.ino(), place.files().len()), (stat.ino(), 1), "it was not written again");
    // what is found is what is used
    let key = Key::of(&profile(1), CompileOptions::default());
    let other = [Instruction { code: 6, jump_true: 0, jump_false: 0, k: 0x1234 }];
    std::fs::write(file, encode(&key, &other)).unwrap();
    assert_eq!(filter(&place.cache(), &profile(1)).instructions[..], other);
    // no filter has no file, and neither has an error
    assert_eq!(place.cache().filter(&Seccomp::default(), CompileOptions::default()).unwrap(), None);
    let bad = Seccomp { architectures: vec!["VAX".to_owned()], ..profile(1) };
    assert!(place.cache().filter(&bad, CompileOptions::default()).is_err());
    assert_eq!(place.files().len(), 1);
}

#[test]
fn what_is_no_whole_file_of_ours_is_not_used() {
    let place = Place::new();
    let want = filter(&place.cache(), &profile(1));
    let file = place.files().remove(0);
    let whole = std::fs::read(&file).unwrap();
    let other_key = Key::of(&profile(2), CompileOptions::default());
    let mut contents: Vec<(String, Vec<u8>)> = (0..HEADER_SIZE + 8)
        .chain([whole.len() - 1, whole.len() / 2])
        .map(|length| (format!("{length} bytes"), whole[..length].to_vec()))
        .collect();
    for at in [0, 7, 8, 39, 40, 71, 72, whole.len() - 1] {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        contents.push((format!("byte {at} changed"), changed));
    }
    contents.push(("longer".to_owned(), [&whole[..], &[0; 8]].concat()));
    contents.push(("of another profile".to_owned(), encode(&other_key, &want.instructions)));
    let key = Key::of(&profile(1), CompileOptions::default());
    contents.push(("empty program".to_owned(), encode(&key, &[])));
    let end = Instruction { code: 6, jump_true: 0, jump_false: 0, k: 0 };
    contents.push(("too long".to_owned(), encode(&key, &[end; 4097])));
    contents.push(("no program".to_owned(), encode(&key, &[Instruction { code: 5, ..end }])));
    for (what, content) in contents {
        std::fs::write(&file, &content).unwrap();
        assert_eq!(place.cache().read(&key), None, "{what}");
        assert_eq!(filter(&place.cache(), &profile(1)), want, "{what}");
        assert_eq!(std::fs::read(&file).unwrap(), whole, "{what}");
    }
}

#[test]
fn what_others_can_write_is_not_used() {
    let place = Place::new();
    let want = filter(&place.cache(), &profile(1));
    let key = Key::of(&profile(1), CompileOptions::default());
    let file = place.files().remove(0);
    assert!(place.cache().read(&key).is_some());
    let mode = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    };
    for bad in [0o620, 0o602, 0o666] {
        mode(&file, bad);
        assert_eq!(place.cache().read(&key), None, "{bad:o}");
    }
    mode(&file, 0o600);
    // as another user's file
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&file, Some(65534), None).unwrap();
        assert_eq!(place.cache().read(&key), None);
        std::os::unix::fs::chown(&file, Some(0), None).unwrap();
    }
    // links are not followed
    let elsewhere = place.directory.path().join("elsewhere");
    std::fs::rename(&file, &elsewhere).unwrap();
    symlink(&elsewhere, &file).unwrap();
    assert_eq!(place.cache().read(&key), None);
    assert_eq!(filter(&place.cache(), &profile(1)), want);
    assert!(!std::fs::symlink_metadata(&file).unwrap().is_symlink());

    let open = |path: &std::path::Path| Cache::open(File::open(path).unwrap().into()).map(drop);
    assert_eq!(open(&file), Err(Errno::NOTDIR));
    for bad in [0o770, 0o707, 0o1777] {
        mode(place.directory.path(), bad);
        assert_eq!(open(place.directory.path()), Err(Errno::ACCESS), "{bad:o}");
    }
    mode(place.directory.path(), 0o700);
    assert_eq!(open(place.directory.path()), Ok(()));
}

#[test]
fn the_oldest_make_place() {
    let place = Place::new();
    let left = place.directory.path().join("temporary-1-1");
    std::fs::write(&left, "of a process that has ended in the middle").unwrap();
    let day = |day: u32| std::time::UNIX_EPOCH + Duration::from_secs(86_400 * u64::from(day));
    File::options().write(true).open(&left).unwrap().set_modified(day(0)).unwrap();
    for errno in 1..100 {
        let path = {
            let before = place.files();
            filter(&place.cache(), &profile(errno));
            place.files().into_iter().find(|path| !before.contains(path)).unwrap()
        };
        File::options().write(true).open(path).unwrap().set_modified(day(errno)).unwrap();
    }
    assert_eq!(place.files().len(), MAXIMUM_ENTRIES);
    assert!(!left.exists());
    for errno in 1..100 {
        let key = Key::of(&profile(errno), CompileOptions::default());
        assert_eq!(place.cache().read(&key).is_some(), errno >= 100 - MAXIMUM_ENTRIES as u32);
    }
}

#[test]
fn a_directory_that_cannot_be_written_changes_nothing() {
    let place = Place::new();
    let cache = place.cache();
    std::fs::remove_dir(place.directory.path()).unwrap();
    let want = compile_oci(&profile(1), CompileOptions::default()).unwrap().unwrap();
    assert_eq!(filter(&cache, &profile(1)), want);
}

#[test]
fn many_at_once_leave_one_file() {
    let place = Place::new();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| filter(&place.cache(), &profile(7)));
        }
    });
    assert_eq!(place.files().len(), 1);
}

/// Any profile, valid or not: keys are of what is written.
fn any_profile() -> impl Strategy<Value = Seccomp> {
    let text = "[A-Z]{0,2}";
    let argument = (0u32..2, 0u64..2, 0u64..2, text)
        .prop_map(|(index, value, value_two, op)| SeccompArgument { index, value, value_two, op });
    let rule = (
        proptest::collection::vec(text, 0..3),
        text,
        proptest::option::of(0u32..2),
        proptest::collection::vec(argument, 0..3),
    )
        .prop_map(|(names, action, errno_ret, args)| SeccompRule {
            names,
            action,
            errno_ret,
            args,
        });
    (
        (text, proptest::option::of(0u32..2)),
        proptest::collection::vec(text, 0..3),
        proptest::option::of(proptest::collection::vec(text, 0..3)),
        (text, text),
        proptest::collection::vec(rule, 0..3),
    )
        .prop_map(
            |(
                (default_action, default_errno_ret),
                architectures,
                flags,
                (listener_path, listener_metadata),
                syscalls,
            )| Seccomp {
                default_action,
                default_errno_ret,
                architectures,
                flags,
                listener_path,
                listener_metadata,
                syscalls,
            },
        )
}

/// Every way to change one field. Without `..`, so that a new field does not compile until it is here.
fn changed(profile: &Seccomp) -> Vec<Seccomp> {
    let Seccomp {
        default_action: _,
        default_errno_ret,
        architectures: _,
        flags,
        listener_path: _,
        listener_metadata: _,
        syscalls,
    } = profile;
    let longer = |text: &String| format!("{text}X");
    let number = |number: &Option<u32>| match number {
        None => vec![Some(0)],
        Some(number) => vec![None, Some(number + 1)],
    };
    let mut all = Vec::new();
    let mut add = |change: &dyn Fn(&mut Seccomp)| {
        let mut copy = profile.clone();
        change(&mut copy);
        all.push(copy);
    };
    add(&|it| it.default_action.push('X'));
    add(&|it| it.architectures.push(String::new()));
    add(&|it| it.architectures.insert(0, "Y".to_owned()));
    add(&|it| it.listener_path.push('X'));
    add(&|it| it.listener_metadata.push('X'));
    add(&|it| it.syscalls.push(SeccompRule::default()));
    for value in number(default_errno_ret) {
        add(&|it| it.default_errno_ret = value);
    }
    match flags {
        None => add(&|it| it.flags = Some(Vec::new())),
        Some(flags) => {
            add(&|it| it.flags = None);
            add(&|it| it.flags = Some([&flags[..], &[String::new()]].concat()));
        }
    }
    for (at, rule) in syscalls.iter().enumerate() {
        let SeccompRule { names, action: _, errno_ret, args } = rule;
        add(&|it| drop(it.syscalls.remove(at)));
        add(&|it| it.syscalls[at].action.push('X'));
        add(&|it| it.syscalls[at].names.push(String::new()));
        for (place, name) in names.iter().enumerate() {
            add(&|it| it.syscalls[at].names[place] = longer(name));
        }
        for value in number(errno_ret) {
            add(&|it| it.syscalls[at].errno_ret = value);
        }
        for (place, argument) in args.iter().enumerate() {
            let SeccompArgument { index, value, value_two, op } = argument;
            add(&|it| drop(it.syscalls[at].args.remove(place)));
            add(&|it| it.syscalls[at].args[place].index = index + 1);
            add(&|it| it.syscalls[at].args[place].value = value + 1);
            add(&|it| it.syscalls[at].args[place].value_two = value_two + 1);
            add(&|it| it.syscalls[at].args[place].op = longer(op));
        }
    }
    all
}

proptest! {
    #[test]
    fn profiles_that_differ_in_one_field_have_different_keys(profile in any_profile()) {
        let options = CompileOptions::default();
        let key = Key::of(&profile, options);
        prop_assert_eq!(key, Key::of(&profile.clone(), options));
        for other in changed(&profile) {
            if other != profile {
                prop_assert_ne!(key, Key::of(&other, options), "{:?} {:?}", profile, other);
            }
        }
        let open = CompileOptions { close_socketcall: !options.close_socketcall };
        prop_assert_ne!(key, Key::of(&profile, open));
    }

    #[test]
    fn keys_are_the_same_for_the_same_profile_only(one in any_profile(), two in any_profile()) {
        let key = |it| Key::of(it, CompileOptions::default());
        prop_assert_eq!(key(&one) == key(&two), one == two);
    }
}
