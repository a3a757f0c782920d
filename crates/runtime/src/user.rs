//! Docker's `--user` and `--group-add`, resolved against the container's own user database.
//!
//! Pure functions over the text of `/etc/passwd` and `/etc/group` (passwd(5), group(5)). Meaning and
//! messages are those of moby/sys/user, which Docker and runc use; what differs is strictness: a
//! number is ASCII digits and nothing else, so that no slip of a parser ends at uid 0.

/// The ids that a process gets, and its home directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedUser {
    pub uid: u32,
    pub gid: u32,
    /// For setgroups(2). The primary group is among them, as in Docker since CVE-2022-36109.
    pub additional_gids: Vec<u32>,
    /// For `HOME` where the environment has none; `/` when the user is not in the database.
    pub home: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    #[error("unable to find user {0}: no matching entries in passwd file")]
    UserNotFound(String),
    #[error("unable to find group {0}: no matching entries in group file")]
    GroupNotFound(String),
    #[error("invalid user {0:?}: uids and gids must be in range 0-2147483647")]
    OutOfRange(String),
    #[error("invalid user {0:?}: write USER, UID, USER:GROUP or UID:GID")]
    Malformed(String),
}

/// Resolves `name` (`""`, `user`, `uid`, `user:group`, `uid:gid`, in any mix) and the groups of
/// `--group-add`, given the two files' text; a file that does not exist is empty text.
///
/// A group that is named replaces the user's supplementary groups; without one they are all groups
/// that list the user. A number needs no entry, a name does.
pub fn resolve(
    name: &str,
    additional_groups: &[String],
    passwd: &[u8],
    group: &[u8],
) -> Result<ResolvedUser, UserError> {
    let (user, primary_group) = split(name)?;
    let wanted = user.map(|user| Wanted::parse(user, name)).transpose()?;
    let entry = find_user(wanted.as_ref(), passwd);

    let mut resolved = ResolvedUser { uid: 0, gid: 0, additional_gids: vec![], home: "/".into() };
    match (&entry, &wanted) {
        (Some(entry), _) => {
            resolved.uid = entry.uid;
            resolved.gid = entry.gid;
            if !entry.home.is_empty() {
                resolved.home = String::from_utf8_lossy(entry.home).into_owned();
            }
        }
        (None, Some(Wanted::Id(uid))) => resolved.uid = *uid,
        (None, Some(Wanted::Name(user))) => {
            return Err(UserError::UserNotFound((*user).to_owned()));
        }
        // no user asked for, and an image without a database: root without a name
        (None, None) => {}
    }

    let mut supplementary = Vec::new();
    if let Some(primary_group) = primary_group {
        resolved.gid = find_group(primary_group, name, group)?;
    } else if let Some(entry) = &entry {
        supplementary.extend(groups(group).filter(|it| it.has_member(entry.name)).map(|it| it.gid));
    }
    for additional in additional_groups {
        supplementary.push(find_group(additional, additional, group)?);
    }

    resolved.additional_gids.push(resolved.gid);
    for gid in supplementary {
        if !resolved.additional_gids.contains(&gid) {
            resolved.additional_gids.push(gid);
        }
    }
    Ok(resolved)
}

/// The home directory of `uid` in the text of `/etc/passwd`; `/` where it has none, as in runc.
pub fn home(uid: u32, passwd: &[u8]) -> String {
    let entry = find_user(Some(&Wanted::Id(uid)), passwd).filter(|entry| !entry.home.is_empty());
    entry.map_or_else(|| "/".to_owned(), |entry| String::from_utf8_lossy(entry.home).into_owned())
}

