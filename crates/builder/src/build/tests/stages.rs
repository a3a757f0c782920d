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
    assert_eq!(bench.config(&image).config.env.as_deref(), Some(&["A=1".to_owned()][..]));
    bench.target = None;
    let image = bench.build().await.expect("builds");
    assert_eq!(bench.config(&image).config.env.map(|env| env.len()), Some(2));
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
    assert_eq!(config.env.as_deref(), Some(&["B=b".to_owned(), "A=b".to_owned()][..]));
    assert_eq!(config.on_build.as_deref(), Some(&["RUN x".to_owned()][..]));

    bench.image_with("wrong", &[("x", "x")], |image| {
        image.config.on_build = Some(vec!["FROM evil".to_owned()]);
    });
    bench.put("Dockerfile", "\nFROM wrong\n");
    let error = bench.build().await.expect_err("a wrong trigger").to_string();
    assert!(error.starts_with("dockerfile parse error on line 2: ONBUILD FROM evil"), "{error}");
}
