dc config --services
dcs --profile debug config --services
dc config --profiles
dc up -d
states
dc --profile tools up -d
states
dc run --rm task
dc --profile debug up -d
dcs --profile debug ps --services
dc --profile debug stop tools
dc stop web
states
dc --profile '*' down
