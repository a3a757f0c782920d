docker compose build >/dev/null 2>&1 </dev/null || echo "it does not build"
dc up -d
# the directories that are watched say nothing of it; the first change is made until it is seen
docker compose watch --no-up >watched 2>&1 </dev/null &
watcher=$!
until_true sh -c 'grep -q "Watch enabled" watched'
echo two > src/page
until_true sh -c 'docker compose exec -T web grep -q two /src/page'
dc exec -T web cat /src/page
echo ignored > src/left-out
mkdir src/below; echo below > src/below/page
until_true sh -c 'docker compose exec -T web test -e /src/below/page'
dc exec -T web sh -c 'ls -A /src'
rm src/page
until_true sh -c '! docker compose exec -T web test -e /src/page'
dc exec -T web sh -c 'ls -A /src'
echo two > settings/word
until_true sh -c '[ "$(docker compose logs web | grep -c start)" = 2 ]'
until_true docker compose exec -T web grep -q two /settings/word
dc exec -T web cat /settings/word
echo two > reload/word
until_true docker compose exec -T web grep -q two /told
dc exec -T web cat /told
sed -i s/first/second/ Dockerfile
until_true docker compose exec -T web grep -q second /version
dc exec -T web cat /version
kill -INT $watcher
wait $watcher
dc down --rmi all
line 'docker image prune -f >/dev/null'
