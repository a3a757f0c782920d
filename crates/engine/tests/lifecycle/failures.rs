use std::net::{Ipv4Addr, TcpListener};

use bulkhead_engine::{
    BindOptions, Class, CreateContainer, MountOptions, MountRequest, NetworkMode, PortRequest,
    RestartPolicy, Status,
};
use bulkhead_network::Protocol;

use crate::containers::wait_for;
use crate::rig::Rig;

pub async fn every_failure_is_told_and_leaves_nothing(rig: &mut Rig) {
    let engine = std::sync::Arc::clone(&*rig.engine);
    let create = |change: fn(&mut CreateContainer)| {
        let mut create = Rig::sleeper("x1");
        change(&mut create);
        engine.create(create)
    };
    for (change, class, message) in [
        (
            (|create| create.image = "nope".into()) as fn(&mut CreateContainer),
            Class::NotFound,
            "No such image: nope:latest",
        ),
        (|create| create.image = "NOPE".into(), Class::Invalid, "invalid reference format"),
        (
            |create| create.host.network_mode = NetworkMode::Named("unknown".into()),
            Class::Invalid,
            "network unknown not found",
        ),
        (
            |create| {
                let options = MountOptions::Bind(BindOptions::default());
                let mount = MountRequest::new("/does/not/exist", "/x", false, options);
                create.host.mounts = vec![mount.unwrap()];
            },
            Class::Invalid,
            "bind source path does not exist: /does/not/exist",
        ),
        (|create| create.host.memory = 1 << 20, Class::Invalid, "Minimum memory limit allowed"),
        (
            |create| create.host.links = vec!["nobody".parse().unwrap()],
            Class::Invalid,
            "could not get container for nobody",
        ),
    ] {
        let error = create(change).await.unwrap_err();
        assert_eq!(error.class, class, "{error}");
        assert!(error.message.contains(message), "{error}");
    }
    assert!(rig.engine.containers().is_empty());

    let first = rig.engine.create(Rig::sleeper("web")).await.unwrap();
    let error = rig.engine.create(Rig::sleeper("web")).await.unwrap_err();
    assert_eq!(error.class, Class::Conflict);
    assert_eq!(
        error.message,
        format!(
            "Conflict. The container name \"/web\" is already in use by container \"{}\". You have \
             to remove (or rename) that container to be able to reuse that name.",
            first.id
        )
    );
    let error = rig.engine.remove_image("busybox", false).await.unwrap_err();
    assert!(error.message.contains("is using its referenced image"), "{error}");

    // A program that is not there, and one that cannot be run.
    for (program, code, text) in
        [("nope", 127, "executable file not found"), ("/etc/passwd", 126, "permission denied")]
    {
        let mut create = Rig::sleeper("broken");
        create.config.cmd = Some(vec![program.into()]);
        rig.engine.create(create).await.unwrap();
        let error = rig.engine.start(rig.id("broken")).await.unwrap_err();
        assert_eq!(error.class, Class::Invalid, "{error}");
        assert!(error.message.to_lowercase().contains(text), "{error}");
        let state = rig.engine.container("broken").unwrap().state;
        assert_eq!((state.exit_code, state.status), (code, Status::Created));
        assert!(!state.error.is_empty());
        rig.engine.remove(rig.id("broken"), false, false).await.unwrap();
    }

    // A port that another program has, and one that another container has.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let publish = |name: &str, port: u16| {
        let mut create = Rig::sleeper(name);
        create.host.port_bindings = vec![PortRequest {
            container_port: 80,
            protocol: Protocol::Tcp,
            host_address: None,
            host_port: port,
            last_host_port: None,
        }];
        create
    };
    rig.engine.create(publish("taken", port)).await.unwrap();
    let error = rig.engine.start(rig.id("taken")).await.unwrap_err();
    assert!(
        error.message.contains("driver failed programming external connectivity on endpoint taken")
            && error.message.contains("address already in use"),
        "{error}"
    );
    drop(listener);
    rig.engine.start(rig.id("taken")).await.unwrap();
    rig.engine.create(publish("second", port)).await.unwrap();
    let error = rig.engine.start(rig.id("second")).await.unwrap_err();
    let wanted = format!("Bind for 0.0.0.0:{port} failed: port is already allocated");
    assert!(error.message.ends_with(&wanted), "{error}");
    // Given back at once when the first has ended.
    rig.engine.stop(rig.id("taken"), Some(0), None).await.unwrap();
    rig.engine.start(rig.id("second")).await.unwrap();
    let second = rig.engine.container("second").unwrap();
    assert_eq!(second.network.ports[0].host_port, port);
    rig.engine.remove(rig.id("web"), false, false).await.unwrap();
    rig.done().await;
}

pub async fn restarts_follow_the_policy(rig: &mut Rig) {
    let mut create = Rig::script("again", "echo x >> /count; exit 5");
    create.host.restart_policy = RestartPolicy::OnFailure { maximum_retries: 2 };
    rig.start(create).await;
    let ended = || rig.engine.container("again").unwrap().state.status == Status::Exited;
    wait_for(ended).await;
    let container = rig.engine.container("again").unwrap();
    assert_eq!((container.restart_count, container.state.exit_code), (2, 5));
    let count = rig.options.data.join(format!("containers/{}/upper/count", container.id));
    assert_eq!(std::fs::read_to_string(count).unwrap(), "x\nx\nx\n");

    let mut create = Rig::sleeper("always");
    create.host.restart_policy = RestartPolicy::Always;
    let first = rig.start(create).await;
    // Ended by its own hand, as a crash does; a stop by the user is final.
    let pid = rustix::process::Pid::from_raw(first.state.pid.cast_signed()).unwrap();
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL).unwrap();
    wait_for(|| {
        let now = rig.engine.container("always").unwrap().state;
        now.status == Status::Running && now.pid != first.state.pid
    })
    .await;
    assert_eq!(rig.engine.container("always").unwrap().restart_count, 1);
    rig.engine.stop(rig.id("always"), Some(0), None).await.unwrap();
    assert_eq!(rig.engine.container("always").unwrap().state.status, Status::Exited);
    rig.done().await;
}
