#!/bin/bash
# Does what the entry points of the official images do, as far as deploy/compose/compose.yaml relies on them.
set -euo pipefail

initialize_postgres() {
    initdb --pgdata="$PGDATA" --username="$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" \
        --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8
    echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
    pg_ctl --pgdata="$PGDATA" --wait start --options="-c listen_addresses=''"
    createdb --username="$POSTGRES_USER" "$POSTGRES_DB"
    pg_ctl --pgdata="$PGDATA" --wait stop
}

case "$1" in
postgres)
    [ -s "$PGDATA/PG_VERSION" ] || initialize_postgres
    exec "$@" -c "listen_addresses=*"
    ;;
server) exec minio "$@" ;;
nginx)
    for template in /etc/nginx/templates/*.template; do
        variables="$(env | sed -n 's/^\([A-Za-z_][A-Za-z0-9_]*\)=.*/${\1}/p' | tr '\n' ' ')"
        envsubst "$variables" <"$template" >"$NGINX_ENVSUBST_OUTPUT_DIR/$(basename "$template" .template)"
    done
    exec "$@"
    ;;
*) exec "$@" ;;
esac
