dc up -d
states
dc exec -T reader sh -c 'cat /bound/word /bound-ro/word /data/word /data/a/b/word /part/word /place/word'
dc exec -T reader sh -c 'echo x > /bound-ro/x; echo x > /data/x; echo written > /bound/written; echo placed > /place/placed'
line 'cat bound/written bound/placed; stat -c "%F %a" made/by/the/engine'
dc exec -T reader sh -c 'ls -A /etc/empty /etc/copied | wc -l; df -k /scratch /t2 /memory | awk "NR > 1 {print \$2, \$6}"'
dc exec -T reader sh -c 'stat -c "%n %a %u" /scratch /t1 /t2 /memory /anonymous'
dc exec -T reader sh -c 'echo kept > /anonymous/word'
dc exec -T second sh -c 'cat /bound/word /data/word; touch /bound/x; touch /anonymous/x'
line 'docker volume inspect volumes_data volumes-own-name volumes_place volumes_memory | jq -c ".[] | [.Name, .Driver, .Options, (.Labels | del(.\"com.docker.compose.version\"))]"'
look
dcs volumes -q
dc up -d --force-recreate reader
dc exec -T reader cat /anonymous/word
dc up -d --force-recreate -V reader
dc exec -T reader sh -c 'ls -A /anonymous | wc -l'
dc down
line 'docker volume ls -q --filter label=com.docker.compose.project=volumes | grep -Ev "^[0-9a-f]{64}$"'
dc down -v
line 'docker volume ls -q | grep -c -E "volumes[_-]"'
line 'docker volume ls -q --filter label=com.docker.compose.project=volumes | xargs -r docker volume rm >/dev/null'
