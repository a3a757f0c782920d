follow
dc up -d
for service in first second third; do until_says ready $service; done
dc stop
states
dcs logs --no-log-prefix
echo "# the order of the ends"
events >"$scratch/said"
jq -r 'select(.Action == "die" or .Action == "start") | .Action + " " + .Actor.Attributes.name + " " + (.Actor.Attributes.exitCode // "")' "$scratch/events"
look
cat "$scratch/said"
dc down
