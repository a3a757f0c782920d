//! Whose the files are that COPY makes: `--chown` and `--chmod`.

use std::io;
use std::path::Path;

use crate::view::View;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Resolves `user[:group]`, names by the image's own `/etc/passwd` and `/etc/group`.
///
/// Without a group a name has the group of its passwd entry, and a number the same number
/// (BuildKit: solver/llbsolver/file/user_linux.go).
pub(crate) fn resolve(text: &str, view: &View) -> io::Result<Result<Owner, String>> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let (uid, own_group) = match user.parse::<u32>() {
        Ok(uid) => (uid, uid),
        Err(_) => match entry(view, "/etc/passwd", user)? {
            Some(fields) => match (number(&fields, 2), number(&fields, 3)) {
                (Some(uid), Some(gid)) => (uid, gid),
                _ => return Ok(Err(format!("the entry of {user} in /etc/passwd is malformed"))),
            },
            None => {
                return Ok(Err(format!(
                    "unable to find user {user}: no matching entries in passwd file"
                )));
            }
        },
    };
    let gid = match group {
        None | Some("") => own_group,
        Some(group) => match group.parse() {
            Ok(gid) => gid,
            Err(_) => {
                let fields = entry(view, "/etc/group", group)?;
                match fields.and_then(|fields| number(&fields, 2)) {
                    Some(gid) => gid,
                    None => {
                        return Ok(Err(format!(
                            "unable to find group {group}: no matching entries in group file"
                        )));
                    }
                }
            }
        },
    };
    Ok(Ok(Owner { uid, gid }))
}

fn entry(view: &View, file: &str, name: &str) -> io::Result<Option<Vec<String>>> {
    let bytes = view.read_small(Path::new(file), LARGEST)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
    Ok(text.lines().map(fields).find(|fields| fields.first().is_some_and(|first| first == name)))
}

fn number(fields: &[String], index: usize) -> Option<u32> {
    fields.get(index)?.trim().parse().ok()
}

/// Bytes of `/etc/passwd`: enough for some ten thousand users.
const LARGEST: u64 = 1 << 20;

/// `--chmod`: `755`, or chmod(1)'s `u=rwX,go=rX`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ModeChange {
    Octal(u32),
    Symbolic(Vec<Clause>),
}

/// One of `u+x`: for whom (masks of the mode's bits), how, and what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Clause {
    who: u32,
    operator: char,
    permissions: String,
}

impl ModeChange {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let invalid = || {
            format!(
                "invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777, or symbolic as u=rwX,go=rX"
            )
        };
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            return match u32::from_str_radix(text, 8) {
                Ok(mode) if mode <= 0o7777 => Ok(Self::Octal(mode)),
                _ => Err(invalid()),
            };
        }
        let mut clauses = Vec::new();
        for clause in text.split(',') {
            let at = clause.find(['+', '-', '=']).ok_or_else(invalid)?;
            let (who, rest) = clause.split_at(at);
            let who = who.chars().try_fold(0, |mask, who| match who {
                'u' => Some(mask | 0o4700),
                'g' => Some(mask | 0o2070),
                'o' => Some(mask | 0o1007),
                'a' => Some(0o7777),
                _ => None,
            });
            let who = match who.ok_or_else(invalid)? {
                0 => 0o7777,
                who => who,
            };
            let mut operator = ' ';
            for part in rest.split_inclusive(['+', '-', '=']) {
                // `+rw=`: what stands before the next operator belongs to the one before it.
                let (permissions, next) = match part.strip_suffix(['+', '-', '=']) {
                    Some(permissions) => (permissions, part.chars().last()),
                    None => (part, None),
                };
                if !permissions.chars().all(|c| "rwxXst".contains(c)) {
                    return Err(invalid());
                }
                if operator != ' ' {
                    clauses.push(Clause { who, operator, permissions: permissions.to_owned() });
                }
                operator = next.unwrap_or(' ');
            }
            if operator != ' ' {
                clauses.push(Clause { who, operator, permissions: String::new() });
            }
        }
        Ok(Self::Symbolic(clauses))
    }

    /// The permission bits (07777) after the change.
    pub(crate) fn apply(&self, mode: u32, directory: bool) -> u32 {
        let mode = mode & 0o7777;
        let clauses = match self {
            Self::Octal(mode) => return *mode,
            Self::Symbolic(clauses) => clauses,
        };
        clauses.iter().fold(mode, |mode, clause| {
            let bits = clause.permissions.chars().fold(0, |bits, permission| {
                bits | match permission {
                    'r' => 0o444,
                    'w' => 0o222,
                    'x' => 0o111,
                    'X' if directory || mode & 0o111 != 0 => 0o111,
                    's' => 0o6000,
                    't' => 0o1000,
                    _ => 0,
                }
            });
            let bits = bits & clause.who;
            match clause.operator {
                '+' => mode | bits,
                '-' => mode & !bits,
                // As chmod(1): `=` leaves setuid and setgid of a directory alone.
                _ if directory => mode & !(clause.who & 0o777) | bits,
                _ => mode & !clause.who | bits,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_change_like_chmod() {
        for (change, mode, directory, want) in [
            ("755", 0o600, false, 0o755),
            ("0644", 0o777, true, 0o644),
            ("4755", 0o644, false, 0o4755),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, false, 0o755),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("+x", 0o644, false, 0o755),
            ("a-w", 0o666, false, 0o444),
            ("g+s,o=", 0o755, false, 0o2750),
            ("u+rw-x", 0o100, false, 0o600),
        ] {
            let parsed = ModeChange::parse(change).expect(change);
            assert_eq!(parsed.apply(mode, directory), want, "{change} of {mode:o}");
        }
        for wrong in ["", "8", "10000", "rwx", "z+x", "u+q", "u"] {
            assert!(ModeChange::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn owners_are_the_image_s_own() {
        let root = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(root.path().join("etc")).expect("makes it");
        std::fs::write(root.path().join("etc/passwd"), "root:x:0:0::/:\nweb:x:33:34::/:\n")
            .expect("writes it");
        std::fs::write(root.path().join("etc/group"), "web:x:35:\n").expect("writes it");
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY;
        let root = bulkhead_sys::path::open_host(root.path(), flags).expect("opens it");
        let view = View::new(vec![root]);
        for (text, want) in [
            ("web", Some((33, 34))),
            ("web:web", Some((33, 35))),
            ("55", Some((55, 55))),
            ("55:7", Some((55, 7))),
            ("web:0", Some((33, 0))),
            ("nobody", None),
            ("web:nobody", None),
        ] {
            let owner = resolve(text, &view).expect("reads").ok();
            assert_eq!(owner, want.map(|(uid, gid)| Owner { uid, gid }), "{text}");
        }
    }
}
