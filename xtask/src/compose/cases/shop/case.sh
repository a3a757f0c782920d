dc up -d --wait --wait-timeout 90
states
x curl -s http://127.0.0.1:8101/buy
x curl -s http://127.0.0.1:8101/
x curl -s http://127.0.0.1:8101/
dc exec -T app dig +short db cache proxy
# the database's network leads nowhere, and is not the proxy's
dc exec -T proxy dig +short db
dc exec -T db sh -c 'ip route | grep -c default'
look
ps_json
dc down
dc up -d --wait --wait-timeout 90
x curl -s http://127.0.0.1:8101/
dc stop
states
dc down -v
