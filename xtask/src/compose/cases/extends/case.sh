dc config
dc up -d
until_says 'two' web worker
until_says 'included' store
dcs logs
look
dc -f compose.yaml -f over.yaml config --hash web
dc -f compose.yaml -f over.yaml up -d
until_says 'three' web
until_says 'over' worker
dcs -f compose.yaml -f over.yaml logs web worker
look
dc down
