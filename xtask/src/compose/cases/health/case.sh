dc up -d --wait words shell started
dc up -d
dc --profile none up -d none
states
dc exec -T words true
look
dc --profile sick up -d sick slow
until_true sh -c '[ "$(docker inspect --format "{{.State.Health.Status}}" health-sick-1 health-slow-1 | sort -u)" = unhealthy ]'
states
line 'docker inspect health-sick-1 health-slow-1 | jq -c ".[] | .State.Health | [.Status, (.FailingStreak > 1), (.Log[0] | .ExitCode, .Output)]"'
dc --profile sick up -d waiting
dc --profile sick up -d --wait sick
docker ps --filter label=com.docker.compose.project=health --filter health=unhealthy --format '{{.Names}}' | sort
dc ps sick --format '{{.Service}} {{.Health}}'
docker commit -c 'HEALTHCHECK --interval=200ms --retries=4 CMD test -d /etc' health-words-1 health-image >/dev/null
dc --profile image up -d --wait image image-other
line 'docker inspect health-image-1 health-image-other-1 | jq -c ".[].Config.Healthcheck"'
dc --profile '*' down
docker rmi health-image >/dev/null
