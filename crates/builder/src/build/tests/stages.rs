use super::bench::Bench;

#[tokio::test]
async fn stages_copy_from_each_other_and_from_images() {
    let mut bench = Bench::new();
    bench.image(
        "builder",
        &[("usr/lib/", ""), ("usr/lib/one", "1"), ("lib", "-> usr/lib"), ("gone", "x")],
    );
    bench.image("tools", &[("bin/tool", "tool")]);
    bench.put(
        "Dockerfile",
        "FROM builder AS Make\nRUN write usr/lib/two 2\nRUN remove gone\n\
         FROM scratch AS unused\nRUN fail\n\
         FROM scratch\nCOPY --from=make /lib /lib\nCOPY --from=0 lib/t* /t/\nCOPY --from=tools /bin/tool /\nCOPY --from=builder usr/lib /own\n",
    );
    let image = bench.build().await.expect("builds");
    assert_eq!(bench.runs().len(), 2, "the unused stage is not built");
    for (path, text) in [("lib/one", "1"), ("lib/two", "2"), ("t/two", "2"), ("tool", "tool")] {
        assert_eq!(bench.text(&image, path).as_deref(), Some(text), "{path}");
    }
    let config = bench.config(&image);
    assert_eq!((config.rootfs.diff_ids.len(), config.history.len()), (4, 4));
    // Files of a stage keep their owners, unlike those of the context.
    assert_eq!(bench.mode(&image, "own"), "41777 5:0");

    bench.put(
        "Dockerfile",
        "FROM builder AS a\nRUN remove gone\nFROM scratch\nCOPY --from=a gone /\n",
    );
    bench.build().await.expect_err("it was removed");

    bench.target = Some("make");
    bench.put("Dockerfile", "FROM builder AS make\nENV A=1\nFROM make\nENV B=2\n");
    let image = bench.build().await.expect("builds");
    assert_eq!(bench.config(&image).config.env.expect("variables"), [PATH, "A=1"]);
    bench.target = None;
    let image = bench.build().await.expect("builds");
    assert_eq!(bench.config(&image).config.env.expect("variables"), [PATH, "A=1", "B=2"]);
}

#[tokio::test]
async fn every_stage_has_a_path() {
    let mut bench = Bench::new();
    bench.image_with("own", &[("x", "x")], |image| {
        image.config.env = Some(vec!["PATH=/own".to_owned()]);
    });
    bench.put("a", "a");
    for (dockerfile, environment) in [
        ("FROM scratch\nCOPY a /\n", vec![PATH]),
        ("FROM own\nCOPY a /\n", vec!["PATH=/own"]),
        ("FROM scratch\nENV PATH=$PATH:/x\nCOPY a /\n", vec![&*format!("{PATH}:/x")]),
    ] {
        bench.put("Dockerfile", dockerfile);
        let image = bench.build().await.expect("builds");
        assert_eq!(bench.config(&image).config.env.expect("variables"), environment);
    }
}

#[tokio::test]
async fn a_base_alone_is_itself() {
    let mut bench = Bench::new();
    bench.image("base", &[("x", "x")]);
    bench.put("Dockerfile", "FROM base\n");
    let first = bench.build().await.expect("builds");
    bench.put("Dockerfile", "FROM base AS b\nFROM b\n");
    assert_eq!(bench.build().await.expect("builds"), first);
    assert_eq!(bench.config(&first).history.len(), 1);
}

