//! What a container uses and may use, by the real docker CLI: stats, top, update, wait, and an environment of
//! any size.

use anyhow::{Context, Result, ensure};
use bulkhead_tests::Daemon;
use serde_json::Value;

fn daemon() -> Result<Daemon> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    Ok(daemon)
}

fn stats(daemon: &Daemon, query: &str) -> Result<Value> {
    let line = format!(
        "curl -sS --unix-socket ${{DOCKER_HOST#unix://}} 'http://d/v1.51/containers/busy/stats?{query}'"
    );
    Ok(serde_json::from_str(&daemon.shell(&line)?.ok()?)?)
}

#[test]
fn stats_count_what_a_container_does() -> Result<()> {
    let daemon = daemon()?;
    let line = "set -e
        $DOCKER run -d --name busy --cpus 0.5 -m 64m --pids-limit 50 box sh -c \
            'while :; do head -c 100000 /dev/urandom >/tmp/x; done' >/dev/null
        $DOCKER run --rm --name idle -d box sleep 1000 >/dev/null
        LINES_WANTED=4 first_line $DOCKER stats --format '{{.Name}} {{.PIDs}}' | grep -c 'idle 1'
        $DOCKER stats --no-stream --format '{{.Name}} {{.MemUsage}} {{.PIDs}}' idle
        $DOCKER stop -t 0 idle >/dev/null; $DOCKER stats -a --no-stream --format '{{.Name}}' | sort";
    let said = daemon.shell(line)?.ok()?;
    let rows: Vec<&str> = said.lines().map(str::trim).collect();
    ensure!(rows[0].parse::<u32>().is_ok_and(|count| count >= 1), "{said}");
    ensure!(rows[1].starts_with("idle ") && rows[1].ends_with(" 1"), "{said}");
    assert_eq!(rows[2..], ["busy"]);
    let now = stats(&daemon, "stream=0&one-shot=1")?;
    let number = |value: &Value| value.as_u64().with_context(|| format!("{value} of {now}"));
    let cpu = &now["cpu_stats"]["cpu_usage"];
    let total = number(&cpu["total_usage"])?;
    let parts = number(&cpu["usage_in_kernelmode"])? + number(&cpu["usage_in_usermode"])?;
    // Counted by ticks, where the whole is by the clock.
    ensure!(total > 0 && parts > 0, "{now}");
    ensure!(number(&now["memory_stats"]["limit"])? == 64 << 20, "{now}");
    let details = now["memory_stats"]["stats"].as_object().context("a list")?;
    ensure!(details.contains_key("inactive_file") && details.len() > 10, "{now}");
    ensure!(now["networks"]["eth0"]["rx_dropped"].is_u64(), "{now}");
    // A quota holds it back; a host without that controller counts nothing.
    let two = stats(&daemon, "stream=0")?;
    if std::fs::read_to_string("/proc/cgroups")?.lines().any(|line| line.starts_with("cpu\t")) {
        ensure!(number(&two["cpu_stats"]["throttling_data"]["periods"])? > 0, "{two}");
    }
    ensure!(two["precpu_stats"]["cpu_usage"]["total_usage"].as_u64() > Some(0), "{two}");
    Ok(())
}

#[test]
fn top_shows_the_columns_that_ps_is_asked_for() -> Result<()> {
    let daemon = daemon()?;
    let line = "$DOCKER run -d --name cc box sleep 7341 >/dev/null
        $DOCKER top cc | head -n1 | tr -s ' '
        $DOCKER top cc -o pid,ppid,args | tail -n1 | grep -o 'sleep 7341'
        $DOCKER top cc aux | head -n1 | tr -s ' '
        $DOCKER top cc -eo pid,comm | tail -n1 | tr -s ' ' | cut -d' ' -f2
        $DOCKER top cc -o user 2>&1; $DOCKER top cc -L 2>&1";
    let said = daemon.shell(line)?;
    let rows: Vec<&str> = said.stdout.lines().map(str::trim).collect();
    assert_eq!(
        rows,
        [
            "UID PID PPID C STIME TTY TIME CMD",
            "sleep 7341",
            "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND",
            "sleep",
            "Error response from daemon: Couldn't find PID field in ps output",
            "Error response from daemon: ps: option 'L' of \"-L\" is not supported by Bulkhead: there are \
             -e, -f, -o COLUMNS and aux",
        ]
    );
    Ok(())
}

