# what the builder writes has ids in it, and steps that were cached
built() { echo "\$ docker compose $*"; docker compose "$@" >"$scratch/out" 2>&1 </dev/null || { echo "exit status $?"; tail -n 3 "$scratch/out"; }; }
built build plain
FROM_ENVIRONMENT=of-the-shell built build named
built build
dcs config --images
line 'docker images --format "{{.Repository}}:{{.Tag}}" | grep -E "^build-" | sort'
dcs up --no-log-prefix plain named
line 'docker image inspect build-plain build-named:1 | jq -c ".[] | [(.Config | .Env, .Cmd, .ExposedPorts, .Healthcheck), (.Config.Labels | del(.\"com.docker.compose.version\"))]"'
echo changed > word
built up -d --build plain
x docker wait build-plain-1
dc logs --no-log-prefix plain
built build --no-cache --build-arg ARGUMENT=on-the-line plain
dc run --rm plain
dc images --format json >/dev/null
echo 'FROM busybox
RUN exit 44' > Dockerfile
line 'docker compose build plain 2>&1 | grep "^The command"'
dc up -d --no-build plain
dc down --rmi local -v
line 'docker images --format "{{.Repository}}:{{.Tag}}" | grep -E "^build-" | sort'
x docker rmi build-named:also
line 'docker rmi -f build-named:1 >/dev/null; docker ps -aq --filter exited=44 | xargs -r docker rm >/dev/null; docker image prune -f >/dev/null'
