//! Users: Docker's `--user` with the container's files, and the numbers of `oci exec --user`.
//!
//! Nothing but a number, or an entry of the files, may come to uid 0.
#![no_main]

use bulkhead_runtime::user::{home, resolve};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((name, group, passwd, groups)) = parts(input) else { return };
    if let Ok(found) = resolve(name, &[], passwd, groups) {
        check(name, found.uid, passwd.is_empty());
        assert!(found.additional_gids.contains(&found.gid));
        assert!(!home(found.uid, passwd).is_empty());
    }
    let additional = [group.to_owned()];
    if let Ok(found) = resolve(name, &additional, passwd, groups) {
        let mut sorted = found.additional_gids.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), found.additional_gids.len(), "a group is there twice");
    }
    if let Some((uid, gid)) = bulkhead_oci::fuzzing::user(name) {
        let (user, group) = name.split_once(':').unwrap_or((name, "0"));
        assert_eq!(Some(uid), number(user), "{name:?} is {uid}");
        assert_eq!(Some(gid), number(group), "{name:?} is {gid}");
    }
});

/// The name in the first line, a group in the second, then the two files with a line `--` between.
fn parts(input: &[u8]) -> Option<(&str, &str, &[u8], &[u8])> {
    let mut lines = input.splitn(3, |byte| *byte == b'\n');
    let name = str::from_utf8(lines.next()?).ok()?;
    let group = str::from_utf8(lines.next()?).ok()?;
    let files = lines.next()?;
    let at = files.windows(3).position(|window| window == b"--\n");
    let (passwd, groups) = at.map_or((files, &[][..]), |at| (&files[..at], &files[at + 3..]));
    Some((name, group, passwd, groups))
}

/// Without a user database root is nobody but `0` and the empty name.
fn check(name: &str, uid: u32, without_users: bool) {
    let user = name.split(':').next().unwrap_or_default();
    if without_users {
        assert_eq!(Some(uid), if user.is_empty() { Some(0) } else { number(user) }, "{name:?}");
    }
}

/// An oracle of another kind: digit by digit.
fn number(text: &str) -> Option<u32> {
    let digit = |letter: char| letter.is_ascii().then(|| letter.to_digit(10)).flatten();
    let value = text.chars().try_fold(0u64, |value, letter| {
        Some((value * 10 + u64::from(digit(letter)?)).min(u64::from(u32::MAX) + 1))
    })?;
    u32::try_from(value).ok().filter(|_| !text.is_empty())
}
