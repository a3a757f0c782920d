follow
dc create
states
dc start
until_state exited lifecycle-short-1
until_says up one
states
dc pause two
states
ps_json two
dc exec -T two true
dc unpause two
dc kill -s HUP one
until_says hup one
dc restart -t 3 one
until_true sh -c '[ "$(docker compose logs one | grep -c " up$")" = 2 ]'
dc logs --no-log-prefix one
dc kill two
states
dc start two
# it runs for some seconds, so that somebody can wait for it
dc --profile slow up -d slow
dc wait slow
dc stop one
states
ps_json -a
dc ps --services --status exited
dc ps --filter status=running -q --format '{{.Name}}'
dc rm -f short
dc rm -sf one
states
dc up -d --no-start
states
events
dc ls --format json --filter name=lifecycle
dc --profile slow down
dc ps -a -q
