follow
dc up -d
until_state exited restart-failing-1
until_state exited restart-deployed-1
until_true sh -c 'test "$(docker inspect --format "{{.RestartCount}} {{.State.Status}}" restart-always-1)" = "1 running"'
states
dc logs --no-log-prefix failing
dc logs --no-log-prefix deployed
line 'docker inspect --format "{{.Name}} {{.RestartCount}} {{json .HostConfig.RestartPolicy}}" $(docker compose ps -aq) | sort'
line 'docker exec restart-always-1 kill -9 1; docker kill restart-stopped-1'
until_state running restart-always-1
states
look
events
dc down -v
