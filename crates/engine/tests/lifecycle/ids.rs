//! Ids above those of 16 bits: users of LDAP and Active Directory, and of OpenShift.

use std::os::unix::fs::MetadataExt;

use bulkhead_types::{BuildStep, Digest, StepNetwork};

use crate::containers::exec;
use crate::rig::{Rig, read_output};

pub async fn large_ids_are_a_containers_own(rig: &mut Rig) {
    // those that every container has, and one that it is created with
    for (user, wanted) in
        [("100000", "100000:0"), ("1000640000:1000650000", "1000640000:1000650000")]
    {
        let mut create = Rig::script(&format!("user-{}", &user[..6]), "echo $(id -u):$(id -g)");
        create.config.user = user.to_owned();
        assert_eq!(rig.run(create).await, (0, format!("{wanted}\n")));
    }

    // one that the image names, and that owns nothing in it
    for (user, wanted) in
        [("far", "1100000000:33:33 1200000000"), ("0:afar", "0:1200000000:1200000000")]
    {
        let mut create =
            Rig::script(&format!("n{}", user.replace(':', "-")), "echo $(id -u):$(id -g):$(id -G)");
        create.config.user = user.to_owned();
        assert_eq!(rig.run(create).await, (0, format!("{wanted}\n")), "{user}");
    }

    // what is bound keeps its owners, also those whom only the bind makes known
    let shared = rig.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::os::unix::fs::chown(&shared, Some(412_001_104), Some(412_000_513)).unwrap();
    std::fs::write(shared.join("file"), "mine\n").unwrap();
    std::os::unix::fs::chown(shared.join("file"), Some(200_000), Some(100_000)).unwrap();
    let script = "stat -c %u:%g /m /m/file; echo more >/m/file && touch /m/new && \
                  busybox chown 412001104:100000 /m/new && touch /own && \
                  busybox chown 200000 /own && cat /proc/self/uid_map";
    let mut create = Rig::script("bound", script);
    create.host.binds = vec![format!("{}:/m", shared.display()).parse().unwrap()];
    let (code, output) = rig.run(create).await;
    assert_eq!(code, 0, "{output}");
    assert!(output.starts_with("412001104:412000513\n200000:100000\n"), "{output}");
    let new = std::fs::metadata(shared.join("new")).unwrap();
    assert_eq!((new.uid(), new.gid()), (412_001_104, 100_000));
    // root is nobody outside all the same, and so is everybody in its own files
    let map = rig.engine.container("bound").unwrap().id_range.unwrap();
    assert!(map.ranges().all(|range| range.first >= rig.options.first_id), "{map:?}");
    let id = rig.engine.container("bound").unwrap().id;
    let own = rig.options.data.join(format!("containers/{id}/upper/own"));
    assert_eq!(std::fs::metadata(own).unwrap().uid(), map.first + 200_000);
    // nobody's ids are another's
    let other = rig.engine.create(Rig::sleeper("other")).await.unwrap().id_range.unwrap();
    for range in other.ranges() {
        assert!(!map.ranges().any(|taken| taken.overlaps(range)), "{map:?} {other:?}");
    }

    // a map cannot be extended while it is in use: the way out is told
    rig.engine.start(rig.id("other")).await.unwrap();
    let mut command = exec(&["id"]);
    command.user = "1000640000".into();
    let id = rig.engine.exec_create(rig.id("other"), command).await.unwrap().to_string();
    let error = rig.engine.exec_start(id.parse().unwrap(), false, (0, 0)).await.unwrap_err();
    assert!(
        error.message.contains("user 1000640000:0 is not among the ids")
            && error.message.contains("--user"),
        "{error}"
    );
    let mut command = exec(&["id", "-u"]);
    command.user = "262143".into();
    let id = rig.engine.exec_create(rig.id("other"), command).await.unwrap().to_string();
    let socket = rig.engine.exec_start(id.parse().unwrap(), false, (0, 0)).await.unwrap().unwrap();
    assert_eq!(read_output(socket, false).await, "262143\n");

    // an image's own users come with it
    let step = |layers: Vec<_>, user: &str, script: &str| BuildStep {
        arguments: ["/bin/sh", "-c", script].map(str::to_owned).into(),
        environment: vec!["PATH=/bin".into()],
        working_directory: "/".into(),
        user: user.into(),
        network: StepNetwork::None,
        base: Digest::of(b""),
        layers,
    };
    let mut layers = rig.engine.images().find("busybox").unwrap().config.rootfs.diff_ids;
    let script = "touch /theirs && busybox chown 1000640000:200000 /theirs";
    let (code, layer, _) = rig.step(step(layers.clone(), "0:1000640000", script)).await;
    assert_eq!(code, 0);
    // so do those that a step names, before anything has them
    let script = "touch /named && busybox chown 1234567:1234568 /named";
    let (code, _, output) = rig.step(step(layers.clone(), "", script)).await;
    assert_eq!(code, 0, "{output}");
    layers.push(layer.unwrap().diff_id);
    let (code, _, output) = rig.step(step(layers, "", "stat -c %u:%g /theirs")).await;
    assert_eq!((code, output.trim()), (0, "1000640000:200000"));
    rig.done().await;
}
