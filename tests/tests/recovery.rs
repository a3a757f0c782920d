//! `kill -9` of the engine or the warden: nothing that was done is lost, nothing half done is left.

use anyhow::{Result, ensure};
use bulkhead_tests::Daemon;

#[test]
fn containers_outlive_the_engine() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    let line = "set -e; mkdir $HERE/shared; mkfifo $HERE/shared/go $HERE/shared/end
        $DOCKER run -d --name writes -p 8080:80 -v $HERE/shared:/shared box sh -c '
            mkdir /www; echo page >/www/index.html; httpd -p 80 -h /www
            echo before; read line </shared/go; echo while; echo written >/shared/go
            read line </shared/go; echo after; exec sleep 1000' >/dev/null
        $DOCKER run -d --name ends -v $HERE/shared:/shared box sh -c 'read code </shared/end; exit $code' >/dev/null
        first_line $DOCKER logs -f writes
        $DOCKER inspect --format '{{.State.Pid}} {{.State.StartedAt}} {{.NetworkSettings.IPAddress}}' writes >$HERE/state
        $DOCKER inspect --format '{{.State.Pid}}' ends >$HERE/pid";
    assert_eq!(daemon.shell(line)?.ok()?, "before");
    daemon.crash()?;
    // Both go on without an engine; a closed pipe tells that one has written, `tail` that one ended.
    daemon
        .shell(
            "echo go >$HERE/shared/go; head -n1 $HERE/shared/go >/dev/null
            echo 7 >$HERE/shared/end; tail --pid=$(cat $HERE/pid) -f /dev/null",
        )?
        .ok()?;
    ensure!(daemon.docker(&["ps"])?.code != 0, "an engine answers that was killed");
    daemon.up()?;
    let line = "set -e
        $DOCKER inspect --format '{{.State.Pid}} {{.State.StartedAt}} {{.NetworkSettings.IPAddress}}' writes | cmp - $HERE/state
        $DOCKER inspect --format '{{.State.Status}}' writes
        $DOCKER logs writes
        $DOCKER exec writes echo exec
        curl -sS --noproxy '*' --max-time 20 http://127.0.0.1:8080/
        $DOCKER inspect --format '{{.State.Status}} {{.State.ExitCode}}' ends
        $DOCKER wait ends
        echo go >$HERE/shared/go; $DOCKER exec writes sh -c 'until ps | grep -q [s]leep; do :; done'
        $DOCKER logs writes | tail -n1
        $DOCKER run --rm -p 8080:80 box true 2>&1 | grep -o 'port is already allocated'
        $DOCKER stop -t 0 writes; $DOCKER wait writes
        $DOCKER rm writes ends >/dev/null; $DOCKER run --rm -p 8080:80 box echo new";
    assert_eq!(
        daemon.shell(line)?.ok()?,
        "running\nbefore\nwhile\nexec\npage\nexited 7\n7\nafter\nport is already allocated\n\
         writes\n137\nnew"
    );
    Ok(())
}

