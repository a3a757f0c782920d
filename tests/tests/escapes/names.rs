//! Names in a configuration that would be paths.

use anyhow::Result;
use bulkhead_tests::bundle::{Bundle, Container, Runtime};
use serde_json::json;

use crate::{Attempt, entries, stopped_here};

/// An id is a directory's name below the state's.
#[test]
fn cve_2025_24965_ids_that_are_paths() -> Result<()> {
    stopped_here("CVE-2025-24965 (its class), ids", Runtime::weakened("ids"), |runtime| {
        let bundle = Bundle::new(&["true"])?;
        std::fs::create_dir_all(bundle.beside("state"))?;
        let before = entries(bundle.path())?;
        let container = Container::new(runtime, &bundle)?;
        let path = bundle.path().to_string_lossy().into_owned();
        for id in ["../planted", "a/../../planted", ".", "..", "a/b", "", "a\nb"] {
            // kept, so that what it made is seen
            let said = container.say(&["run", "--keep", "--bundle", &path, id])?;
            let after: Vec<String> =
                entries(bundle.path())?.into_iter().filter(|it| !before.contains(it)).collect();
            let planted: Vec<&String> = after.iter().filter(|it| *it != "config.json").collect();
            if said.code == 0 || !planted.is_empty() {
                let _ = container.say(&["delete", "--force", id]);
                return Ok(Attempt::Escaped(format!("{id:?} made {planted:?}")));
            }
        }
        Ok(Attempt::Stopped("all seven are refused".to_owned()))
    })
}

/// A cgroup's path stays below the root of each hierarchy.
#[test]
fn cgroup_paths_stay_below_their_hierarchy() -> Result<()> {
    for path in ["/../../bhtest-escaped", "../../../../bhtest-escaped/x", "/a/../../bhtest-escaped"]
    {
        let mut bundle = Bundle::new(&["cat", "/proc/self/cgroup"])?;
        if let Some(namespaces) = bundle.config["linux"]["namespaces"].as_array_mut() {
            namespaces.retain(|it| it["type"] != "cgroup");
        }
        let name = format!("bhtest-{}", std::process::id());
        let own = path.replace("bhtest-escaped", &name);
        bundle.config["linux"]["cgroupsPath"] = json!(own);
        let said = Runtime::bulkhead().run(&bundle)?;
        for parent in ["/sys/fs", "/sys", "/", "/sys/fs/cgroup"] {
            assert!(!std::path::Path::new(parent).join(&name).exists(), "{parent} after {own}");
        }
        // in the hierarchy, under that very name, or refused
        assert!(said.code != 0 || said.stdout.contains(&name), "{own}: {}", said.stdout);
        // what a path had before its last part is the caller's to remove
        let line = format!("find /sys/fs/cgroup -depth -type d -name {name} -exec rmdir {{}} +");
        bulkhead_tests::run(std::process::Command::new("sh").args(["-c", &line]))?.ok()?;
    }
    Ok(())
}
