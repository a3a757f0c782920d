//! `config.json`: what parses is written and read again without a difference, and compiles to a
//! plan or to an error of one line.
#![no_main]

use bulkhead_runtime::Plan;
use bulkhead_runtime::plan::{BundleOptions, BundleSources};
use bulkhead_types::oci::{Config, Process};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let Ok(config) = serde_json::from_slice::<Config>(text) else { return };
    let written = serde_json::to_vec(&config).expect("what was read can be written");
    let again: Config = serde_json::from_slice(&written).expect("what was written can be read");
    let rewritten = serde_json::to_vec(&again).expect("what was read can be written");
    assert_eq!(written, rewritten, "a second writing differs");

    let options = BundleOptions {
        id: "fuzz".to_owned(),
        bundle: "/bundle".into(),
        no_pivot: false,
        new_keyring: true,
        preserve_fds: 0,
        filter: None,
    };
    let sources = BundleSources { rootfs_path: "/bundle/rootfs".into(), ..Default::default() };
    match Plan::bundle(&config, &sources, &options) {
        Ok(plan) => {
            let text = plan.to_string();
            assert!(!text.is_empty());
            // as it travels to a child that was made before it
            let decoded = plan.encode().and_then(|bytes| Plan::decode(&bytes));
            assert_eq!(decoded.expect("a plan is bytes").to_string(), text);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    // a process of `exec --process FILE` in the same container
    let process = config.process.clone().unwrap_or_else(Process::default);
    let _ = Plan::bundle_exec(&config, &process, &[], 0, &options).map(|plan| plan.to_string());
});
