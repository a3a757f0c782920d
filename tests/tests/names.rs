//! Names on networks of the user's own, by the docker CLI.

use anyhow::Result;
use bulkhead_tests::Daemon;

/// `of CONTAINER NAME`: the addresses that a name has in a container, or what its resolver says.
const OF: &str = "of() { $DOCKER exec $1 nslookup -type=a $2 127.0.0.11 2>&1 |
    awk '/^Name:/ { found = 1 } found && /^Address/ { print $NF } /SERVFAIL|NXDOMAIN/ { print $NF }' |
    sort | paste -sd ' '; }\n";

#[test]
fn containers_find_each_other_by_name() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    let line = "set -e
        $DOCKER network create --subnet 10.77.0.0/24 front >/dev/null
        $DOCKER network create --subnet 10.78.0.0/24 --internal back >/dev/null
        for name in one two; do
            $DOCKER run -d --name $name --network front --network-alias service box sleep 1000 >/dev/null
        done
        of one two; of two one; of one service; of two one.front
        of one $($DOCKER inspect --format '{{slice .Id 0 12}}' two)
        $DOCKER run -d --name db --network back box sleep 1000 >/dev/null
        of one db.back; $DOCKER network connect --alias store back one
        of one db; of one store; of db store
        $DOCKER rename db base; of one base
        $DOCKER run --rm --network back --link base:sql box nslookup -type=a sql | grep -c 10.78.0.2
        of base www.example.com
        $DOCKER network disconnect back one; of base one
        $DOCKER exec two cat /etc/resolv.conf | grep -E '^(nameserver|options)'
        $DOCKER rm -f one >/dev/null; of two service
        $DOCKER run --rm --network front box nslookup -type=a two | grep -c 10.77.0.3";
    assert_eq!(
        daemon.shell(&format!("{OF}{line}"))?.ok()?,
        "10.77.0.3\n10.77.0.2\n10.77.0.2 10.77.0.3\n10.77.0.2\n10.77.0.3\nSERVFAIL\n10.78.0.2\n\
         10.78.0.3\n10.78.0.3\n10.78.0.2\n1\nSERVFAIL\nSERVFAIL\nnameserver 127.0.0.11\n\
         options ndots:0\n10.77.0.3\n1"
    );
    Ok(())
}

/// By the resolver on a network of the user's own, else by the hosts file.
#[test]
fn the_host_has_a_name() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    let line = "set -e; $DOCKER network create --subnet 10.77.0.0/24 front >/dev/null
        for network in bridge front; do
            $DOCKER run --rm --network $network box ping -c 1 host.docker.internal |
                grep -oE '^PING .*[0-9]\\)'
        done
        $DOCKER run --rm --add-host host.docker.internal:10.9.9.9 box grep docker.internal /etc/hosts";
    assert_eq!(
        daemon.shell(line)?.ok()?,
        "PING host.docker.internal (10.99.0.1)\nPING host.docker.internal (10.77.0.1)\n\
         10.9.9.9\thost.docker.internal"
    );
    Ok(())
}

/// The engine is killed, and then the resolver, while a container asks for a name again and again:
/// each question has its answer.
#[test]
fn names_are_answered_while_the_engine_is_killed() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    let line = "set -e; mkdir $HERE/shared; mkfifo $HERE/shared/begun
        $DOCKER network create --subnet 10.77.0.0/24 front >/dev/null
        $DOCKER run -d --name db --network front box sleep 1000 >/dev/null
        $DOCKER run -d --name asks --network front -v $HERE/shared:/shared box sh -c '
            while [ ! -e /shared/stop ]; do
                nslookup -type=a db 127.0.0.11 >/dev/null 2>&1 && echo answered || echo failed
            done >/shared/log; echo end >/shared/begun' >/dev/null
        tail -f $HERE/shared/log --retry 2>/dev/null | head -n 3 >/dev/null";
    daemon.shell(line)?.ok()?;
    daemon.crash()?;
    let more = "count=$(wc -l <$HERE/shared/log)
        tail -n +$((count + 1)) -f $HERE/shared/log | head -n 20 >/dev/null";
    daemon.shell(more)?.ok()?;
    daemon.up()?;
    daemon.shell(more)?.ok()?;
    let line = "set -e; touch $HERE/shared/stop; cat $HERE/shared/begun
        grep -c failed $HERE/shared/log || true; $DOCKER rm -f asks db >/dev/null";
    assert_eq!(daemon.shell(line)?.ok()?, "end\n0");
    Ok(())
}
