dc up -d
until_says error both
x docker wait logs-talker-1
dc logs both
dc logs --no-log-prefix --tail 2 both
dc logs silent
dcs logs talker quiet
dc logs --tail 1 talker
line "docker compose logs -t --no-log-prefix talker | grep -cE '^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z line'"
dc logs --since 1h --no-log-prefix quiet
dc logs --until 2020-01-01 --no-log-prefix quiet
line 'docker compose logs terminal | tr -d "\r"'
dc logs nobody
# followed to its end, with what is written meanwhile
dc exec -T both sh -c 'echo late > /proc/1/fd/1'
docker compose logs -f --no-log-prefix both > followed &
follower=$!
until_true grep -q error followed
docker exec logs-both-1 sh -c 'echo later > /proc/1/fd/1'
until_true grep -q later followed
dc stop both
wait $follower
echo "followed, status $?"
sort followed
look
dc down -v
