dc up -d
dc exec -T web cat /data/order
dc restart web
until_state running hooks-web-1
dc stop
x docker run --rm -v hooks_data:/data busybox cat /data/order
dc --profile failing up -d failing
states
dc --profile '*' down -v
