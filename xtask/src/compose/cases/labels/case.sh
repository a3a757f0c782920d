dc up -d
ps_json | sed -E 's/"PublishedPort":[3-6][0-9]{4}/"PublishedPort":"any"/g; s/:[3-6][0-9]{4}->/:any->/g'
line 'docker inspect labels-the-web labels-other-1 | jq -c ".[].Config.Labels | with_entries(select(.key | test(\"compose\") | not))"'
dc ps --format '{{.Service}} {{.State}} {{.Image}}' web
dc ps -q --no-trunc
line 'docker ps --filter label=com.example.team=shop --format "{{.Names}} {{.Label \"more.two\"}}"'
line 'docker ps --filter label=com.docker.compose.project=labels --filter label=com.docker.compose.service=other --format {{.Names}}'
dc ls --filter name=labels
line 'docker compose images --format json | jq -c ".[] | [.ContainerName, .Repository, .Tag]" | sort'
line 'docker compose port web 83 | sed "s/812[789]/any/"; docker compose port web 82 | grep -c "^0.0.0.0:[0-9]*$"; docker compose port --protocol udp web 81'
dc config --format json
dc --profile absent up -d absent
dc --profile absent pull absent
dc version --short
dc down
