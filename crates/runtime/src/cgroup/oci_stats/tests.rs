use super::*;
use crate::cgroup::tests::directory;

fn group(files: &[(&str, &str)]) -> (tempfile::TempDir, Directory) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let directory = directory(folder.path());
    (folder, directory)
}

#[test]
fn v2_is_told_in_the_terms_of_v1() {
    let (_folder, directory) = group(&[
        (
            "cpu.stat",
            "usage_usec 10\nuser_usec 6\nsystem_usec 4\nnr_periods 3\nnr_throttled 0\nthrottled_usec 2\n",
        ),
        (
            "cpu.pressure",
            "some avg10=1.50 avg60=0.00 avg300=0.00 total=7\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
        ),
        ("memory.stat", "anon 5\nfile 512\n"),
        ("memory.current", "4096\n"),
        ("memory.max", "8192\n"),
        ("memory.peak", "5000\n"),
        ("memory.swap.current", "4\n"),
        ("memory.swap.max", "100\n"),
        ("pids.current", "5\n"),
        ("pids.max", "max\n"),
        ("io.stat", "8:0 rbytes=10 wbytes=0 rios=1 wios=2 dbytes=0 dios=0\n254:16 \n"),
    ]);
    let controllers = ["memory", "pids", "io", "hugetlb"].map(str::to_owned).to_vec();
    let group = Group { directory, version: Version::V2, controllers, fresh: false };
    let cgroup = Cgroup {
        path: "/x".into(),
        mode: crate::cgroup::HostMode::V2,
        groups: vec![group],
        complete: true,
        refused: Vec::new(),
    };
    let stats = cgroup.oci_stats().unwrap();
    let pressure = json!({"some": {"avg10": 1.5, "avg60": 0.0, "avg300": 0.0, "total": 7}});
    assert_eq!(
        stats["cpu"],
        json!({
            "usage": {"total": 10_000, "kernel": 4000, "user": 6000},
            "throttling": {"periods": 3, "throttledTime": 2000},
            "psi": pressure,
        })
    );
    assert_eq!(
        stats["memory"],
        json!({
            "cache": 512,
            "usage": {"limit": 8192, "usage": 4096, "max": 5000, "failcnt": 0},
            "swap": {"limit": 8292, "usage": 4100, "failcnt": 0},
            "raw": {"anon": 5, "file": 512},
        })
    );
    assert_eq!(stats["pids"], json!({"current": 5}));
    assert_eq!(
        stats["blkio"],
        json!({
            "ioServiceBytesRecursive":
                [{"major": 8, "op": "Read", "value": 10}, {"major": 8, "op": "Write"}],
            "ioServicedRecursive":
                [{"major": 8, "op": "Read", "value": 1}, {"major": 8, "op": "Write", "value": 2}],
        })
    );
    assert_eq!(stats["cpuset"]["sched_relax_domain_level"], 0);
    assert_eq!((&stats["hugetlb"], &stats["intel_rdt"]), (&json!({}), &json!({})));
    assert_eq!(stats["network_interfaces"], Value::Null);
}

#[test]
fn v1_has_a_file_for_each() {
    let (_folder, directory) = group(&[
        ("cpuacct.usage", "30\n"),
        ("cpuacct.usage_sys", "10\n"),
        ("cpuacct.usage_user", "20\n"),
        ("cpuacct.usage_percpu", "10 20 \n"),
        ("cpuacct.usage_all", "cpu user system\n0 6 4\n1 14 6\n"),
        ("cpu.stat", "nr_periods 1\nnr_throttled 1\nthrottled_time 9\n"),
        ("cpuset.cpus", "0-2,7\n"),
        ("cpuset.mems", "0\n"),
        ("cpuset.sched_load_balance", "1\n"),
        ("cpuset.sched_relax_domain_level", "-1\n"),
        ("memory.stat", "cache 5\n"),
        ("memory.usage_in_bytes", "7\n"),
        ("memory.limit_in_bytes", "9223372036854771712\n"),
        ("memory.max_usage_in_bytes", "8\n"),
        ("memory.failcnt", "1\n"),
        ("blkio.bfq.sectors_recursive", ""),
        ("blkio.throttle.io_serviced_recursive", "8:0 Read 2\n8:0 Total 2\nTotal 2\n"),
        ("blkio.throttle.io_service_bytes_recursive", "8:0 Read 512\nTotal 512\n"),
    ]);
    let files = || Some(Files(&directory));
    assert_eq!(
        Value::from(cpu_v1(files(), files()).unwrap()),
        json!({
            "usage": {"total": 30, "percpu": [10, 20], "percpu_kernel": [4, 6],
                "percpu_user": [6, 14], "kernel": 10, "user": 20},
            "throttling": {"periods": 1, "throttledPeriods": 1, "throttledTime": 9},
        })
    );
    let cpuset = Value::from(cpuset(files()).unwrap());
    assert_eq!((&cpuset["cpus"], &cpuset["mems"]), (&json!([0, 1, 2, 7]), &json!([0])));
    assert_eq!(cpuset["sched_relax_domain_level"], -1);
    assert_eq!((&cpuset["sched_load_balance"], &cpuset["mem_hardwall"]), (&json!(1), &json!(0)));
    let memory = Value::from(memory_v1(files()).unwrap());
    assert_eq!(
        memory["usage"],
        json!({"limit": 9_223_372_036_854_771_712u64, "usage": 7, "max": 8, "failcnt": 1})
    );
    assert_eq!((&memory["cache"], &memory["swap"]), (&json!(5), &Value::Null));
    assert_eq!(
        Value::from(block_io_v1(files()).unwrap()),
        json!({
            "ioServicedRecursive": [{"major": 8, "op": "Read", "value": 2},
                {"major": 8, "op": "Total", "value": 2}],
            "ioServiceBytesRecursive": [{"major": 8, "op": "Read", "value": 512}],
        })
    );
}

#[test]
fn page_sizes_have_the_controllers_names() {
    for (name, want) in [
        ("hugepages-2048kB", Some("2MB")),
        ("hugepages-1048576kB", Some("1GB")),
        ("hugepages-64kB", Some("64KB")),
        ("hugepages-64", None),
        ("other", None),
    ] {
        assert_eq!(huge_page_size(name).as_deref(), want, "{name}");
    }
    assert_eq!(numbers(""), Some(vec![]));
    assert_eq!(numbers("1-x"), None);
    assert_eq!((number("max"), number("-1"), number("x")), (Some(u64::MAX), Some(0), None));
}
