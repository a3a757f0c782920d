//! What `-v`, `--mount`, `--tmpfs` and `--volumes-from` differ in.

use std::path::Path;

use bulkhead_engine::{
    BindOptions, Class, CreateContainer, DriverOptions, Fill, MissingSource, MountOptions,
    MountRequest, MountsBelow, NetworkMode, Propagation, VolumeOptions,
};
use rustix::mount::{MountFlags, MountPropagationFlags};

use crate::rig::Rig;

fn volume(name: &str, target: &str, options: VolumeOptions) -> MountRequest {
    MountRequest::new(name, target, false, MountOptions::Volume(options)).unwrap()
}

fn bind(source: &Path, target: &str, readonly: bool, options: BindOptions) -> MountRequest {
    let source = source.display().to_string();
    MountRequest::new(&source, target, readonly, MountOptions::Bind(options)).unwrap()
}

fn tmpfs(at: &Path) {
    std::fs::create_dir_all(at).unwrap();
    rustix::mount::mount("tmpfs", at, "tmpfs", MountFlags::empty(), None).unwrap();
}

pub async fn volumes_are_furnished_when_a_container_is_created(rig: &mut Rig) {
    // A container that never runs is a store for others, as Docker's users have them.
    let mut store = Rig::script("store", "true");
    store.config.volumes = vec!["/srv/data".into()];
    store.config.working_dir = "/made/for/it".into();
    let store = rig.engine.create(store).await.unwrap();
    let data = Path::new(&store.mounts[0].source);
    assert_eq!(std::fs::read_to_string(data.join("seed")).unwrap(), "from the image\n");
    let upper = rig.options.data.join(format!("containers/{}/upper/made/for/it", store.id));
    assert!(upper.is_dir(), "-w makes its directory");

    let mut reader = Rig::script("reader", "cat /srv/data/seed; echo x > /srv/data/new || echo no");
    reader.host.volumes_from = vec!["store:ro".parse().unwrap()];
    let (_, output) = rig.run(reader).await;
    assert!(output.starts_with("from the image\n") && output.contains("no\n"), "{output}");

    // Of two with the same target the last wins; what the request says wins over both.
    let mut other = Rig::script("other", "true");
    other.host.binds = vec!["theirs:/srv/data:nocopy".parse().unwrap()];
    rig.engine.create(other).await.unwrap();
    let mut last = Rig::script("last", "ls /srv/data");
    last.host.volumes_from = vec!["store".parse().unwrap(), "other".parse().unwrap()];
    assert_eq!(rig.run(last).await, (0, String::new()));
    let mut own = Rig::script("own", "ls /srv/data");
    own.host.volumes_from = vec!["store".parse().unwrap()];
    own.host.binds = vec!["mine:/srv/data:nocopy".parse().unwrap()];
    assert_eq!(rig.run(own).await, (0, String::new()), "nocopy leaves it empty");

    // Named beside the image, and missing: not "not found", which clients take for the image.
    for change in [
        (|create| create.host.volumes_from = vec!["nobody".parse().unwrap()])
            as fn(&mut CreateContainer),
        |create| create.host.network_mode = NetworkMode::Container("nobody".into()),
    ] {
        let mut create = Rig::script("x1", "true");
        change(&mut create);
        let error = rig.engine.create(create).await.unwrap_err();
        assert_eq!(
            (error.class, error.message.as_str()),
            (Class::Invalid, "No such container: nobody")
        );
    }
    let mut wrong = Rig::script("x1", "true");
    wrong.config.working_dir = "/etc/passwd".into();
    let error = rig.engine.create(wrong).await.unwrap_err();
    assert!(error.message.contains("/etc/passwd is not a directory"), "{error}");
    assert!(rig.engine.container("x1").is_err(), "nothing stays of it");
    rig.done().await;
}

pub async fn only_the_part_that_was_asked_for_is_seen(rig: &mut Rig) {
    let empty = Default::default;
    let made =
        rig.engine.volumes().create(Some("parts"), empty(), Default::default()).await.unwrap();
    let root = Path::new(&made.mountpoint);
    std::fs::create_dir_all(root.join("a/b")).unwrap();
    std::fs::write(root.join("a/b/file"), "deep").unwrap();
    std::os::unix::fs::symlink("/etc", root.join("out")).unwrap();
    let part = |subpath: &str| VolumeOptions { subpath: subpath.into(), ..Default::default() };

    let mut create = Rig::script("inner", "ls /x; cat /x/file");
    create.host.mounts = vec![volume("parts", "/x", part("a/b"))];
    assert_eq!(rig.run(create).await, (0, "file\ndeep".to_owned()));
    for (number, subpath) in ["nope", "out"].into_iter().enumerate() {
        let name = format!("wrong{number}");
        let mut create = Rig::script(&name, "true");
        create.host.mounts = vec![volume("parts", "/x", part(subpath))];
        rig.engine.create(create).await.unwrap();
        let error = rig.engine.start(rig.id(&name)).await.unwrap_err();
        assert!(error.message.contains(&format!("cannot access path \"{subpath}\"")), "{error}");
    }

    let labels = [("who".to_owned(), "me".to_owned())].into();
    let options = VolumeOptions { labels, fill: Fill::Leave, ..Default::default() };
    let mut create = Rig::script("labels", "ls /srv/data");
    create.host.mounts = vec![volume("labelled", "/srv/data", options)];
    assert_eq!(rig.run(create).await, (0, String::new()));
    let volumes = rig.engine.volumes().list();
    let labelled = volumes.iter().find(|volume| volume.name == "labelled").unwrap();
    assert_eq!(labelled.labels["who"], "me");
    rig.done().await;
}

