dc up -d
states
dc exec -T network sh -c 'hostname; wget -qO - http://127.0.0.1/hostname; cat /etc/hosts | tail -n 1 | cut -f 2'
dc exec -T by-name wget -qO - http://127.0.0.1/hostname
dc exec -T pid sh -c 'ps | grep -c "[h]ttpd"'
dc exec -T main sh -c 'echo shared > /dev/shm/word'
dc exec -T ipc cat /dev/shm/word
dc exec -T alone sh -c 'ip -o link | grep -v tunl | grep -v sit | wc -l; cat /etc/resolv.conf | grep -c nameserver'
dc exec -T host sh -c 'ip -o link | grep -c " lo:"'
dc exec -T bridge sh -c 'ip route | grep -c default; grep -c 127.0.0.11 /etc/resolv.conf'
x curl -s http://127.0.0.1:8119/hostname
look
dc restart main
states
dc exec -T network wget -qO - http://127.0.0.1/hostname
dc up -d
dc exec -T network wget -qO - http://127.0.0.1/hostname
dc down
