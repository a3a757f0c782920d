follow
dc up -d
states
until_says 'version 2' server
dc logs --no-log-prefix server
was=$(docker inspect --format '{{.State.StartedAt}}' migration-server-1)
dc restart store
now=$(docker inspect --format '{{.State.StartedAt}}' migration-server-1)
echo "the server was restarted: $([ "$was" != "$now" ] && echo yes || echo no)"
dc --profile broken up -d after
states
look
events
dc --profile broken down -v
