[ -e /data/pg/PG_VERSION ] || initdb -D /data/pg -A trust --no-sync >/dev/null
echo "host all all all trust" > /tmp/hba
exec postgres -D /data/pg -c listen_addresses='*' -c unix_socket_directories=/tmp -c fsync=off -c hba_file=/tmp/hba