/// Splits at the colon. `1000:` is `1000`, as in Docker; `:1000` is refused, since it comes from a
/// shell variable that was not set far more often than from a wish to be root.
fn split(name: &str) -> Result<(Option<&str>, Option<&str>), UserError> {
    let malformed = || UserError::Malformed(name.to_owned());
    if name.contains(['\0', '\n']) {
        return Err(malformed());
    }
    match name.split_once(':') {
        None if name.is_empty() => Ok((None, None)),
        None => Ok((Some(name), None)),
        Some(("", _)) => Err(malformed()),
        Some((_, group)) if group.contains(':') => Err(malformed()),
        Some((user, "")) => Ok((Some(user), None)),
        Some((user, group)) => Ok((Some(user), Some(group))),
    }
}

/// What one side of the colon asks for. A number never matches a name, even if a user is called so.
#[derive(Debug, PartialEq, Eq)]
enum Wanted<'a> {
    Id(u32),
    Name(&'a str),
}

impl<'a> Wanted<'a> {
    fn parse(text: &'a str, whole: &str) -> Result<Self, UserError> {
        let out_of_range = || UserError::OutOfRange(whole.to_owned());
        // "-1" is a number out of range rather than a name, so that the message says so
        let digits = text.strip_prefix('-').unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(Self::Name(text));
        }
        parse_id(text.as_bytes()).map(Self::Id).ok_or_else(out_of_range)
    }
}

fn find_user<'a>(wanted: Option<&Wanted<'_>>, passwd: &'a [u8]) -> Option<UserEntry<'a>> {
    users(passwd).find(|entry| match wanted {
        None => entry.uid == 0,
        Some(Wanted::Id(uid)) => entry.uid == *uid,
        Some(Wanted::Name(name)) => entry.name == name.as_bytes(),
    })
}

fn find_group(text: &str, whole: &str, group: &[u8]) -> Result<u32, UserError> {
    match Wanted::parse(text, whole)? {
        Wanted::Id(gid) => Ok(gid),
        Wanted::Name(name) => groups(group)
            .find(|entry| entry.name == name.as_bytes())
            .map(|entry| entry.gid)
            .ok_or_else(|| UserError::GroupNotFound(name.to_owned())),
    }
}

#[derive(Debug, PartialEq, Eq)]
struct UserEntry<'a> {
    name: &'a [u8],
    uid: u32,
    gid: u32,
    home: &'a [u8],
}

/// The valid lines of passwd(5). A line whose ids are no numbers is skipped, never read as 0.
fn users(passwd: &[u8]) -> impl Iterator<Item = UserEntry<'_>> {
    lines(passwd).filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let uid = parse_id(fields.nth(1)?)?;
        let gid = parse_id(fields.next()?)?;
        let home = fields.nth(1).unwrap_or_default();
        Some(UserEntry { name, uid, gid, home })
    })
}

#[derive(Debug, PartialEq, Eq)]
struct GroupEntry<'a> {
    name: &'a [u8],
    gid: u32,
    members: &'a [u8],
}

impl GroupEntry<'_> {
    fn has_member(&self, name: &[u8]) -> bool {
        self.members.split(|byte| *byte == b',').any(|member| member == name)
    }
}

/// The valid lines of group(5).
fn groups(group: &[u8]) -> impl Iterator<Item = GroupEntry<'_>> {
    lines(group).filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = parse_id(fields.nth(1)?)?;
        Some(GroupEntry { name, gid, members: fields.next().unwrap_or_default() })
    })
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    lines.filter(|line| !line.is_empty() && line[0] != b'#')
}

/// Reads an id of 0 to 2^31 - 1, the range of moby/sys/user; (uid_t) -1 means "leave it" to the
/// kernel's set*id calls and must never come out of here.
fn parse_id(text: &[u8]) -> Option<u32> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?;
    text.parse().ok().filter(|id| *id <= MAXIMUM_ID)
}

const MAXIMUM_ID: u32 = i32::MAX as u32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
# a comment
daemon:x:1:1::/usr/sbin:/usr/sbin/nologin
  app:x:1000:1001:App,,,:/home/app:/bin/sh

