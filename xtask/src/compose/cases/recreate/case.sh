same() {
    docker compose ps -a -q --no-trunc | sort > now
    echo "kept $(comm -12 was now 2>/dev/null | wc -l), new $(comm -13 was now 2>/dev/null | wc -l)"
    mv now was
}
: > was
dc config --hash '*'
dc up -d
same
line 'docker inspect --format "{{index .Config.Labels \"com.docker.compose.config-hash\"}}" recreate-web-1 recreate-store-1'
dc up -d
same
LEVEL=2 dc up -d
same
dc exec -T web sh -c 'echo $LEVEL'
dc exec -T web sh -c 'echo kept > /anonymous/word; echo kept > /data/word'
STORE=2 dc up -d --no-deps web
same
STORE=2 dc up -d
same
dc exec -T web cat /anonymous/word
STORE=2 dc up -d --force-recreate --no-deps web
same
dc exec -T web cat /anonymous/word /data/word
STORE=2 LEVEL=3 dc up -d --no-recreate
same
STORE=2 dc up -d --always-recreate-deps web
same
STORE=2 EXTRA=2 dc up -d
same
line 'docker network inspect --format "{{.Labels.level}} {{range .Containers}}{{.Name}} {{end}}" recreate_extra'
line "docker compose --dry-run up -d --force-recreate 2>&1 | sed -E 's/[0-9a-f]{12}_/ID_/' | sort"
same
dc -f other.yaml up -d
dc -f other.yaml up -d --remove-orphans
same
dc -p recreate-second -f other.yaml up -d
dc -p recreate-second ps --format '{{.Name}} {{.State}}'
dc -p recreate-second down
dc down -v
line 'docker volume ls -q --filter label=com.docker.compose.project=recreate | xargs -r docker volume rm >/dev/null'
