use std::os::unix::fs::symlink;

use super::bench::{Bench, archive};

fn bench() -> Bench {
    let mut bench = Bench::new();
    bench.image(
        "base",
        &[
            ("etc/passwd", "root:x:0:0::/:\nweb:x:33:34::/:\n"),
            ("tmp/", ""),
            ("run/", ""),
            ("var/run", "-> /run"),
            ("app/old", "old"),
            ("real", "real"),
            ("link", "-> real"),
        ],
    );
    bench.put("a", "a");
    bench.chmod("a", 0o640);
    bench.put("b.txt", "b");
    bench.put("dir/x", "x");
    bench.put("dir/sub/y", "y");
    bench.chmod("dir/sub", 0o700);
    bench
}

#[tokio::test]
async fn files_go_where_docker_puts_them() {
    let bench = bench();
    for (copy, want) in [
        ("COPY a /new", vec![("new", "a")]),
        ("COPY a /new/", vec![("new/a", "a")]),
        ("COPY a /app", vec![("app/a", "a"), ("app/old", "old")]),
        ("COPY a b.txt /new/", vec![("new/a", "a"), ("new/b.txt", "b")]),
        ("COPY [\"a\", \"/with space/\"]", vec![("with space/a", "a")]),
        ("COPY *.txt /new/", vec![("new/b.txt", "b")]),
        ("COPY d?r/[x] /new/", vec![("new/x", "x")]),
        ("COPY dir /new", vec![("new/x", "x"), ("new/sub/y", "y")]),
        ("COPY dir/ /app/", vec![("app/x", "x"), ("app/sub/y", "y"), ("app/old", "old")]),
        ("COPY . /all/", vec![("all/a", "a"), ("all/dir/sub/y", "y")]),
        ("COPY a /var/run/", vec![("run/a", "a")]),
        ("COPY a /link", vec![("real", "a")]),
        ("COPY ../a /new", vec![("new", "a")]),
        ("WORKDIR /w\nCOPY a .", vec![("w/a", "a")]),
        ("WORKDIR /w\nCOPY a c", vec![("w/c", "a")]),
        ("WORKDIR /w\nCOPY a ../c", vec![("c", "a")]),
        ("ENV D=/d F=a\nCOPY $F ${D}/$F", vec![("d/a", "a")]),
        (
            "ENV V=v\nCOPY <<E <<\"F\" /h/\n\"$V\"\nE\n$V\nF",
            vec![("h/E", "\"v\"\n"), ("h/F", "$V\n")],
        ),
        ("COPY <<E /h\nhi\nE", vec![("h", "hi\n")]),
        ("COPY --exclude=sub dir /new", vec![("new/x", "x")]),
        ("ADD a /new", vec![("new", "a")]),
    ] {
        bench.put("Dockerfile", format!("FROM base\n{copy}\n"));
        let image = bench.build().await.expect(copy);
        for (path, text) in want {
            assert_eq!(bench.text(&image, path).as_deref(), Some(text), "{copy}: {path}");
        }
        // What is on the way stays what it was.
        assert_eq!(bench.mode(&image, "tmp"), "41777 5:0", "{copy}");
    }
}

#[tokio::test]
async fn owners_and_modes_are_as_asked() {
    let bench = bench();
    for (copy, want) in [
        ("COPY a /tmp/", vec![("tmp/a", "100640 0:0"), ("tmp", "41777 5:0")]),
        ("COPY --chown=web a /n/", vec![("n/a", "100640 33:34"), ("n", "40755 33:34")]),
        ("COPY --chown=7:web --chmod=4755 a /n", vec![]),
        ("COPY --chown=7:8 --chmod=4755 a /n", vec![("n", "104755 7:8")]),
        ("ENV M=600\nCOPY --chmod=$M a /n", vec![("n", "100600 0:0")]),
        ("COPY --chmod=u=rwX,go=rX dir /n", vec![("n/x", "100644 0:0"), ("n/sub", "40755 0:0")]),
        ("COPY dir /n", vec![("n/sub", "40700 0:0")]),
        ("COPY dir /tmp", vec![("tmp", "41777 5:0"), ("tmp/sub", "40700 0:0")]),
        ("COPY <<E /h\nE", vec![("h", "100644 0:0")]),
        ("USER web\nWORKDIR /w/x", vec![("w", "40755 33:34"), ("w/x", "40755 33:34")]),
        ("WORKDIR /tmp/x", vec![("tmp", "41777 5:0"), ("tmp/x", "40755 0:0")]),
    ] {
        bench.put("Dockerfile", format!("FROM base\n{copy}\n"));
        let built = bench.build().await;
        if want.is_empty() {
            built.expect_err(copy);
            continue;
        }
        let image = built.expect(copy);
        for (path, mode) in want {
            assert_eq!(bench.mode(&image, path), mode, "{copy}: {path}");
        }
    }
    // Times are kept.
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(86_400);
    let file = std::fs::File::options().write(true).open(bench.context("a")).expect("opens");
    file.set_modified(time).expect("sets");
    bench.put("Dockerfile", "FROM base\nCOPY a /timed\n");
    let image = bench.build().await.expect("builds");
    assert_eq!(bench.stat(&image, "timed").expect("is there").st_mtime, 86_400);
}

