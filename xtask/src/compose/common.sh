# common.sh: what the cases are written in. A case lies in a directory of its name, which is its project's too.
project=$(basename "$PWD")
scratch=$(mktemp -d)
start=$(date +%s)

# What runs at the same time says in no order what it does, and what it begins it also ends. Of a follower that it has let
# go Compose sometimes tells.
progress() { grep -vxF "context canceled" "$1" | grep -vE '^$|  (Creating|Starting|Stopping|Removing|Recreate|Restarting|Killing|Pausing|Unpausing|Waiting|Copying)$' | sort -u; }

# dc ARGUMENT…: what `docker compose` writes, its progress, and how it ended.
dc() {
    printf '%s\n' "$ docker compose $*"
    timeout -k 5 60 docker compose "$@" >"$scratch/out" 2>"$scratch/err" </dev/null
    status=$?
    cat "$scratch/out"
    [ -z "$(tail -c 1 "$scratch/out")" ] || echo
    progress "$scratch/err"
    [ "$status" = 0 ] || echo "exit status $status"
}

# dcs ARGUMENT…: the same for output of several services at once.
dcs() {
    printf '%s\n' "$ docker compose $*"
    timeout -k 5 60 docker compose "$@" >"$scratch/out" 2>"$scratch/err" </dev/null
    status=$?
    sort "$scratch/out"
    progress "$scratch/err"
    [ "$status" = 0 ] || echo "exit status $status"
}

# x COMMAND…: any other command.
x() {
    printf '%s\n' "$ $*"
    timeout -k 5 60 "$@" </dev/null 2>&1
    status=$?
    [ "$status" = 0 ] || echo "exit status $status"
}

# line LINE: a line of the shell's.
line() { x sh -c "$1"; }

# until_true COMMAND…: waits for what no client tells.
until_true() {
    for _ in $(seq 300); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done
    echo "in vain: $*"
}

# until_says WORDS SERVICE…: until the services' logs have the words.
until_says() {
    words=$1; shift
    until_true sh -c "docker compose logs $* 2>&1 | grep -q '$words'"
}

# until_state STATE NAME: until a container is in a state.
until_state() { until_true sh -c "docker inspect --format '{{.State.Status}}' $2 | grep -qx $1"; }

containers() { docker ps -aq --no-trunc --filter "label=com.docker.compose.project=$project"; }

# look: every container of the project as `docker inspect` has it, without what is as always.
look() {
    echo "# containers"
    for id in $(containers); do docker inspect "$id"; done | jq -rs -f /bulkhead/compose/look.jq
}

# states: in short.
states() {
    echo "# states"
    for id in $(containers); do
        docker inspect --format '{{.Name}} {{.State.Status}} {{.State.ExitCode}}{{with .State.Health}} {{.Status}}{{end}}' "$id"
    done | sort
}

# ps: what `docker compose ps` knows of them. Labels are in no order.
ps_json() {
    printf '%s\n' "$ docker compose ps $* --format json"
    docker compose ps "$@" --format json | jq -c 'del(.Labels, .CreatedAt, .ID, .RunningFor) | .Networks |= (split(",") | sort)' | sort
}

# follow: begins to write down the project's events. An engine remembers few of them, and other projects have theirs.
follow() {
    docker events --since "$start" --filter "label=com.docker.compose.project=$project" --format '{{json .}}' >"$scratch/events" &
    follower=$!
}

# events: of each container in their order; execs aside, whose number depends on the time.
# What Docker tells first of the end and of what was asked for depends on who is faster.
events() {
    echo "# events"
    docker create --name "$project-last" --label "com.docker.compose.project=$project" busybox >/dev/null
    until_true grep -q "$project-last" "$scratch/events"
    docker rm "$project-last" >/dev/null
    kill "$follower"
    jq -rs --arg last "$project-last" '[.[] | select(.Type == "container" and (.Action | test("^exec_") | not)) |
        select(.Actor.Attributes.name != $last)] | group_by(.Actor.Attributes.name) | .[] |
        .[0].Actor.Attributes.name + ": " + ([.[].Action] | join(", ") | gsub("stop, die"; "die, stop"))' "$scratch/events"
}

# end: what the project leaves, which is nothing.
end() {
    echo "# left"
    docker ps -a --filter "label=com.docker.compose.project=$project" --format '{{.Names}}'
    docker volume ls --filter "label=com.docker.compose.project=$project" --format '{{.Name}}'
    docker network ls --filter "label=com.docker.compose.project=$project" --format '{{.Name}}'
    rm -rf "$scratch"
}
