//! Builds by the real buildx, which speaks BuildKit's protocol: `docker buildx build` on the engine's socket.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use bulkhead_tests::{Daemon, Said};

/// A daemon with a busybox image, and the plugin where the docker CLI finds it.
fn daemon() -> Result<Daemon> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    let plugin = std::env::var_os("BULKHEAD_BUILDX").map_or_else(
        || PathBuf::from("/usr/libexec/docker/cli-plugins/docker-buildx"),
        PathBuf::from,
    );
    ensure!(plugin.exists(), "there is no buildx at {}", plugin.display());
    let plugins = daemon.directory().join("config/cli-plugins");
    std::fs::create_dir_all(&plugins)?;
    std::os::unix::fs::symlink(plugin, plugins.join("docker-buildx"))?;
    std::fs::create_dir(daemon.directory().join("context"))?;
    Ok(daemon)
}

/// A line with `$BUILD` for `docker buildx build` of the context, with plain progress.
fn build(daemon: &Daemon, line: &str) -> Result<Said> {
    let begin = "export DOCKER_CONFIG=$HERE/config; cd $HERE/context
        BUILD=\"$DOCKER buildx build --progress plain\"\n";
    daemon.shell(&format!("{begin}{line}"))
}

#[test]
fn a_context_becomes_an_image() -> Result<()> {
    let daemon = daemon()?;
    let line = r#"set -e; mkdir -p sub/deep; echo hello >a; echo deep >sub/deep/b; echo no >x.log; echo kept >keep.log
        printf '*.log\n!keep.log\n' >.dockerignore; ln -s a link; chmod 4755 a; touch -d @1500000000 sub/deep/b
        cat >Dockerfile <<'END'
FROM box AS base
ARG WHO=nobody
RUN echo "out $WHO"; echo err >&2; echo "$WHO" >/who
COPY . /ctx/
FROM base
LABEL a=b
RUN stat -c '%a %Y %n' /ctx/a /ctx/sub/deep/b; ls /ctx; cat /ctx/link
CMD ["cat", "/who"]
END
        $BUILD --build-arg WHO=me -t made:1 -t other --iidfile $HERE/id . >$HERE/log 2>&1
        grep -oE '(out me|err|4755 [0-9]+ /ctx/a|644 1500000000 /ctx/sub/deep/b|^#[0-9]+ [0-9.]+ (keep.log|x.log|hello))$' $HERE/log
        grep -cE '\[base +2/3\] RUN echo "out|exporting to image|load build context' $HERE/log
        $DOCKER run --rm made:1; $DOCKER run --rm other
        test $(cat $HERE/id) = $($DOCKER inspect --format '{{.Id}}' made:1) && echo the id
        $BUILD --build-arg WHO=me -t made:1 . 2>&1 | grep -c CACHED"#;
    let said = build(&daemon, line)?.ok()?;
    let lines: Vec<&str> = said.lines().collect();
    for part in ["out me", "err", "644 1500000000 /ctx/sub/deep/b", "the id"] {
        ensure!(lines.contains(&part), "{part} is missing: {said}");
    }
    ensure!(
        said.contains("keep.log") && said.contains("hello") && !said.contains("x.log"),
        "{said}"
    );
    ensure!(said.contains("4755 "), "the mode of a file: {said}");
    ensure!(lines.iter().filter(|line| **line == "me").count() == 2, "{said}");
    let cached: usize = lines.last().context("a count")?.parse()?;
    ensure!(cached >= 3, "{cached} steps came from the cache");
    Ok(())
}

#[test]
fn what_goes_wrong_is_said() -> Result<()> {
    let daemon = daemon()?;
    for (dockerfile, flags, part) in [
        ("FROM box\\nRUN exit 7\\n", "", "did not complete successfully: exit code: 7"),
        ("FROM box\\nCOPY nope /\\n", "", "nope"),
        ("FRM box\\n", "", "unknown instruction: FRM"),
        ("FROM box\\n", "--target nope", "nope"),
        ("FROM box\\n", "--output type=local,dest=out", "--output type=local is not supported yet"),
        ("FROM box\\n", "--no-cache-filter base", "--no-cache-filter is not supported yet"),
        ("FROM box\\n", "--build-context a=.", "--build-context a=local:a is not supported yet"),
    ] {
        let line = format!("printf '{dockerfile}' >Dockerfile; $BUILD {flags} . 2>&1");
        build(&daemon, &line)?.expect(1, part)?;
    }
    build(&daemon, "rm Dockerfile; $BUILD . 2>&1")?.expect(1, "Dockerfile")?;
    let line = "printf 'FROM box\\nRUN echo hi >/hi\\n' | $BUILD -t stdin -f - . && $DOCKER run --rm stdin cat /hi";
    build(&daemon, line)?.expect(0, "hi")?;
    Ok(())
}

/// Several targets at once, whose contexts come by one session of their client.
#[test]
fn bake_builds_its_targets() -> Result<()> {
    let daemon = daemon()?;
    let line = r#"set -e; echo shared >file
        cat >docker-bake.json <<'END'
{"group": {"default": {"targets": ["a", "b"]}}, "target": {
  "a": {"dockerfile-inline": "FROM box\nCOPY file /\nRUN echo a >>/file", "tags": ["baked:a"]},
  "b": {"dockerfile-inline": "FROM box\nCOPY file /\nRUN echo b >>/file", "tags": ["baked:b"]},
  "linked": {"contexts": {"base": "target:a"}, "dockerfile-inline": "FROM base"}}}
END
        $DOCKER buildx bake --progress plain >$HERE/log 2>&1 || { cat $HERE/log; exit 9; }
        for target in a b; do $DOCKER run --rm baked:$target cat /file; done
        $DOCKER buildx bake linked 2>&1 | grep -o 'not supported by build server'"#;
    assert_eq!(build(&daemon, line)?.ok()?, "shared\na\nshared\nb\nnot supported by build server");
    Ok(())
}

/// A client that goes in the middle of a RUN takes its container with it; the next build is whole.
#[test]
fn a_client_that_leaves_ends_its_build() -> Result<()> {
    let daemon = daemon()?;
    // the engine's own groups come with the first container
    daemon.docker(&["run", "--rm", "box", "true"])?.ok()?;
    let before = daemon.traces(0)?;
    let line = "printf 'FROM box\\nRUN echo in-run; exec sleep 1000\\n' >Dockerfile
        $BUILD . >log 2>&1 & client=$!
        until grep -q 'in-run$' log; do kill -0 $client || { cat log; exit 1; }; done
        kill -9 $client; wait $client; echo $?
        LINES_WANTED=2 first_line $DOCKER events --since 0 --filter event=destroy >/dev/null";
    build(&daemon, line)?.expect(0, "137")?;
    assert_eq!(daemon.traces(0)?, before);
    let line = "printf 'FROM box\\nRUN true\\n' >Dockerfile; $BUILD --iidfile $HERE/id . >/dev/null 2>&1; cat $HERE/id";
    build(&daemon, line)?.expect(0, "sha256:")?;
    // contexts are removed in the background
    build(&daemon, "until [ -z \"$(ls $DATA/builds)\" ]; do :; done; echo none")?
        .expect(0, "none")?;
    Ok(())
}
