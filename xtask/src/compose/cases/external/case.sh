dc up -d
x docker network create --label made=by-hand external-shared-network
dc up -d
line 'docker volume create --label made=by-hand external-shared-volume'
x docker run --rm -v external-shared-volume:/v busybox sh -c 'echo kept > /v/word'
dc up -d
until_says kept web
dc logs --no-log-prefix
x docker run --rm --network external-shared-network services dig +short web
look
dc down -v
x docker run --rm -v external-shared-volume:/v busybox cat /v/word
x docker network inspect --format '{{.Name}} {{.Labels}}' external-shared-network
x docker network rm external-shared-network
x docker volume rm external-shared-volume