#[tokio::test]
async fn triggers_run_in_the_next_build_and_once() {
    let mut bench = Bench::new();
    bench.image_with("base", &[("x", "x")], |image| {
        let triggers = ["RUN write t t", "COPY a /from-trigger", "ENV A=$B"];
        image.config.on_build = Some(triggers.map(str::to_owned).to_vec());
        image.config.env = Some(vec!["B=b".to_owned()]);
    });
    bench.put("a", "a");
    bench.put("Dockerfile", "FROM base\nONBUILD RUN x\n");
    let image = bench.build().await.expect("builds");
    assert!(bench.told().contains(&"triggered 3".to_owned()));
    assert_eq!(bench.text(&image, "from-trigger").as_deref(), Some("a"));
    assert_eq!(bench.text(&image, "t").as_deref(), Some("t"));
    let config = bench.config(&image).config;
    assert_eq!(config.env.expect("variables"), ["B=b", PATH, "A=b"]);
    assert_eq!(config.on_build.as_deref(), Some(&["RUN x".to_owned()][..]));

    bench.image_with("wrong", &[("x", "x")], |image| {
        image.config.on_build = Some(vec!["FROM evil".to_owned()]);
    });
    bench.put("Dockerfile", "\nFROM wrong\n");
    let error = bench.build().await.expect_err("a wrong trigger").to_string();
    assert!(error.starts_with("dockerfile parse error on line 2: ONBUILD FROM evil"), "{error}");
}

/// Neither would end without the other.
#[tokio::test]
async fn stages_that_do_not_need_each_other_are_built_at_once() {
    let mut bench = Bench::new();
    bench.image("base", &[("x", "x")]);
    bench.put(
        "Dockerfile",
        "FROM base AS a\nRUN meet a b\nRUN write a a\n\
         FROM base AS b\nRUN meet b a\nRUN write b b\n\
         FROM base\nCOPY --from=a /a /\nCOPY --from=b /b /\n",
    );
    let image = bench.build().await.expect("builds");
    for file in ["a", "b"] {
        assert_eq!(bench.text(&image, file).as_deref(), Some(file));
    }
    // The target's own steps do not wait for the stages that it copies from later.
    bench.put(
        "Dockerfile",
        "FROM base AS a\nRUN meet c d\nFROM base\nRUN meet d c\nCOPY --from=a /x /y\n",
    );
    bench.build().await.expect("builds");
    assert_eq!(bench.active().0, 0);
}

#[tokio::test]
async fn only_some_steps_are_done_at_once() {
    let mut bench = Bench::new();
    bench.image("base", &[("x", "x")]);
    let stage = |n: usize| format!("FROM base AS s{n}\nRUN nothing {n}\nRUN meet {n} {}\n", n ^ 1);
    let copy = |n: usize| format!("COPY --from=s{n} /x /{n}\n");
    let stages: String = (0..20).map(stage).collect();
    let copies: String = (0..20).map(copy).collect();
    bench.put("Dockerfile", format!("{stages}FROM base\n{copies}"));
    bench.build().await.expect("builds");
    let (left, most) = bench.active();
    assert!(left == 0 && (2..=4).contains(&most), "{most}");
}

#[tokio::test]
async fn the_same_work_twice_is_done_once() {
    let mut bench = Bench::new();
    bench.image("base", &[("x", "x")]);
    bench.put(
        "Dockerfile",
        "FROM base AS a\nRUN write a a\nFROM base AS b\nRUN write a a\n\
         FROM base\nCOPY --from=a /a /1\nCOPY --from=b /a /2\n",
    );
    bench.build().await.expect("builds");
    assert_eq!(bench.runs().len(), 1);
    assert!(bench.told().contains(&"cached RUN write a a".to_owned()));
}

#[tokio::test]
async fn a_stage_that_fails_ends_what_needs_it_and_what_goes_on_beside_it() {
    let mut bench = Bench::new();
    bench.image("base", &[("x", "x")]);
    bench.put(
        "Dockerfile",
        "FROM base AS a\nRUN hang a\nFROM base AS b\nRUN meet b a\nRUN fail\n\
         FROM base AS c\nCOPY --from=b /x /y\nRUN write c c\n\
         FROM base\nCOPY --from=a /x /\nCOPY --from=c /c /\n",
    );
    let error = bench.build().await.expect_err("a step fails").to_string();
    assert_eq!(error, "The command '/bin/sh -c fail' returned a non-zero code: 7");
    assert_eq!(bench.active().0, 0, "the step beside it is given up");
    let told = bench.told();
    assert!(told.contains(&"failed RUN fail".to_owned()));
    assert!(!told.iter().any(|line| line.contains("--from=b") || line.contains("RUN write c c")));
}

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
