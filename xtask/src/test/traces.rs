//! What a test could leave on the machine: mounts, network namespaces, links, cgroups.
//!
//! Others work on the same machine, with a Bulkhead or a test run of their own. Only what is certain
//! to be a test's counts: what has its process number in its name, or lies in its directory.

use std::path::Path;

/// What carries one of these numbers, or is mounted below `directory`; one sentence for each.
pub fn of(numbers: &[String], directory: &Path) -> Vec<String> {
    let mut left = Vec::new();
    let below = directory.to_string_lossy();
    for line in std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().lines() {
        if let Some(at) = line.split(' ').nth(4)
            && at.starts_with(&*below)
        {
            left.push(format!("left mount {at}"));
        }
    }
    let mut look = |what: &str, directory: &Path| {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_ours(&name, numbers) {
                left.push(format!("left {what} {}", entry.path().display()));
            }
        }
    };
    look("network namespace", Path::new("/run/netns"));
    look("link", Path::new("/sys/class/net"));
    // the top of cgroup v2, and of each hierarchy of v1
    let top = Path::new("/sys/fs/cgroup");
    look("cgroup", top);
    for hierarchy in std::fs::read_dir(top).into_iter().flatten().flatten() {
        if hierarchy.file_type().is_ok_and(|kind| kind.is_dir()) {
            look("cgroup", &hierarchy.path());
        }
    }
    left
}

/// Whether a name of ours has one of the numbers in it, and not merely a longer one.
fn is_ours(name: &str, numbers: &[String]) -> bool {
    let ours =
        ["bh", "bulkhead", "one-", "two-", "net-"].iter().any(|start| name.starts_with(start));
    ours && name.split(|c: char| !c.is_ascii_digit()).any(|word| numbers.iter().any(|n| n == word))
}

#[cfg(test)]
mod tests {
    use super::is_ours;

    #[test]
    fn names_of_others_do_not_count() {
        let numbers = ["123".to_owned()];
        for (name, expected) in [
            ("bhtest-123-0", true),
            ("bulkhead-test-var-tmp-bhtest-123--tmpAb", true),
            ("bhtest-1234-0", false),
            ("bulkhead-test-9-0", false),
            ("docker-123", false),
            ("bhtest", false),
        ] {
            assert_eq!(is_ours(name, &numbers), expected, "{name}");
        }
    }
}
