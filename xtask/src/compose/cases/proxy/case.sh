dc up -d
until_true curl -sf http://127.0.0.1:8102/
x curl -s http://127.0.0.1:8102/
x curl -s -o /dev/null -w '%{http_code}\n' http://127.0.0.1:8102/nothing
dc port proxy 80
dc port app 8080
dc exec -T proxy cat /etc/nginx/nginx.conf
dc exec -T app sh -c 'ip route | grep -c default'
dc exec -T proxy sh -c 'nginx -s reload 2>/dev/null'
x curl -s http://127.0.0.1:8102/
look
dc down
