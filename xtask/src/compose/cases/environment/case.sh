C=from-the-shell dc up
dc --env-file other.env up
line 'B=shell docker compose config --environment | grep -vE "^(DOCKER_CLI_PLUGIN_|OLDPWD)"'
dc config
dcs config --variables
dc config --images
dc config --no-interpolate --format json
LABEL= dc config -q
docker inspect environment-printer-1 | jq -c '.[] | [(.Config.Env | sort), .Config.Labels["with.value"]]'
dc down
dc -p another-name up -d
line 'docker wait another-name-printer-1; docker compose -p another-name logs --no-log-prefix printer'
dc ls -a --filter name=another-name
dc -p another-name down
