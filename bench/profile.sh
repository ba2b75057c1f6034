#!/bin/sh
# Where the CPU time of the Portico server goes: perf samples it under load and lists the functions.
#
#   bench/profile.sh [MODE] [LOAD OPTIONS...]      MODE is lines (the default), raw, tls, ws, ws-deflate, ws-group or http
#   bench/profile.sh lines --depth 16
#   bench/profile.sh ws-group --members 2000 --burst 16
#   SERVER=uvloop_protocol.py bench/profile.sh raw
#   EVENT=cycles bench/profile.sh                  where the machine has hardware counters (default cpu-clock)
#
# Run `python bench/run.py --quick --only lines-1 --servers c` once before, to build the load generator.
set -eu

bench=$(cd "$(dirname "$0")" && pwd)
mode=${1:-lines}
[ $# -gt 0 ] && shift
python=${PYTHON:-$bench/../.venv/bin/python}
port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export BENCH_CERTIFICATE="$bench/build/cert.pem" BENCH_KEY="$bench/build/key.pem" BENCH_FILE="$bench/build/small.txt"
ready="$bench/build/profile.ready"
data="$bench/build/perf.data"

taskset -c 0 "$python" "$bench/servers/${SERVER:-portico_server.py}" "$port" "$mode" >"$ready" &
server=$!
trap 'kill "$server" 2>/dev/null || true' EXIT INT TERM
tries=0
until grep -q ready "$ready"; do
    tries=$((tries + 1))
    [ "$tries" -lt 100 ] || { echo "the server does not start" >&2; exit 1; }
    sleep 0.1
done

program=stream
case $mode in
    tls) set -- --tls 1 "$@" ;;
    ws) program=websocket ;;
    ws-deflate) program=websocket; set -- --deflate 1 --size 1024 "$@" ;;
    ws-group) program=group; set -- --websocket 1 "$@" ;;
    http) program=http ;;
esac
taskset -c 1 "$bench/build/load_$program" --port "$port" --pid "$server" --seconds 4 --warm-up 1 "$@" &
load=$!
sleep 1.2
perf record -q -e "${EVENT:-cpu-clock}" -F 1999 -g -p "$server" -o "$data" -- sleep 3
wait "$load"
kill "$server"
perf report -i "$data" --no-children --stdio -g none --percent-limit 0.7 2>/dev/null | grep -v '^#' | grep .
echo "more: perf report -i $data"