pub async fn sources_and_what_lies_below_them(rig: &mut Rig) {
    // Beside a -v whose source begins alike, a --mount still makes nothing.
    let (gone, like) = (rig.path().join("data2"), rig.path().join("data2-more"));
    std::fs::create_dir(&gone).unwrap();
    let mut create = Rig::script("both", "true");
    create.host.mounts = vec![bind(&gone, "/m", false, BindOptions::default())];
    create.host.binds = vec![format!("{}:/v", like.display()).parse().unwrap()];
    rig.engine.create(create).await.unwrap();
    std::fs::remove_dir(&gone).unwrap();
    let error = rig.engine.start(rig.id("both")).await.unwrap_err();
    assert!(error.message.contains("bind source path does not exist"), "{error}");
    assert!(!gone.exists(), "it was not made again");
    let made = rig.path().join("made");
    let options = BindOptions { missing: MissingSource::MakeDirectory, ..Default::default() };
    let mut create = Rig::script("makes", "true");
    create.host.mounts = vec![bind(&made, "/m", false, options)];
    assert_eq!(rig.run(create).await.0, 0);
    assert!(made.is_dir());

    let top = rig.path().join("top");
    tmpfs(&top);
    tmpfs(&top.join("in"));
    std::fs::write(top.join("in/file"), "below").unwrap();
    let script = "cat /m/in/file 2>/dev/null; touch /m/in/x 2>/dev/null && echo writable; \
                  touch /m/x 2>/dev/null && echo top";
    for (name, below, readonly, shown) in [
        ("follow", MountsBelow::Follow, true, "below"),
        ("readonly", MountsBelow::FollowReadonly, true, "below"),
        ("writable", MountsBelow::FollowWritable, true, "belowwritable\n"),
        ("leave", MountsBelow::Leave, false, "writable\ntop\n"),
    ] {
        let options = BindOptions { below, ..Default::default() };
        let mut create = Rig::script(name, script);
        create.host.mounts = vec![bind(&top, "/m", readonly, options)];
        assert_eq!(rig.run(create).await.1, shown, "{name}");
    }

    // What the host mounts later shows up where it was asked for.
    let slave = BindOptions { propagation: Propagation::Rslave, ..Default::default() };
    let mut create = Rig::script("private", "true");
    create.host.mounts = vec![bind(&top, "/m", false, slave.clone())];
    rig.engine.create(create).await.unwrap();
    let error = rig.engine.start(rig.id("private")).await.unwrap_err();
    assert!(error.message.contains("is not on a shared mount"), "{error}");
    rustix::mount::mount_change(&top, MountPropagationFlags::SHARED).unwrap();
    let shared = BindOptions { propagation: Propagation::Rshared, ..Default::default() };
    let mut create = Rig::script("shares", "grep -c ' /m .* shared:' /proc/self/mountinfo");
    create.host.mounts = vec![bind(&top, "/m", false, shared)];
    assert_eq!(rig.run(create).await, (0, "1\n".to_owned()));
    let script = "echo ready; until [ -e /m/late/file ]; do sleep 0.05; done; cat /m/late/file";
    let mut create = Rig::script("sees", script);
    create.host.mounts = vec![bind(&top, "/m", false, slave)];
    rig.engine.create(create).await.unwrap();
    let ended = rig.engine.wait(rig.id("sees"), bulkhead_engine::WaitCondition::NextExit).unwrap();
    rig.engine.start(rig.id("sees")).await.unwrap();
    rig.ready("sees").await;
    tmpfs(&top.join("late"));
    std::fs::write(top.join("late/file"), "late").unwrap();
    let bound = std::time::Duration::from_secs(20);
    assert_eq!(tokio::time::timeout(bound, ended).await.unwrap().unwrap(), 0);
    let flags = rustix::mount::UnmountFlags::DETACH;
    rustix::mount::unmount(&top, flags).unwrap();
    rig.done().await;
}

pub async fn volumes_of_other_kinds(rig: &mut Rig) {
    let options = |pairs: &[(&str, &str)]| {
        let given = pairs.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        DriverOptions::parse(given.collect()).unwrap()
    };
    let host = rig.path().join("device");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("file"), "of the host").unwrap();
    let device = host.display().to_string();
    let bound = options(&[("type", "none"), ("o", "bind"), ("device", &device)]);
    rig.engine.volumes().create(Some("bound"), Default::default(), bound.clone()).await.unwrap();
    let mut create = Rig::script("uses", "cat /srv/data/file; ls /srv/data; touch /srv/data/new");
    create.host.binds = vec!["bound:/srv/data".parse().unwrap()];
    assert_eq!(rig.run(create).await, (0, "of the hostfile\n".to_owned()));
    assert!(host.join("new").exists());

    let memory = options(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m")]);
    rig.engine.volumes().create(Some("memory"), Default::default(), memory).await.unwrap();
    let mut create = Rig::script("small", "mount | grep ' /m '; touch /m/x && echo written");
    create.host.binds = vec!["memory:/m".parse().unwrap()];
    let (code, output) = rig.run(create).await;
    assert!(
        code == 0 && output.contains("size=1024k") && output.ends_with("written\n"),
        "{output}"
    );

    // Records outlive the engine, options and all.
    rig.close().await;
    rig.open().await;
    let volumes = rig.engine.volumes().list();
    let found = volumes.iter().find(|volume| volume.name == "bound").unwrap();
    assert_eq!(found.options, bound);
    rig.engine.remove(rig.id("uses"), false, false).await.unwrap();
    rig.engine.remove_volume("bound", false).await.unwrap();
    assert!(host.join("file").exists(), "a volume's device is not the engine's to remove");
    rig.done().await;
}