#[tokio::test]
async fn a_working_directory_that_is_there_makes_no_layer() {
    let bench = bench();
    bench.put("Dockerfile", "FROM base\nWORKDIR /var/run\nWORKDIR ..\nWORKDIR x\n");
    let image = bench.build().await.expect("builds");
    let config = bench.config(&image);
    assert_eq!(config.config.working_dir, "/var/x");
    let empty: Vec<_> = config.history.iter().map(|entry| entry.empty_layer).collect();
    assert_eq!(empty, [false, true, true, false]);
    assert_eq!(config.rootfs.diff_ids.len(), 2);
}

#[tokio::test]
async fn nothing_outside_of_the_context_is_read() {
    let bench = bench();
    symlink("/etc/hostname", bench.context("absolute")).expect("links");
    symlink("../../../../../../etc/hostname", bench.context("upwards")).expect("links");
    symlink("/", bench.context("root")).expect("links");
    symlink("/a", bench.context("inside")).expect("links");
    for copy in ["absolute /n", "upwards /n", "root/etc/hostname /n", "../../etc/hostname /n"] {
        bench.put("Dockerfile", format!("FROM base\nCOPY {copy}\n"));
        let error = bench.build().await.expect_err(copy);
        assert!(error.to_string().contains("file not found in build context"), "{error}");
    }
    bench.put("Dockerfile", "FROM base\nCOPY inside /n\nCOPY root/dir/x /m\n");
    let image = bench.build().await.expect("builds");
    assert_eq!(bench.text(&image, "n").as_deref(), Some("a"));
    assert_eq!(bench.text(&image, "m").as_deref(), Some("x"));
    // In a directory a link is copied as a link.
    bench.put("Dockerfile", "FROM base\nCOPY . /all\n");
    let image = bench.build().await.expect("builds");
    assert_eq!(bench.mode(&image, "all/absolute"), "120777 0:0");
}

#[tokio::test]
async fn ignored_files_are_not_there() {
    let bench = bench();
    bench.put(".dockerignore", "*\n!dir\ndir/x\n");
    bench.put("Dockerfile", "FROM base\nCOPY . /all\n");
    let image = bench.build().await.expect("builds");
    assert_eq!(bench.text(&image, "all/dir/sub/y").as_deref(), Some("y"));
    for path in ["all/a", "all/dir/x", "all/Dockerfile"] {
        assert!(bench.stat(&image, path).is_none(), "{path}");
    }
    bench.put("Dockerfile", "FROM base\nCOPY a /\n");
    bench.build().await.expect_err("an ignored file");
    bench.put("Dockerfile.dockerignore", "nothing\n");
    bench.build().await.expect("its own list counts instead");
}

#[tokio::test]
async fn archives_are_unpacked_by_add() {
    let bench = bench();
    let plain = archive(&[("d/", ""), ("d/f", "f"), ("l", "-> d/f"), ("deep/er/g", "g")]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &plain).expect("compresses");
    bench.put("plain.tar", &plain);
    bench.put("gzip", gzip.finish().expect("compresses"));
    bench.put("zstd.tar.zst", zstd::encode_all(&plain[..], 1).expect("compresses"));
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    std::io::Write::write_all(&mut bzip2, &plain).expect("compresses");
    bench.put("bzip2", bzip2.finish().expect("compresses"));
    let options = lzma_rust2::XzOptions::with_preset(1);
    let mut xz = lzma_rust2::XzWriter::new(Vec::new(), options).expect("options");
    std::io::Write::write_all(&mut xz, &plain).expect("compresses");
    bench.put("xz", xz.finish().expect("compresses"));
    bench.put("not.tar.xz", b"\xfd7zXZ\0 and so on");
    bench.put("only.gz", b"\x1f\x8b no archive");
    for name in ["plain.tar", "gzip", "zstd.tar.zst", "bzip2", "xz"] {
        bench.put("Dockerfile", format!("FROM base\nADD {name} /tmp\n"));
        let image = bench.build().await.expect(name);
        assert_eq!(bench.text(&image, "tmp/d/f").as_deref(), Some("f"), "{name}");
        assert_eq!(bench.text(&image, "tmp/l").as_deref(), Some("f"), "{name}");
        assert_eq!(bench.text(&image, "tmp/deep/er/g").as_deref(), Some("g"), "{name}");
        assert_eq!(bench.mode(&image, "tmp/d"), "41777 5:0", "{name}");
        assert_eq!(bench.mode(&image, "tmp"), "41777 5:0", "{name}");
    }
    bench.put(
        "Dockerfile",
        "FROM base\nADD only.gz not.tar.xz /n/\nADD --unpack=false plain.tar /n/\nCOPY gzip /n/\n",
    );
    let image = bench.build().await.expect("builds");
    for path in ["n/only.gz", "n/not.tar.xz", "n/plain.tar", "n/gzip"] {
        assert!(bench.stat(&image, path).is_some(), "{path}");
    }
    let mut up = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..7].copy_from_slice(b"../../x");
    header.set_size(0);
    header.set_mode(0o644);
    header.set_cksum();
    up.append(&header, &b""[..]).expect("appends");
    bench.put("up.tar", up.into_inner().expect("an archive"));
    bench.put("Dockerfile", "FROM base\nADD up.tar /n/\n");
    let error = bench.build().await.expect_err("upwards").to_string();
    assert!(error.contains("leads out of the archive"), "{error}");
}