#[test]
fn containers_outlive_the_warden() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    let line = "set -e; mkdir $HERE/shared; mkfifo $HERE/shared/go $HERE/shared/front
        $DOCKER run -d --name writes -p 8080:80 -v $HERE/shared:/shared box sh -c '
            mkdir /www; echo page >/www/index.html; httpd -p 80 -h /www
            echo before; read line </shared/go; echo after; trap \"echo last; exit 6\" TERM
            echo ready >/shared/go; while :; do sleep 1000 & wait; done' >/dev/null
        first_line $DOCKER logs -f writes
        { $DOCKER run --name front -v $HERE/shared:/shared box sh -c '
            echo front; read line </shared/front; exit 11' || echo $? >$HERE/front; } >/dev/null 2>&1 &
        until $DOCKER logs front 2>/dev/null | grep front; do :; done
        { $DOCKER exec writes sh -c 'echo runs; exec sleep 2000' >$HERE/started ||
            echo $? >$HERE/exec; } >/dev/null 2>&1 &
        { $BULKHEAD exec writes sh -c 'echo runs; exec sleep 2000' >$HERE/own-started ||
            echo $? >$HERE/own-exec; } >/dev/null 2>&1 &
        for started in started own-started; do
            until grep -q runs $HERE/$started 2>/dev/null; do :; done
        done";
    assert_eq!(daemon.shell(line)?.ok()?, "before\nfront");
    daemon.crash_warden()?;
    let line = "set -e
        until $DOCKER info 2>&1 | grep -o 'took over 2 containers'; do :; done
        $DOCKER ps --format '{{.Names}}' | sort
        for ended in exec own-exec; do until [ -s $HERE/$ended ]; do :; done; cat $HERE/$ended; done
        curl -sS --noproxy '*' --max-time 20 http://127.0.0.1:8080/
        $DOCKER exec writes echo exec; $DOCKER run --rm box echo new
        echo go >$HERE/shared/go; head -n1 $HERE/shared/go; $DOCKER stop writes
        $DOCKER inspect --format '{{.State.ExitCode}}' writes; $DOCKER logs writes
        echo go >$HERE/shared/front; until [ -s $HERE/front ]; do :; done; cat $HERE/front
        $DOCKER rm writes front >/dev/null";
    assert_eq!(
        daemon.shell(line)?.ok()?,
        "took over 2 containers\nfront\nwrites\n137\n137\npage\nexec\nnew\nready\nwrites\n6\n\
         before\nafter\nlast\n11"
    );
    Ok(())
}

#[test]
fn what_was_half_done_is_cleared_away() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    daemon.docker(&["run", "--rm", "box", "true"])?.ok()?;
    let before = daemon.traces(0)?;
    let context = daemon.directory().join("context");
    std::fs::create_dir(&context)?;
    std::fs::write(context.join("Dockerfile"), "FROM box\nRUN echo in-run && sleep 1000\n")?;

    // During a build's RUN.
    let line = "first_running() { until $DOCKER top $1 >/dev/null 2>&1; do :; done; }
        $DOCKER build $HERE/context >$HERE/build.log 2>&1 &
        until grep -q in-run $HERE/build.log; do :; done
        kill -9 $(cat $RUN_DIRECTORY/bulkhead.pid); wait $!; echo $?";
    assert_ne!(daemon.shell(line)?.ok()?, "0");
    daemon.up()?;
    assert_eq!(daemon.traces(0)?, before, "after a build");

    // During runs: at each of the events on the way to a running container, and with many at once.
    for event in ["create", "start", "die"] {
        let line = format!(
            "(first_line $DOCKER events --since 0 --filter container=half --filter event={event} >/dev/null
              kill -9 $(cat $RUN_DIRECTORY/bulkhead.pid)) & killer=$!
            for i in 1 2 3 4; do $DOCKER run --rm -p 809$i:80 -v /anonymous box true & done >/dev/null 2>&1
            $DOCKER run --name half -p 8090:80 box true >/dev/null 2>&1
            wait"
        );
        daemon.shell(&line)?;
        daemon.up()?;
        daemon.shell("$DOCKER rm -f $($DOCKER ps -aq) >/dev/null 2>&1")?;
        ensure!(daemon.docker(&["ps", "-aq"])?.ok()?.is_empty(), "containers stay after {event}");
        assert_eq!(daemon.traces(0)?, before, "after {event}");
        daemon.docker(&["run", "--rm", "-p", "8090:80", "box", "true"])?.ok()?;
    }

    // `down --purge --yes` where no engine runs: a container is ended, and nothing stays.
    daemon
        .docker(&["run", "-d", "-p", "8090:80", "-v", "kept:/kept", "box", "sleep", "1000"])?
        .ok()?;
    daemon.crash()?;
    daemon.shell("$BULKHEAD down --purge --yes --data $DATA --run $RUN_DIRECTORY")?.ok()?;
    let after = daemon.traces(0)?;
    ensure!(
        after.mounts.is_empty() && after.links.is_empty() && after.cgroups.is_empty(),
        "left: {after:?}"
    );
    ensure!(after.firewall.is_empty() && after.processes.is_empty(), "left: {after:?}");
    ensure!(!daemon.data().exists() && !daemon.run_directory().exists(), "directories are left");
    ensure!(daemon.shell("ip link show bhtest0")?.code != 0, "the bridge is left");
    Ok(())
}
