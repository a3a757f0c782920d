# run.sh: starts $ENGINE, gives it the images, and runs the cases $CASES, several at a time.
# Writes for each "=== NAME" and what a user has seen, and at last what the engine has left.
PATH=$PATH:/bulkhead
# what maintainers' scripts would have linked
ln -s /usr/bin/busybox /bulkhead/awk
for tables in iptables ip6tables; do ln -s "$(command -v $tables-nft)" "/bulkhead/$tables"; done
mkdir -p /transcripts /srv
# Projects' files lie on a file system of an ordinary kind. The overlay of the system's cannot be mapped to other ids.
mount -t tmpfs tmpfs /srv
cd /

case $ENGINE in
docker)
    mkdir -p /etc/docker
    dockerd -H unix:///run/docker.sock --data-root /var/lib/docker >/tmp/engine.log 2>&1 &
    socket=/run/docker.sock ;;
bulkhead)
    /bulkhead/bulkhead up --data /var/lib/bulkhead --run /run/bulkhead --api 127.0.0.1:0 --console 127.0.0.1:0 \
        --registry 127.0.0.1:0 >/tmp/engine.log 2>&1 &
    socket=/run/bulkhead/docker.sock ;;
esac
engine=$!
# one address for both: it can be seen in what Compose says
export DOCKER_HOST=unix:///run/engine.sock
ln -s "$socket" /run/engine.sock
export COMPOSE_ANSI=never COMPOSE_PROGRESS=plain COMPOSE_MENU=false DOCKER_CLI_HINTS=false DOCKER_BUILDKIT=0 TZ=UTC
for _ in $(seq 200); do docker version >/dev/null 2>&1 && break; sleep 0.1; done
if ! docker version >/dev/null; then
    echo "=== engine"
    tail -n 5 /tmp/engine.log
    exit 1
fi
docker import -c 'ENV PATH=/bin' -c 'CMD ["sh"]' /images/busybox.tar busybox >/dev/null &&
    docker import -c 'ENV PATH=/usr/lib/postgresql/current/bin:/usr/sbin:/usr/bin' -c 'ENV LC_ALL=C.UTF-8' -c 'CMD ["bash"]' \
        /images/services.tar services >/dev/null || exit 1
docker network ls -q --no-trunc | sort > /tmp/networks
echo "$CASES" | tr ' ' '\n' | xargs -n 1 -P "${JOBS:-4}" sh /bulkhead/compose/one.sh

echo "=== afterwards"
{
echo "containers:"; docker ps -a --format '{{.Names}} {{.Status}}'
echo "volumes:"; docker volume ls -q
echo "networks:"; docker network ls -q --no-trunc | sort | comm -13 /tmp/networks - |
    while read -r network; do docker network inspect --format '{{.Name}}' "$network"; done
echo "images:"; docker images --format '{{.Repository}}:{{.Tag}}' | sort
# what is in no record
echo "links:"; ip -o link show type veth | wc -l
} | sed -E -f /bulkhead/compose/normal.sed
kill "$engine"
wait "$engine"
[ -z "$KEEP_LOG" ] || { echo "=== engine"; cat /tmp/engine.log; }
