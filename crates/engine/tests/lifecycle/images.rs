//! Images and the build cache, and the content that they stand on.

use bulkhead_engine::{CachedStep, RemovedImage};
use bulkhead_types::{BuildStep, StepNetwork};

use crate::rig::Rig;

pub async fn one_whose_content_is_missing_is_listed(rig: &mut Rig) {
    let whole = rig.engine.images().find("busybox").unwrap();
    rig.engine.images().tag(whole.id, &"kept:1".parse().unwrap()).await.unwrap();
    for missing in [whole.id, whole.manifest] {
        rig.close().await;
        let blob = rig.options.data.join("content/blobs/sha256").join(missing.hex());
        let bytes = std::fs::read(&blob).unwrap();
        std::fs::remove_file(&blob).unwrap();
        rig.open().await;
        let images = rig.engine.images().list();
        assert_eq!(images.len(), 1);
        assert_eq!((images[0].tags.len(), images[0].size), (2, whole.size));
        assert_eq!(images[0].config, whole.config);
        let damage = images[0].damage.as_deref().unwrap();
        assert!(damage.contains(&missing.to_string()), "{damage}");
        std::fs::write(&blob, bytes).unwrap();
    }
    rig.close().await;
    rig.open().await;
    assert_eq!(rig.engine.images().find("busybox").unwrap().damage, None);
    assert_eq!(rig.run(Rig::script("runs", "echo fine")).await, (0, "fine\n".to_owned()));
    rig.done().await;
}

pub async fn a_commit_has_what_the_container_made_and_no_more(rig: &mut Rig) {
    let made = "echo text > /made; echo own > /etc/own; test -e /.dockerenv && test -L /etc/mtab";
    assert_eq!(rig.run(Rig::script("changes", made)).await, (0, String::new()));
    let _unnamed = rig.engine.images().hold_content().await;
    let layer = rig.engine.changed_layer(rig.id("changes"), false).await.unwrap().unwrap();
    let root = rig.options.data.join("content/layers").join(layer.diff_id.hex()).join("fs");
    let names = |directory: &std::path::Path| {
        let entries = std::fs::read_dir(directory).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    };
    assert_eq!(names(&root), ["etc", "made"]);
    assert_eq!(names(&root.join("etc")), ["own"]);
    rig.done().await;
}

pub async fn a_pruned_build_cache_frees_its_layers(rig: &mut Rig) {
    let image = rig.engine.images().find("busybox").unwrap();
    let base = image.config.rootfs.diff_ids.clone();
    let step = BuildStep {
        arguments: vec!["sh".into(), "-c".into(), "echo text > /made".into()],
        environment: vec!["PATH=/bin".into()],
        working_directory: "/".into(),
        user: String::new(),
        network: StepNetwork::OfBuild,
        layers: base.clone(),
        base: base[0],
    };
    let key = |text: &str| bulkhead_types::Digest::of(text.as_bytes());
    let step_of = |layer: Option<(_, _)>| CachedStep {
        layer,
        created: "2026-01-01T00:00:00Z".to_owned(),
        description: "RUN".to_owned(),
        parent: None,
    };
    let cache = rig.engine.build_cache();
    let content = rig.engine.content();
    let manifest = content.manifest(image.id).unwrap();
    let (diff_id, blob) = {
        let _unnamed = rig.engine.images().hold_content().await;
        let (_, layer, _) = rig.step(step).await;
        let layer = layer.expect("it changed something");
        let made = (layer.diff_id, layer.descriptor.digest);
        cache.store(key("run"), step_of(Some((layer.descriptor, made.0)))).await.unwrap();
        let of_image = step_of(Some((manifest.layers[0].clone(), base[0])));
        cache.store(key("image"), of_image).await.unwrap();
        cache.store(key("env"), step_of(None)).await.unwrap();
        made
    };
    drop(cache);
    rig.close().await;
    rig.open().await;
    let cache = rig.engine.build_cache();
    assert!(content.contains(blob) && content.layer(diff_id).is_ok(), "the cache keeps it");
    assert_eq!(cache.lookup(key("run")).unwrap().layer.unwrap().1, diff_id);
    let entries = cache.list().await.unwrap();
    let of = |text: &str| entries.iter().find(|entry| entry.key == key(text)).unwrap();
    assert_eq!((of("run").uses, of("run").images.len()), (1, 0));
    assert_eq!((of("image").uses, &of("image").images), (0, &vec![image.id]));
    assert_eq!(of("env").size, Some(0));

    let pruned = cache.prune(|entry| entry.images.is_empty()).await.unwrap();
    assert_eq!((pruned.keys.len(), Some(pruned.bytes)), (2, of("run").size));
    assert!(!content.contains(blob) && content.layer(diff_id).is_err(), "it was the last");
    assert!(cache.lookup(key("run")).is_none());
    // What an image has too costs nothing, and its removal frees what both had.
    let pruned = cache.prune(|_| true).await.unwrap();
    assert_eq!((pruned.keys.len(), pruned.bytes), (1, 0));
    assert!(content.layer(base[0]).is_ok());
    let removed = rig.engine.remove_image("busybox", false).await.unwrap();
    assert!(removed.contains(&RemovedImage::Deleted(image.id)), "{removed:?}");
    assert!(content.layer(base[0]).is_err());
    rig.done().await;
}
