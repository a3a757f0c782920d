dc up -d
states
dc exec -T client sh -c 'dig +short web | wc -l'
dc up -d --scale web=3
states
dc exec -T client sh -c 'dig +short web | sort -u | wc -l'
echo "the first of them differs: $(docker compose exec -T client sh -c 'for _ in $(seq 60); do dig +short web | head -n 1; done | sort -u | wc -l')"
dc exec -T client sh -c 'for host in scale-web-1 scale-web-2 scale-web-3; do getent hosts $host | wc -l; done'
dc exec -T client sh -c 'for _ in $(seq 60); do curl -s http://web/; done | sort -u | wc -l'
line 'for port in 8106 8107 8108; do curl -s http://127.0.0.1:$port/; done | sort -u | wc -l'
dc exec -T --index 2 web sh -c 'echo second > /tmp/second'
dc exec -T --index 2 web cat /tmp/second
dc exec -T --index 1 web cat /tmp/second
dc exec -T --index 9 web true
dc scale web=1
states
until_true sh -c '[ "$(docker compose exec -T client sh -c "dig +short web | wc -l")" = 1 ]'
dc exec -T client sh -c 'dig +short web | wc -l'
dc up -d --scale web=0
states
dc exec -T client sh -c 'dig web | grep -o "status: [A-Z]*"'
dc down
