//! Compiled seccomp profiles that the OCI runtime keeps for the next container.
#![forbid(unsafe_code)]

use anyhow::{Context, Result};
use bulkhead_tests::bundle::{Bundle, Runtime};
use serde_json::json;

/// What is kept below a runtime's `--root`.
fn kept(bundle: &Bundle) -> Result<Vec<std::path::PathBuf>> {
    let directory = bundle.beside("state").join(".seccomp");
    let entries = std::fs::read_dir(&directory).with_context(|| directory.display().to_string())?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

#[test]
fn a_profile_is_compiled_once() -> Result<()> {
    let runtime = Runtime::bulkhead();
    let mut bundle = Bundle::new(&["sh", "-c", "mkdir /tmp/made || echo refused"])?;
    let profile = |errno: u32| {
        json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{
            "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno }] })
    };
    bundle.config["linux"]["seccomp"] = profile(1);
    // the directory that it is kept in comes with the first container
    for _ in 0..2 {
        runtime.run(&bundle)?.expect(0, "refused")?;
    }
    let [file] = kept(&bundle)?.try_into().ok().context("one profile, one file")?;
    let written = std::fs::metadata(&file)?.modified()?;
    runtime.run(&bundle)?.expect(0, "refused")?;
    assert_eq!(std::fs::metadata(&file)?.modified()?, written);
    // one that was written to by somebody is compiled anew
    std::fs::write(&file, [0; 100])?;
    runtime.run(&bundle)?.expect(0, "refused")?;
    assert!(std::fs::metadata(&file)?.len() > 100);
    bundle.config["linux"]["seccomp"] = profile(13);
    runtime.run(&bundle)?.expect(0, "refused")?;
    assert_eq!(kept(&bundle)?.len(), 2);
    Ok(())
}