1234:x:77:77::/numeric:
homeless:x:1005:1005::
short:x:1006:1006
evil:x:4294967296:0::/:/bin/sh
evil2:x:-1:0::/:/bin/sh
evil3:x::0::/:/bin/sh
evil4:x:+0:0::/:/bin/sh
evil5:x: 0:0::/:/bin/sh
:x:0:0::/:/bin/sh
+::::::
app:x:2000:2000:second of the name:/second:/bin/sh
";
    const GROUP: &str = "\
root:x:0:
wheel:x:10:root,app
app:x:1001:
audio:x:29:app
video:x:44:application
99:x:55:
evil:x:4294967295:app
evil2:x:abc:app
bare:x:60
";

    fn resolved(name: &str, groups: &[&str]) -> Result<(u32, u32, Vec<u32>, String), String> {
        let groups: Vec<String> = groups.iter().map(|it| (*it).to_owned()).collect();
        resolve(name, &groups, PASSWD.as_bytes(), GROUP.as_bytes())
            .map(|it| (it.uid, it.gid, it.additional_gids, it.home))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn users_and_groups_resolve_as_in_docker() {
        for (name, groups, uid, gid, gids, home) in [
            ("", &[][..], 0, 0, &[0, 10][..], "/root"),
            ("root", &[], 0, 0, &[0, 10], "/root"),
            ("0", &[], 0, 0, &[0, 10], "/root"),
            ("00", &[], 0, 0, &[0, 10], "/root"),
            ("app", &[], 1000, 1001, &[1001, 10, 29], "/home/app"),
            ("1000", &[], 1000, 1001, &[1001, 10, 29], "/home/app"),
            ("1000:", &[], 1000, 1001, &[1001, 10, 29], "/home/app"),
            ("app:wheel", &[], 1000, 10, &[10], "/home/app"),
            ("app:10", &[], 1000, 10, &[10], "/home/app"),
            ("app:0", &[], 1000, 0, &[0], "/home/app"),
            ("app:777", &[], 1000, 777, &[777], "/home/app"),
            // a number needs no entry, and is never the name of one
            ("1234", &[], 1234, 0, &[0], "/"),
            ("1234:99", &[], 1234, 99, &[99], "/"),
            ("2147483647:2147483647", &[], 2147483647, 2147483647, &[2147483647], "/"),
            ("homeless", &[], 1005, 1005, &[1005], "/"),
            ("short", &[], 1006, 1006, &[1006], "/"),
            ("1000", &["audio", "777", "audio"], 1000, 1001, &[1001, 10, 29, 777], "/home/app"),
            ("7", &["bare"], 7, 0, &[0, 60], "/"),
        ] {
            let want = Ok((uid, gid, gids.to_vec(), home.to_owned()));
            assert_eq!(resolved(name, groups), want, "{name} {groups:?}");
        }
    }

    #[test]
    fn what_is_no_user_is_refused_in_dockers_words() {
        let range = "uids and gids must be in range 0-2147483647";
        let no_user = "no matching entries in passwd file";
        let no_group = "no matching entries in group file";
        for (name, groups, want) in [
            ("foo", &[][..], format!("unable to find user foo: {no_user}")),
            ("app:bar", &[], format!("unable to find group bar: {no_group}")),
            ("app", &["bar"], format!("unable to find group bar: {no_group}")),
            ("4294967296", &[], format!("invalid user \"4294967296\": {range}")),
            ("4294967295", &[], format!("invalid user \"4294967295\": {range}")),
            ("2147483648", &[], format!("invalid user \"2147483648\": {range}")),
            (
                "99999999999999999999999",
                &[],
                format!("invalid user \"99999999999999999999999\": {range}"),
            ),
            ("-1", &[], format!("invalid user \"-1\": {range}")),
            ("-0", &[], format!("invalid user \"-0\": {range}")),
            ("1000:99999999999", &[], format!("invalid user \"1000:99999999999\": {range}")),
            ("1000", &["-1"], format!("invalid user \"-1\": {range}")),
            ("+0", &[], format!("unable to find user +0: {no_user}")),
            ("0x0", &[], format!("unable to find user 0x0: {no_user}")),
            (" 0", &[], format!("unable to find user  0: {no_user}")),
            ("0 ", &[], format!("unable to find user 0 : {no_user}")),
            ("\u{660}", &[], format!("unable to find user \u{660}: {no_user}")),
            ("evil", &[], format!("unable to find user evil: {no_user}")),
            ("evil2", &[], format!("unable to find user evil2: {no_user}")),
            ("evil3", &[], format!("unable to find user evil3: {no_user}")),
            ("evil4", &[], format!("unable to find user evil4: {no_user}")),
            ("evil5", &[], format!("unable to find user evil5: {no_user}")),
            ("app:evil", &[], format!("unable to find group evil: {no_group}")),
            ("app", &[""], format!("unable to find group : {no_group}")),
        ] {
            assert_eq!(resolved(name, groups), Err(want), "{name} {groups:?}");
        }
        for name in [":", ":1", "::", "1:2:3", "1::", "a\nb", "a\0"] {
            let error = resolved(name, &[]).unwrap_err();
            assert!(error.starts_with("invalid user "), "{name:?}: {error}");
        }
    }

    #[test]
    fn an_image_without_a_database_has_root_and_numbers() {
        let root = resolve("", &[], b"", b"").unwrap();
        assert_eq!((root.uid, root.gid, root.home.as_str()), (0, 0, "/"));
        assert_eq!(resolve("5:6", &[], b"", b"").unwrap().additional_gids, [6]);
        assert!(resolve("root", &[], b"", b"").is_err());
    }

    proptest! {
        /// Whatever is typed and whatever the image's files hold: root only for those who asked.
        #[test]
        fn root_never_comes_by_slip(name in "[-+ 0-9a-fx:]{1,12}", passwd in "[a-c0-9:+\n -]{0,80}") {
            let first = name.split(':').next().unwrap_or_default();
            let asked = first.bytes().all(|byte| byte == b'0');
            let file = format!("z:x:5:5::/:\n{passwd}");
            if let Ok(user) = resolve(&name, &[], file.as_bytes(), b"")
                && user.uid == 0 && !asked
            {
                let named = passwd.lines().any(|line| {
                    let fields: Vec<&str> = line.trim().split(':').collect();
                    fields[0] == first && fields.len() > 3 && !fields[2].is_empty()
                        && fields[2].bytes().all(|byte| byte == b'0')
                });
                prop_assert!(named, "{name:?} became root");
            }
        }

        #[test]
        fn a_number_is_that_number(uid in 0u32..=i32::MAX as u32, gid in 0u32..=i32::MAX as u32) {
            let user = resolve(&format!("{uid}:{gid}"), &[], PASSWD.as_bytes(), GROUP.as_bytes()).unwrap();
            prop_assert_eq!((user.uid, user.gid), (uid, gid));
            prop_assert_eq!(user.additional_gids, vec![gid]);
        }

        #[test]
        fn any_bytes_are_survived(
            name in "\\PC{0,20}",
            passwd in proptest::collection::vec(any::<u8>(), 0..200),
            group in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = resolve(&name, std::slice::from_ref(&name), &passwd, &group);
        }

        #[test]
        fn ids_of_an_entry_are_what_it_says(uid in 1u64..1 << 40, gid in 1u64..1 << 40) {
            let passwd = format!("u:x:{uid}:{gid}::/h:/s\n");
            match resolve("u", &[], passwd.as_bytes(), b"") {
                Ok(user) => prop_assert_eq!((u64::from(user.uid), u64::from(user.gid)), (uid, gid)),
                Err(_) => prop_assert!(uid > i32::MAX as u64 || gid > i32::MAX as u64),
            }
        }
    }
}
