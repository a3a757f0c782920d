dc up -d store dns
until_says ready dns
x docker run -d --init --name links-outside --network links_default --ip 10.8.20.13 busybox sleep infinity
dc up -d
dc exec -T web sh -c 'for name in store database elsewhere links-store web-host web; do getent hosts $name | wc -l; done'
dc exec -T web sh -c 'getent hosts somehost v6host; grep -c gate /etc/hosts; busybox hostname; busybox hostname -f'
dc exec -T web sh -c 'grep -v -e "^#" -e "^$" /etc/resolv.conf | sort'
dc exec -T web sh -c 'getent hosts database.example.com | wc -l'
dc exec -T resolving dig +short outer.example.net
dc exec -T resolving dig +short -x 10.8.20.53
look
x docker rm -f links-outside
dc down
