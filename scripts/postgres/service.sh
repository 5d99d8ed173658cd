# PostgreSQL for scripts/services, which reads this file: postgres_start, then postgres_wait.

# Puts PostgreSQL's programs on PATH. Debian keeps those of the server in a folder of their version.
postgres_find() {
    command -v initdb >/dev/null && command -v postgres >/dev/null && command -v psql >/dev/null && return
    local initdb
    initdb=$(printf '%s\n' /usr/lib/postgresql/*/bin/initdb | sort -V | tail -n 1)
    [ -x "$initdb" ] && PATH=$(dirname "$initdb"):$PATH
}

postgres_install() {
    # Debian's package would leave a server running on the machine, on a fixed port, unless it is told not to.
    local conf=/etc/postgresql-common/createcluster.conf
    install_packages postgresql-common &&
        as_root sed -i 's/^#\?create_main_cluster.*/create_main_cluster = false/' "$conf" &&
        install_packages postgresql
}

# PgBouncer for the tests of poolers, which skip without it. Debian's package would leave one running on a fixed port.
postgres_pooler() {
    [ -x /usr/sbin/pgbouncer ] || [ -x /usr/bin/pgbouncer ] || [ -x /usr/local/bin/pgbouncer ] && return
    install_packages pgbouncer || { say "there is no PgBouncer, and it could not be installed" && return; }
    ! command -v systemctl >/dev/null || as_root systemctl disable --now pgbouncer >>"$dir/apt.log" 2>&1 || true
}

postgres_start() {
    postgres_port=$(free_port 0)
    postgres_pooler
    if ! postgres_find && ! { postgres_install && postgres_find; }; then
        postgres_url=postgres://shrinkd:shrinkd@127.0.0.1:$postgres_port/shrinkd
        compose_start postgres "$postgres_port" ||
            fail "there is no PostgreSQL, and it could not be installed: install its server, or start Docker" \
                "$dir/apt.log"
        return
    fi
    postgres_url=postgres://postgres@127.0.0.1:$postgres_port/postgres

    # PostgreSQL refuses to run as root: then it runs as a user who has no rights, and who must be let into the folder.
    local home=$dir/postgres as_owner=(env) owner=nobody
    mkdir "$home"
    if [ "$(id -u)" = 0 ]; then
        ! id postgres >/dev/null 2>&1 || owner=postgres
        as_owner=(setpriv "--reuid=$owner" "--regid=$(id -g "$owner")" --clear-groups -- sh -c 'cd / && exec "$@"' sh)
        chmod go+x "$dir"
        chown "$owner" "$home"
        "${as_owner[@]}" test -x "$home" ||
            fail "PostgreSQL runs as the user $owner, who may not enter $dir: name a folder that all users can reach"
    fi
    "${as_owner[@]}" initdb --pgdata="$home/data" --username=postgres --auth=trust --encoding=UTF8 --no-locale \
        --no-sync >"$dir/postgres.log" 2>&1 || fail "initdb failed" "$dir/postgres.log"
    # Members of this role need their password, for tests of logins; nobody else does.
    { echo 'host all +shrinkd_with_password 127.0.0.1/32 scram-sha-256' && cat "$home/data/pg_hba.conf"; } >"$dir/pg_hba.conf"
    cat "$dir/pg_hba.conf" >"$home/data/pg_hba.conf"
    # Benchmarks measure commits that reach the disk. Tests crash the server at most, and what it wrote outlives that.
    cat >>"$home/data/postgresql.conf" <<CONF
listen_addresses = '127.0.0.1'
port = $postgres_port
unix_socket_directories = '$home'
max_connections = 200
fsync = ${SHRINKD_POSTGRES_FSYNC:-on}
CONF
    say "starting PostgreSQL on 127.0.0.1:$postgres_port"
    start_process postgres "${as_owner[@]}" postgres -D "$home/data"
}

postgres_wait() {
    echo "export SHRINKD_TEST_POSTGRES_URL=$postgres_url" >>"$dir/env"
    local version="(Docker's, of docker-compose.yml)"
    if [ -e "$dir/postgres.pid" ]; then
        wait_for postgres postgres_answers
        version=$(postgres_query 'show server_version')
    fi
    echo "  PostgreSQL $version on 127.0.0.1:$postgres_port" >>"$dir/summary"
}

postgres_answers() { postgres_query 'select 1'; }
postgres_query() { psql --no-psqlrc --tuples-only --no-align --command "$1" "$postgres_url"; }