#[tokio::test]
async fn addresses_are_fetched() {
    let mut bench = Bench::new();
    bench.image("base", &[("x", "x")]);
    bench.arguments = vec![("HOST", "http://h")];
    // What the context leaves out says nothing of addresses.
    bench.put(".dockerignore", "*\n!Dockerfile\n");
    let digest = bulkhead_types::Digest::of(b"http://h/sum");
    bench.put(
        "Dockerfile",
        format!(
            "FROM base\nARG HOST\nADD https://h/a/one.tar.gz?x=1 $HOST/[2]* /d/\nADD https://h/ /three\n\
             ADD --chmod=755 --chown=5:6 --checksum={digest} http://h/sum /four\n"
        ),
    );
    let image = bench.build().await.expect("builds");
    let text = |path: &str| bench.text(&image, path);
    assert_eq!(text("d/one.tar.gz").as_deref(), Some("https://h/a/one.tar.gz?x=1"));
    assert_eq!(text("d/[2]*").as_deref(), Some("http://h/[2]*"));
    assert_eq!(text("three").as_deref(), Some("https://h/"));
    assert_eq!(bench.mode(&image, "d/one.tar.gz"), "100600 0:0");
    assert_eq!(bench.mode(&image, "four"), "100755 5:6");
    assert_eq!(bench.stat(&image, "four").map(|stat| stat.st_mtime), Some(1000));
    let again = bench.build().await.expect("builds");
    assert_eq!(again, image, "the same bytes are the same layer");
    for (line, want) in [
        ("ADD https://h/ /d/", "cannot determine filename from url: https://h/"),
        ("ADD https://missing/x /", "https://missing/x answered 404 Not Found"),
        ("ADD https://h/x Dockerfile /d/", "together with files is not supported"),
        ("ADD --checksum=sha256:00 https://h/x /", "is no checksum"),
        ("ADD --checksum=x Dockerfile /", "--checksum applies to addresses only"),
    ] {
        bench.put("Dockerfile", format!("FROM base\n{line}\n"));
        let error = bench.build().await.expect_err(line).to_string();
        assert!(error.contains(want), "{line}: {error}");
    }
    bench.put("Dockerfile", format!("FROM base\nADD --checksum={digest} http://h/other /x\n"));
    let error = bench.build().await.expect_err("another file").to_string();
    assert!(error.contains("digest mismatch for http://h/other"), "{error}");
}

#[tokio::test]
async fn file_capabilities_are_kept_by_add_and_copy() {
    use std::os::fd::AsFd;

    use bulkhead_archive::{Entry, Kind, Writer, attributes, set_attributes};
    let bench = bench();
    let value = [&[1, 0, 0, 2, 0, 32, 0, 0][..], &[0; 12]].concat();
    let given = vec![(b"security.capability".to_vec(), value)];
    let entry = Entry::new("packed", Kind::File { size: 0 });
    let mut archive = Writer::new(Vec::new());
    archive.file(&Entry { xattrs: given.clone(), ..entry }, b"text").expect("memory");
    bench.put("packed.tar", archive.finish().expect("memory"));
    bench.put("plain", "text");
    let plain = std::fs::File::open(bench.context("plain")).expect("it is there");
    set_attributes(plain.as_fd(), &given, None).expect("as root");
    bench.put(
        "Dockerfile",
        "FROM base AS one\nADD packed.tar /n/\nCOPY plain /n/\nFROM base\nCOPY --from=one /n /n\n",
    );
    let image = bench.build().await.expect("builds");
    for path in ["n/packed", "n/plain"] {
        let file = bench.open(&image, path);
        assert_eq!(attributes(file.as_fd(), None).expect("read"), given, "{path}");
    }
}

#[tokio::test]
async fn attributes_of_directories_are_kept() {
    use std::os::fd::AsFd;

    use bulkhead_archive::set_attributes;
    let bench = bench();
    let given = vec![(b"user.mark".to_vec(), b"mine".to_vec())];
    for name in ["dir", "dir/sub"] {
        let directory = std::fs::File::open(bench.context(name)).expect("it is there");
        set_attributes(directory.as_fd(), &given, None).expect("as root");
    }
    bench.put(
        "Dockerfile",
        "FROM base AS one\nCOPY dir /d\nCOPY a /d/sub/a\nFROM base\nCOPY --from=one /d /n\nCOPY a /n/sub/\n",
    );
    let image = bench.build().await.expect("builds");
    // the last layer has it as a directory on the way
    for path in ["n/sub", "n"] {
        assert_eq!(bench.attributes(&image, path), given, "{path}");
    }
}