#[test]
fn update_changes_limits_of_what_runs() -> Result<()> {
    let daemon = daemon()?;
    let line = "set -e
        $DOCKER run -d --name cc -m 64m box sleep 1000 >/dev/null
        $DOCKER update -m 128m --memory-swap 256m --pids-limit 77 --cpus 0.5 --cpu-shares 512 \
            --memory-reservation 32m --restart on-failure:3 cc
        $DOCKER inspect -f '{{with .HostConfig}}{{.Memory}} {{.MemorySwap}} {{.PidsLimit}} {{.NanoCpus}} {{.CpuShares}} {{.MemoryReservation}} {{.RestartPolicy.Name}}:{{.RestartPolicy.MaximumRetryCount}}{{end}}' cc
        $DOCKER exec cc sh -c 'cat /sys/fs/cgroup/memory/memory.limit_in_bytes || cat /sys/fs/cgroup/memory.max' 2>/dev/null
        $DOCKER exec cc sh -c 'cat /sys/fs/cgroup/pids/pids.max || cat /sys/fs/cgroup/pids.max' 2>/dev/null
        $DOCKER update --cpu-quota 5000 cc 2>&1 || true
        $DOCKER update -m 1g cc 2>&1 || true
        $DOCKER kill cc >/dev/null; timeout 60 sh -c 'until test $($DOCKER inspect -f \"{{.RestartCount}}\" cc) != 1; do :; done'
        $DOCKER inspect -f '{{.State.Status}} {{.HostConfig.Memory}}' cc";
    let said = daemon.shell(&format!("export DOCKER\n{line}"))?.ok()?;
    let rows: Vec<&str> = said.lines().map(str::trim).collect();
    assert_eq!(
        rows[..4],
        ["cc", "134217728 268435456 77 500000000 512 33554432 on-failure:3", "134217728", "77"]
    );
    ensure!(
        rows[4].contains("CPU Period or Quota cannot be updated as NanoCPUs has already been set"),
        "{said}"
    );
    ensure!(
        rows[5].contains("Memory limit should be smaller than already set memoryswap limit"),
        "{said}"
    );
    assert_eq!(rows[6], "exited 134217728", "a kill by its user is no failure");
    Ok(())
}

/// What is longer than the kernel takes is said so, and nothing waits for it.
#[test]
fn an_environment_of_any_size_is_taken_or_refused_at_once() -> Result<()> {
    let daemon = daemon()?;
    let line = "set -e
        seq 1 40000 | sed 's/.*/V&=xxxxxxxx/' >$HERE/some
        seq 1 100000 | sed 's/.*/V&=xxxxxxxxxxxxxxxx/' >$HERE/many
        $DOCKER run --rm --env-file $HERE/some box sh -c 'env | grep -c ^V'
        begun=$(date +%s%N)
        $DOCKER run --name many --env-file $HERE/many box true 2>&1 | grep -o 'argument list too long' || true
        $DOCKER rm -f many
        echo $((($(date +%s%N) - begun) / 1000000))";
    let said = daemon.shell(line)?.ok()?;
    let rows: Vec<&str> = said.lines().map(str::trim).collect();
    assert_eq!(rows[..3], ["40000", "argument list too long", "many"]);
    // Much more than it takes, and far from the minutes of a search for each.
    ensure!(rows[3].parse::<u64>()? < 20_000, "{said}");
    Ok(())
}

#[test]
fn wait_answers_for_each_condition() -> Result<()> {
    let daemon = daemon()?;
    let line = "set -e
        $DOCKER run -d --name cc box sh -c 'read line; exit 7' >/dev/null || true
        $DOCKER wait cc
        $DOCKER run -d --rm --name gone box sh -c 'sleep 1000' >/dev/null
        curl -sS -N -X POST --unix-socket ${DOCKER_HOST#unix://} 'http://d/containers/gone/wait?condition=removed' >$HERE/removed & waiter=$!
        timeout 60 sh -c 'until $DOCKER stop -t 0 gone; do :; done' >/dev/null
        wait $waiter; cat $HERE/removed
        $DOCKER wait nobody 2>&1 || true
        curl -sS -X POST --unix-socket ${DOCKER_HOST#unix://} 'http://d/containers/cc/wait?condition=bogus'";
    let said = daemon.shell(&format!("export DOCKER\n{line}"))?.ok()?;
    let rows: Vec<&str> = said.lines().map(str::trim).filter(|row| !row.is_empty()).collect();
    assert_eq!(rows[0], "7");
    ensure!(rows[1] == r#"{"StatusCode":137}"#, "{said}");
    ensure!(rows[2].contains("No such container: nobody"), "{said}");
    ensure!(rows[3].contains("invalid condition"), "{said}");
    Ok(())
}
