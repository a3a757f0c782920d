dc up -d
dc exec -T router sh -c 'ip -4 -o addr | awk "{print \$4}" | sort'
dc exec -T router sh -c 'ip route show default | sed "s/ dev.*//"'
dc exec -T router sh -c 'ip -o link | grep -c 02:42:0a:08:01:02; ip -o link | grep -o "mtu 1[0-9]*" | sort'
dc exec -T web sh -c 'for name in router gate gate.example.com www web networks-router-1 store; do dig +short $name | sed "s/^/$name /"; done'
dc exec -T store sh -c 'for name in router gate vault web; do getent hosts $name | sed "s/^/$name /; s/  */ /g"; done'
dc exec -T web dig +short -x 10.8.1.2
dc exec -T vault sh -c 'ip route | grep -c default'
dc exec -T vault sh -c 'curl -sS --connect-timeout 1 http://10.8.2.2/ 2>&1 | cut -c 1-30'
line 'docker network inspect networks_front backbone networks_closed | jq -c "sort_by(.Name)[] | [.Name, .Driver, .Internal, .Attachable, (.IPAM | .Config |= map(select(.Subnet | contains(\":\") | not)) | .Config[] |= if (.Gateway // \"\" | endswith(\".1\")) then del(.Gateway) else . end), .Options, (.Labels | del(.\"com.docker.compose.version\")), ([.Containers[].Name] | sort)]"'
look
x docker network disconnect networks_front networks-web-1
dc exec -T router sh -c 'dig web | grep -o "status: [A-Z]*"'
x docker network connect --ip 10.8.1.77 --alias again networks_front networks-web-1
dc exec -T router dig +short again
dc down
