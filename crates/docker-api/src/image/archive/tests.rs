use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use bulkhead_archive::{Entry, Kind, Limits, Reader, Writer};
use bulkhead_engine::Image;
use bulkhead_image::{Content, StoredImage};
use bulkhead_types::Reference;
use bulkhead_types::image::{ImageConfig, Platform, RootFs};

use super::load::{LoadError, plain, read};
use super::save::write;

#[test]
fn names_of_members_are_plain() {
    for (name, key) in [
        ("./a/b", "a/b"),
        ("/manifest.json", "manifest.json"),
        ("a/../../b", "b"),
        ("x/../y/layer.tar", "y/layer.tar"),
    ] {
        assert_eq!(plain(Path::new(name)), Path::new(key));
    }
}

/// An image of one layer with one file, in a content store of its own.
fn example(directory: &Path) -> (Arc<Content>, Image) {
    let content = Arc::new(Content::open(directory).expect("a content store"));
    let layer = file("file", b"hi");
    let layer = content.import_layer(&mut &layer[..]).expect("a layer");
    let config = ImageConfig {
        architecture: Platform::host().architecture,
        os: "linux".to_owned(),
        variant: None,
        created: None,
        author: String::new(),
        config: Default::default(),
        rootfs: RootFs { kind: "layers".to_owned(), diff_ids: vec![layer.diff_id] },
        history: vec![],
    };
    let stored = content.write_image(&config, &[layer.descriptor]).expect("an image");
    let tag: Reference = "127.0.0.1:5000/web:1".parse().expect("a reference");
    let image = Image {
        id: stored.id,
        manifest: stored.manifest,
        tags: vec![tag],
        digests: vec![],
        config,
        size: 2,
        parent: None,
        damage: None,
    };
    (content, image)
}

#[test]
fn what_is_saved_can_be_loaded() {
    let (ours, theirs) = (tempfile::tempdir().expect("a"), tempfile::tempdir().expect("b"));
    let (content, image) = example(ours.path());
    let mut archive = Vec::new();
    let saved = (image.clone(), image.tags.clone());
    write(&content, &[saved], &mut archive).expect("an archive");
    let other = Arc::new(Content::open(theirs.path()).expect("a content store"));
    let loaded = read(&other, &archive[..]).expect("an image");
    assert_eq!((loaded[0].stored.id, &loaded[0].names), (image.id, &image.tags));
    assert!(other.has_layer(image.config.rootfs.diff_ids[0]));

    // Without Docker's own list it is an OCI layout like any other.
    let mut layout = Writer::new(Vec::new());
    let mut reader = Reader::plain(&archive[..], Limits::IMAGES);
    while let Some(entry) = reader.next_entry().expect("an own archive") {
        let mut content = Vec::new();
        reader.read_to_end(&mut content).expect("content");
        if entry.path != b"manifest.json" {
            layout.file(&entry, &content).expect("memory");
        }
    }
    let layout = layout.finish().expect("memory");
    let loaded = read(&other, &layout[..]).expect("an image");
    let stored = StoredImage { id: image.id, manifest: image.manifest };
    assert_eq!((&loaded[0].stored, &loaded[0].names), (&stored, &image.tags));
}

#[test]
fn an_archive_without_images_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let (content, _) = example(directory.path());
    let archive = file("file", b"hi");
    assert!(matches!(read(&content, &archive[..]), Err(LoadError::NoImage)));
}

/// An archive of one file.
fn file(name: &str, content: &[u8]) -> Vec<u8> {
    let mut archive = Writer::new(Vec::new());
    let entry = Entry::new(name, Kind::File { size: 0 });
    archive.file(&entry, content).expect("memory");
    archive.finish().expect("memory")
}

/// Docker's older form: a list, a configuration, and a layer that is compressed by `compress`.
fn older(config: &str, layer: &[u8]) -> Vec<u8> {
    let mut archive = Writer::new(Vec::new());
    let list = r#"[{"Config":"c.json","RepoTags":["old:1"],"Layers":["a/layer.tar"]}]"#;
    for (name, content) in
        [("c.json", config.as_bytes()), ("a/layer.tar", layer), ("manifest.json", list.as_bytes())]
    {
        let entry = Entry::new(name, Kind::File { size: 0 });
        archive.file(&entry, content).expect("memory");
    }
    archive.finish().expect("memory")
}

#[test]
fn archives_in_every_compression_and_without_a_platform_are_loaded() {
    let layer = file("file", b"hi");
    let diff_id = bulkhead_types::Digest::of(&layer);
    let config = format!(r#"{{"rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}}}}"#);
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(&layer).expect("memory");
    let bzip2 = bzip2.finish().expect("memory");
    for layer in [layer, bzip2] {
        let archive = older(&config, &layer);
        let mut gzip = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        gzip.write_all(&archive).expect("memory");
        for archive in [archive, gzip.finish().expect("memory")] {
            let directory = tempfile::tempdir().expect("a directory");
            let content = Arc::new(Content::open(directory.path()).expect("a content store"));
            let loaded = read(&content, &archive[..]).expect("an image");
            assert_eq!(loaded[0].names[0].familiar(), "old:1");
            assert!(content.has_layer(diff_id));
            let read = content.config(loaded[0].stored.id).expect("a configuration");
            assert_eq!(
                (read.os, read.architecture),
                ("linux".to_owned(), Platform::host().architecture)
            );
        }
    }
}
