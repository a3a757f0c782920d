//! Whole builds, with layers on the disk. Only RUN is done by the tests: its text names a file to
//! write, because containers are the engine's.

mod bench;
mod copies;
mod stages;

use bench::Bench;

/// The walk-through's Dockerfile, unchanged.
const PROXY: &str = "\
FROM ubuntu
RUN apt-get update && apt-get install -y nginx
COPY nginx.conf /etc/nginx/nginx.conf
RUN echo \"daemon off;\" >> /etc/nginx/nginx.conf
EXPOSE 80
CMD service nginx start
";

#[tokio::test]
async fn the_walk_through_builds() {
    let mut bench = Bench::new();
    bench.image("debian:bookworm", &[("etc/nginx/", ""), ("etc/nginx/nginx.conf", "old")]);
    bench.contexts = vec![("ubuntu", "docker-image://debian:bookworm")];
    bench.put("Dockerfile", PROXY);
    bench.put("nginx.conf", "worker_processes 4;\n");
    let image = bench.build().await.expect("builds");

    let runs = bench.runs();
    let commands: Vec<_> = runs.iter().map(|step| step.arguments.join(" ")).collect();
    assert_eq!(
        commands,
        [
            "/bin/sh -c apt-get update && apt-get install -y nginx",
            "/bin/sh -c echo \"daemon off;\" >> /etc/nginx/nginx.conf",
        ]
    );
    assert_eq!((runs[0].layers.len(), runs[1].layers.len()), (1, 2));
    let config = bench.config(&image);
    assert_eq!(config.config.cmd.expect("a command")[2], "service nginx start");
    assert!(config.config.exposed_ports.expect("ports").contains_key("80/tcp"));
    let history: Vec<_> =
        config.history.iter().map(|entry| (entry.created_by.as_str(), entry.empty_layer)).collect();
    assert_eq!(
        history[1..],
        [
            ("RUN /bin/sh -c apt-get update && apt-get install -y nginx", true),
            ("COPY nginx.conf /etc/nginx/nginx.conf", false),
            ("RUN /bin/sh -c echo \"daemon off;\" >> /etc/nginx/nginx.conf", true),
            ("EXPOSE map[80/tcp:{}]", true),
            (r#"CMD ["/bin/sh" "-c" "service nginx start"]"#, true),
        ]
    );
    assert_eq!(bench.text(&image, "etc/nginx/nginx.conf"), Some("worker_processes 4;\n".into()));
    let told = bench.told();
    assert_eq!(told[..3], ["planned 6", "started FROM ubuntu", "completed FROM ubuntu"]);
    let run = "RUN echo \"daemon off;\" >> /etc/nginx/nginx.conf";
    let at = told.iter().position(|line| *line == format!("started {run}")).expect(run);
    assert_eq!(told[at + 1..at + 3], [format!("running {run}"), format!("completed {run}")]);
    assert_eq!(told.iter().filter(|line| line.starts_with("running ")).count(), 2);
    assert_eq!(told.last().map(String::as_str), Some("completed CMD service nginx start"));
}

#[tokio::test]
async fn what_is_done_is_not_done_again() {
    let mut bench = Bench::new();
    bench.image("base", &[("x", "x")]);
    bench.put("a", "one");
    bench.put(
        "Dockerfile",
        "FROM base\nENV A=1\nWORKDIR /w\nRUN write r r\nCOPY a /a\nRUN write s s\n",
    );
    let first = bench.build().await.expect("builds");
    assert_eq!(bench.runs().len(), 2);
    bench.told();
    let second = bench.build().await.expect("builds");
    assert_eq!((bench.runs().len(), &second), (0, &first), "the same image, and nothing ran");
    assert_eq!(bench.told().iter().filter(|line| line.starts_with("cached ")).count(), 5);

    // A file's time is nothing to the cache; its bytes and its mode are.
    bench.put("a", "one");
    assert_eq!(bench.build().await.expect("builds"), first);
    bench.put("a", "two");
    let third = bench.build().await.expect("builds");
    assert_eq!(bench.runs().len(), 1, "only what comes after COPY");
    assert_eq!(bench.text(&third, "a"), Some("two".into()));
    bench.chmod("a", 0o600);
    assert_ne!(bench.build().await.expect("builds"), third);
    assert_eq!(bench.runs().len(), 1);

    // A layer that was removed is made anew.
    let config = bench.config(&third);
    bench.content.delete_layer(config.rootfs.diff_ids[2]).expect("deletes");
    bench.put("a", "two");
    bench.chmod("a", 0o644);
    let again = bench.build().await.expect("builds");
    assert_eq!(bench.runs().len(), 1);
    assert_eq!(bench.text(&again, "r"), Some("r".into()));

    // Last, since WORKDIR's new directory has a new time, and what follows is another chain.
    bench.no_cache = true;
    bench.build().await.expect("builds");
    assert_eq!(bench.runs().len(), 2);
}

#[tokio::test]
async fn arguments_count_where_they_are_used() {
    let mut bench = Bench::new();
    bench.image("base:1", &[("x", "x")]);
    bench.arguments = vec![("V", "1"), ("A", "given"), ("HTTP_PROXY", "http://p"), ("LOST", "x")];
    bench.put(
        "Dockerfile",
        "ARG V\nFROM base:$V\nENV E=env\nRUN write one 1\nARG A=default\nARG B=b\nARG E=hidden\nRUN write two 2\n",
    );
    bench.build().await.expect("builds");
    let runs = bench.runs();
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(runs[0].environment, [path, "E=env", "HTTP_PROXY=http://p"]);
    assert_eq!(runs[1].environment, [path, "E=env", "A=given", "B=b", "HTTP_PROXY=http://p"]);
    assert_eq!(bench.told().last().map(String::as_str), Some("unused LOST"));
    bench.arguments = vec![("V", "1"), ("A", "other"), ("HTTP_PROXY", "http://q")];
    bench.build().await.expect("builds");
    assert_eq!(bench.runs().len(), 1, "the first RUN has none of what changed");
}

#[tokio::test]
async fn documents_run_in_the_shell_or_by_their_own_interpreter() {
    let mut bench = Bench::new();
    bench.image("base", &[("x", "x")]);
    bench.put(
        "Dockerfile",
        "FROM base\nSHELL [\"/bin/bash\", \"-c\"]\nRUN <<EOF\nwrite a a\nEOF\n\
         RUN cat <<A >/x\nhi\nA\nRUN <<-E\n\t#!/usr/bin/python3\n\tprint(1)\n\tE\nRUN [\"write\", \"$x\"]\n",
    );
    let image = bench.build().await.expect("builds");
    let runs = bench.runs();
    let arguments: Vec<_> = runs.iter().map(|step| step.arguments.clone()).collect();
    assert_eq!(arguments[0], ["/bin/bash", "-c", "write a a\n"]);
    assert_eq!(arguments[1], ["/bin/bash", "-c", "cat <<A >/x\nhi\nA"]);
    assert_eq!(arguments[2], ["/.bulkhead-build-script"]);
    assert_eq!(arguments[3], ["write", "$x"]);
    // The script's layer is under the container, and not in the image.
    assert_eq!(runs[2].layers.len(), runs[1].layers.len() + 1);
    assert_eq!(bench.text(&image, ".bulkhead-build-script"), None);
    let script = bench.text_in(&runs[2].layers, ".bulkhead-build-script");
    assert_eq!(script.as_deref(), Some("#!/usr/bin/python3\nprint(1)\n"));
}

#[tokio::test]
async fn volumes_are_there_for_the_steps_and_keep_what_is_written() {
    let mut bench = Bench::new();
    bench.image("base", &[("there/", ""), ("there/file", "x")]);
    bench.put(
        "Dockerfile",
        "FROM base\nVOLUME /data/deep /there\nRUN nothing\nRUN write data/deep/x text\n",
    );
    let image = bench.build().await.expect("builds");
    let runs = bench.runs();
    assert_eq!(runs[0].layers.len(), 2, "one below it with what the image does not have");
    let text = bench.text_in(&runs[0].layers, "there/file");
    assert_eq!(text.as_deref(), Some("x"));
    assert_eq!(runs[0].layers[1], runs[1].layers[1], "the same for every step");
    assert_eq!(bench.text(&image, "data/deep/x").as_deref(), Some("text"));
    assert_eq!(bench.config(&image).rootfs.diff_ids.len(), 2, "base, and what was written");
    // The volume of a base image, and a volume that is a file.
    bench.image_with("volume", &[("file", "x")], |image| {
        let volumes = image.config.volumes.get_or_insert_default();
        volumes.insert("/v".to_owned(), bulkhead_types::image::Empty {});
    });
    bench.put("Dockerfile", "FROM volume\nRUN nothing\n");
    bench.build().await.expect("builds");
    assert_eq!(bench.runs()[0].layers.len(), 2);
    bench.put("Dockerfile", "FROM base\nVOLUME /there/file\nRUN nothing\n");
    let error = bench.build().await.expect_err("a file").to_string();
    assert_eq!(error, "Dockerfile line 3: /there/file is not a directory");
}

#[tokio::test]
async fn bombs_end_with_a_fault() {
    let mut bench = Bench::new();
    bench.image("base", &[("x", "x")]);
    let doubled = "ENV A=$A$A$A$A\n".repeat(30);
    let many = (0..9_000).map(|n| format!("ENV B{n}=$A\n")).collect::<String>();
    let x = "x".repeat(5_000);
    for dockerfile in [
        format!("FROM base\nENV A=xxxxxxxx\n{doubled}"),
        format!("FROM base\nENV A={x}\n{many}"),
        format!("FROM base\nENV A={x}\nCOPY {} /\n", "$A ".repeat(100_000)),
        format!("FROM base\nENV A={x}\nENV {}\n", "B=$A ".repeat(100_000)),
        format!("ARG A={x}\n{}FROM base\n", "ARG B=$A\n".repeat(9_000)),
        format!("FROM base\n{}", "RUN x\n".repeat(10_000)),
        format!("FROM base\nRUN {}\n", "x".repeat(5 << 20)),
    ] {
        bench.put("Dockerfile", &dockerfile);
        let error = bench.build().await.expect_err("too much").to_string();
        assert!(error.contains("line ") && error.len() < 300, "{error}");
    }
    assert!(bench.runs().is_empty());
}

#[tokio::test]
async fn faults_name_their_line_and_leave_no_image() {
    let mut bench = Bench::new();
    bench.image("base", &[("file", "x"), ("etc/passwd", "root:x:0:0::/:\n")]);
    bench.put("a", "a");
    bench.put("b", "b");
    for (dockerfile, want) in [
        ("FROM base\nRUN fail", "The command '/bin/sh -c fail' returned a non-zero code: 7"),
        (
            "FROM base\nCOPY none /",
            "Dockerfile line 2: COPY failed: file not found in build context or excluded by .dockerignore: stat none: file does not exist",
        ),
        ("FROM base\nCOPY n* /", "Dockerfile line 2: COPY failed: no source files were specified"),
        (
            "FROM base\nCOPY a b /x",
            "Dockerfile line 2: When using COPY with more than one source file, the destination must be a directory and end with a /",
        ),
        (
            "FROM base\n\nCOPY a /file/",
            "Dockerfile line 3: COPY failed: cannot copy to non-directory: /file/",
        ),
        (
            "FROM base\nCOPY --chown=web a /",
            "Dockerfile line 2: unable to find user web: no matching entries in passwd file",
        ),
        (
            "FROM base\nCOPY --from=base none /",
            "Dockerfile line 2: COPY failed: stat none: file does not exist",
        ),
        ("FROM base\nWORKDIR /file", "Dockerfile line 2: /file is not a directory"),
        (
            "FROM base\nRUN --network=host x",
            "Dockerfile line 2: RUN --network=host is not allowed: the build must be started with --network=host",
        ),
        ("FROM base\nENV A=\"${B:?not there}\"", "dockerfile parse error on line 2: B: not there"),
        (
            "FROM base\nRUN --mount=type=cache,target=/x y",
            "dockerfile parse error on line 2: RUN --mount is not supported yet: copy what the step needs into the image, and remove what must not stay in the same RUN",
        ),
        ("FROM nowhere", "manifest for nowhere:latest not found: manifest unknown"),
    ] {
        bench.put("Dockerfile", dockerfile);
        let error = bench.build().await.expect_err(dockerfile);
        assert_eq!(error.to_string(), want, "{dockerfile}");
    }
    bench.dockerfile = "other".to_owned();
    let error = bench.build().await.expect_err("no Dockerfile");
    assert_eq!(error.to_string(), "the Dockerfile other is not in the build context");
}
