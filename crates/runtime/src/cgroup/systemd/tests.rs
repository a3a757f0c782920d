//! The client's side of the protocol, against a peer that plays a script. A real systemd is not on
//! the other end here: what it makes of the calls is tested where there is one.
#![allow(clippy::disallowed_types, reason = "a test calls other programs as users do")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;

use super::bus::{self, decode, message};
use super::*;

/// What the peer does on a call of this name.
enum Answer {
    Reply(Vec<Value>),
    Error(&'static str),
    /// The path of a job, and the end of it, told before the answer or after it.
    Job(&'static str, bool),
}

/// Plays the script and tells each call as `MEMBER SIGNATURE`; ends when the client hangs up.
fn peer(stream: UnixStream, script: Vec<(&'static str, Answer)>) -> mpsc::Receiver<String> {
    let (calls, seen) = mpsc::channel();
    std::thread::spawn(move || {
        let mut output = stream.try_clone().unwrap();
        let mut input = BufReader::new(stream);
        let mut line = String::new();
        input.read_line(&mut line).unwrap();
        assert_eq!(line, "\0AUTH EXTERNAL\r\n");
        for (answer, want) in [("DATA\r\n", "DATA\r\n"), ("OK 0123\r\n", "BEGIN\r\n")] {
            output.write_all(answer.as_bytes()).unwrap();
            line.clear();
            input.read_line(&mut line).unwrap();
            assert_eq!(line, want);
        }
        let mut script = script.into_iter();
        let mut fixed = [0; 16];
        while input.read_exact(&mut fixed).is_ok() {
            let number = |at: usize| u32::from_le_bytes(fixed[at..at + 4].try_into().unwrap());
            let header = (16 + number(12) as usize).next_multiple_of(8);
            let mut bytes = fixed.to_vec();
            bytes.resize(header + number(4) as usize, 0);
            input.read_exact(&mut bytes[16..]).unwrap();
            let call = decode(&bytes, header).unwrap();
            let signature: String = call.body.iter().map(Value::signature).collect();
            calls.send(format!("{} {signature}", call.member)).unwrap();
            let (member, answer) = script.next().unwrap();
            assert_eq!(call.member, member);
            let to = (bus::REPLY_SERIAL, Value::U32(number(8)));
            let send = |kind, mut fields: Vec<_>, body: &[Value]| {
                let signature: String = body.iter().map(Value::signature).collect();
                fields.push((bus::SIGNATURE, Value::Signature(signature)));
                (&output).write_all(&message(kind, 9, fields, body)).unwrap();
            };
            let removed = |result: &str| {
                // another's job ends first
                for job in ["/job/6", "/job/7"] {
                    let body = [
                        Value::U32(7),
                        Value::Path(job.into()),
                        Value::text("x.scope"),
                        Value::text(if job == "/job/7" { result } else { "canceled" }),
                    ];
                    let member = (bus::MEMBER, Value::text("JobRemoved"));
                    let path = (bus::PATH, Value::Path("/org/freedesktop/systemd1".into()));
                    send(bus::SIGNAL, vec![path, member], &body);
                }
            };
            match answer {
                Answer::Reply(body) => send(bus::REPLY, vec![to], &body),
                Answer::Error(name) => {
                    let name = (bus::ERROR_NAME, Value::text(name));
                    send(bus::ERROR, vec![to, name], &[Value::text("no")]);
                }
                Answer::Job(result, early) => {
                    if early {
                        removed(result);
                    }
                    send(bus::REPLY, vec![to], &[Value::Path("/job/7".into())]);
                    if !early {
                        removed(result);
                    }
                }
            }
        }
    });
    seen
}

fn manager(script: Vec<(&'static str, Answer)>) -> (Manager, mpsc::Receiver<String>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut all = vec![
        ("AddMatch", Answer::Reply(vec![])),
        ("Subscribe", Answer::Reply(vec![])),
        ("Get", Answer::Reply(vec![Value::Variant(Box::new(Value::text("252.1-1~deb12")))])),
    ];
    all.extend(script);
    let calls = peer(theirs, all);
    let manager = Manager::over(Bus::over(ours, false).unwrap(), false).unwrap();
    let start: Vec<String> = calls.iter().take(3).collect();
    assert_eq!(start, ["AddMatch s", "Subscribe ", "Get ss"]);
    assert_eq!(manager.version, 252);
    (manager, calls)
}

fn unit() -> Unit {
    Unit::parse("a.slice:test:x", "x", false).unwrap()
}

#[test]
fn a_scope_is_started_when_its_job_is_done() {
    for early in [true, false] {
        let (mut manager, calls) =
            manager(vec![("StartTransientUnit", Answer::Job("done", early))]);
        let properties = manager.base_properties(&unit(), 5, Mode::V2);
        let names: Vec<&str> = properties.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            [
                "Description",
                "Slice",
                "Delegate",
                "PIDs",
                "CollectMode",
                "MemoryAccounting",
                "CPUAccounting",
                "IOAccounting",
                "TasksAccounting",
                "DefaultDependencies",
            ]
        );
        manager.start(&unit(), properties).unwrap();
        drop(manager);
        assert_eq!(calls.iter().collect::<Vec<_>>(), ["StartTransientUnit ssa(sv)a(sa(sv))"]);
    }
}

#[test]
fn a_failed_unit_of_the_name_is_reset_once() {
    const EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
    let (mut manager, calls) = manager(vec![
        ("StartTransientUnit", Answer::Error(EXISTS)),
        ("ResetFailedUnit", Answer::Reply(vec![])),
        ("StartTransientUnit", Answer::Error(EXISTS)),
        ("StartTransientUnit", Answer::Job("failed", false)),
        ("ResetFailedUnit", Answer::Reply(vec![])),
    ]);
    let error = manager.start(&unit(), vec![]).unwrap_err().to_string();
    assert!(error.starts_with("unable to start unit \"test-x.scope\": call "), "{error}");
    let error = manager.start(&unit(), vec![]).unwrap_err().to_string();
    assert_eq!(error, "error creating systemd unit `test-x.scope`: got `failed`");
    drop(manager);
    assert_eq!(calls.iter().count(), 5);
}

#[test]
fn a_unit_that_is_gone_is_stopped() {
    let (mut manager, _calls) = manager(vec![
        ("StopUnit", Answer::Error("org.freedesktop.systemd1.NoSuchUnit")),
        ("StopUnit", Answer::Job("done", true)),
        ("ResetFailedUnit", Answer::Error("org.freedesktop.systemd1.NoSuchUnit")),
        ("StopUnit", Answer::Error("org.freedesktop.DBus.Error.AccessDenied")),
    ]);
    manager.stop(&unit()).unwrap();
    manager.stop(&unit()).unwrap();
    let error = manager.stop(&unit()).unwrap_err().to_string();
    assert!(error.contains("StopUnit by D-Bus: no (org.freedesktop.DBus.Error.AccessDenied)"));
}

#[test]
fn a_users_bus_is_found_or_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().to_str().unwrap();
    let user = |session, runtime| Instance::user(session, runtime);
    let error = user(Some(""), Some(directory)).unwrap_err().to_string();
    assert!(error.contains("DBUS_SESSION_BUS_ADDRESS"), "{error}");
    std::fs::write(folder.path().join("bus"), "").unwrap();
    let found = user(None, Some(directory)).unwrap();
    assert_eq!(found, Instance::User(format!("unix:path={directory}/bus")));
    assert_eq!(user(Some("unix:path=/x"), None).unwrap(), Instance::User("unix:path=/x".into()));
}

/// On a host that systemd runs, or with a user's own systemd at `DBUS_SESSION_BUS_ADDRESS`.
#[test]
#[allow(clippy::disallowed_methods, reason = "where the user's systemd is")]
fn a_real_systemd_keeps_the_scope_of_a_process() {
    let session = std::env::var("DBUS_SESSION_BUS_ADDRESS").ok();
    let instance = if let Ok(user) = Instance::user(session.as_deref(), None) {
        user
    } else if is_running() && rustix::process::geteuid().is_root() {
        Instance::System
    } else {
        return bulkhead_sys::testing::skip("no systemd runs here");
    };
    let mut manager = Manager::connect(&instance).unwrap();
    assert!(manager.version > 200, "{}", manager.version);
    // without a bus between, as root early in a boot
    let directory = match &instance {
        Instance::System => "/run".to_owned(),
        Instance::User(_) => std::env::var("XDG_RUNTIME_DIR").unwrap(),
    };
    let bus = Bus::connect_direct(&format!("unix:path={directory}/systemd/private")).unwrap();
    assert_eq!(Manager::over(bus, false).unwrap().version, manager.version);
    let hierarchies = Hierarchies::detect().unwrap();
    let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let id = format!("test-{}", child.id());
    let path = format!(":bulkhead:{id}");
    let unit = Unit::parse(&path, &id, instance != Instance::System).unwrap();
    let resources = |pids: u32| {
        let limit =
            if hierarchies.has("pids") { format!(r#""limit":{pids}"#) } else { String::new() };
        let text =
            format!(r#"{{"devices":[{{"allow":false,"access":"rwm"}}],"pids":{{{limit}}}}}"#);
        super::super::resources::tests::parse(&text)
    };
    let annotations = [("org.systemd.property.TimeoutStopSec".to_owned(), "5".to_owned())];
    let more = annotated_properties(&annotations.into()).unwrap();
    let options = CreateOptions::default();
    let cgroup =
        manager.create(&hierarchies, &unit, child.id(), &resources(33), more, &options).unwrap();
    let group = std::fs::read_to_string(format!("/proc/{}/cgroup", child.id())).unwrap();
    assert!(group.lines().any(|line| line.ends_with(&unit.name)), "{group}");
    assert_eq!(cgroup.pids().unwrap(), [child.id()]);
    if hierarchies.has("pids") {
        assert_eq!(cgroup.stats().unwrap().pids_limit, Some(33));
    }
    // a second of the name is refused, and the first goes on
    let again = manager.create(&hierarchies, &unit, 1, &resources(1), vec![], &options);
    assert!(matches!(again, Err(SystemdError::Start { .. })), "{again:?}");
    manager.update(&unit, &cgroup, &resources(44)).unwrap();
    if hierarchies.has("pids") {
        assert_eq!(cgroup.stats().unwrap().pids_limit, Some(44));
    }
    manager.remove(&unit, &cgroup).unwrap();
    child.wait().unwrap();
    let path = manager.path(&hierarchies, &unit).unwrap();
    assert!(!Cgroup::open(&hierarchies, &path).unwrap().exists());
    // and once more when it is gone
    manager.remove(&unit, &cgroup).unwrap();
}
