dc up -d
dc exec -T web pwd
dc exec -T -e COLOUR=red -e SHAPE=round -w /tmp -u guest web sh -c 'echo $COLOUR $SHAPE $(pwd) $(id -u)'
dc exec -T web sh -c 'echo out; echo error >&2; exit 9'
line 'echo through | docker compose exec -T web cat'
line 'head -c 300000 /dev/zero | docker compose exec -T web wc -c'
dc exec -T web nothing-of-that-name
dc exec -T store id -u
dc exec -T --privileged store sh -c 'id -u'
dc exec -T nobody true
dc exec -d web sh -c 'echo detached > /tmp/detached'
until_true docker compose exec -T web test -s /tmp/detached
dc exec -T web cat /tmp/detached
dc run --rm -T web sh -c 'echo $COLOUR; pwd; hostname | wc -c'
dc run --rm -T task
dc run --rm -T task 'echo another; exit 6'
dc run --rm -T --entrypoint /bin/echo task one two
dc run --rm -T -e COLOUR=green -u 1000 -w /etc -v ./page:/page:ro -l some=label web sh -c 'echo $COLOUR $(id -u) $(pwd); cat /page'
line 'echo given | docker compose run --rm -T web cat'
dc run -d --name exec-by-name --no-deps web sleep infinity
states
dc run --rm -T web sh -c 'ping -c 1 -W 2 exec-by-name >/dev/null 2>&1; nslookup -type=a exec-by-name 2>/dev/null | grep -c "^Name"'
dc run -d --rm --publish 8116:80 --name exec-published web
until_true curl -s -o /dev/null http://127.0.0.1:8116/
x curl -s -o /dev/null -w '%{http_code}\n' http://127.0.0.1:8116/
x docker rm -f exec-published exec-by-name
dc run --rm -T --use-aliases --no-deps store id -u
dc cp page web:/srv/page
x curl -s http://127.0.0.1:8115/page
dc cp web:/srv/page copied
line 'cat copied; stat -c %a copied'
dc exec -T web sh -c 'mkdir -p /srv/d/e; echo deep > /srv/d/e/f; ln -s f /srv/d/e/link'
dc cp web:/srv/d out
line 'find out | sort; cat out/e/f; readlink out/e/link'
dc cp out/. web:/data
dc exec -T web find /data
line 'docker compose cp web:/srv/page - | tar t'
dc cp web:/nothing x
line 'docker compose top web | head -n 2 | tail -n 1 | tr -s " " | cut -d " " -f 1,2,8-'
line 'docker compose top web | grep -c httpd'
line 'docker compose top web store | grep -cE "httpd|sleep"'
dc port web 80
line 'docker compose port web 81 2>&1 | sed "s/: .*//"'
dc down -v
