# Prometheus for scripts/services, which reads this file: prometheus_start, then prometheus_wait. It is only made
# available, because each test has rules and targets of its own: SHRINKD_TEST_PROMETHEUS is the folder of its programs.

# Puts prometheus and promtool on PATH, those of this folder's cache where the machine has none.
prometheus_find() {
    command -v prometheus >/dev/null && command -v promtool >/dev/null && return
    local programs=$cache/prometheus/usr/bin
    [ -x "$programs/prometheus" ] && PATH=$programs:$PATH
}

# Debian's package would leave a server running on the machine, on a fixed port: its programs are unpacked instead,
# which takes no rights.
prometheus_unpack() {
    command -v dpkg-deb >/dev/null || return 1
    say "unpacking Debian's prometheus"
    local copy
    copy=$(mktemp -d "$cache/copy.XXXXXX")
    chmod go+rx "$copy"
    (
        cd "$copy"
        apt-get download prometheus || { as_root apt-get update && apt-get download prometheus; }
        dpkg-deb --extract prometheus_*.deb unpacked
    ) >"$dir/prometheus.log" 2>&1 && rm -rf "$cache/prometheus" && mv "$copy/unpacked" "$cache/prometheus" ||
        { rm -rf "$copy" && return 1; }
    rm -rf "$copy"
}

prometheus_start() { prometheus_find || prometheus_unpack || true; }

prometheus_wait() {
    if ! prometheus_find; then
        echo "unset SHRINKD_TEST_PROMETHEUS" >>"$dir/env"
        echo "  !!! NO PROMETHEUS: the alert rules were not tested (Debian's package prometheus has it)" >>"$dir/summary"
        return
    fi
    printf 'export SHRINKD_TEST_PROMETHEUS=%q\n' "$(dirname "$(command -v prometheus)")" >>"$dir/env"
    echo "  Prometheus $(prometheus --version 2>&1 | sed -n 's/^prometheus, version \([^ ]*\).*/\1/p')" >>"$dir/summary"
}
