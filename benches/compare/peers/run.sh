#!/usr/bin/env bash
# Measures Python's pools on the cases of benches/compare that they can do. Makes its own virtual environment.
#   benches/compare/peers/run.sh [--json FILE] [--workers N] [--case NAME[,NAME...]] [--quick]
# The figures go to standard output as JSON, or to FILE; then: compare --peers FILE
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
environment=$here/.venv
if ! "$environment/bin/python" -c 'import sys; sys.exit(sys.prefix == sys.base_prefix)' 2>/dev/null; then
    python3 -m venv "$environment"
fi
# Quick when everything is there already.
"$environment/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt"

# These pools leave workers behind, or wait for them for ever, when their program is stopped. So it gets a session of its
# own, and all of it is killed but the process that then tidies up what they have left in /dev/shm.
setsid "$environment/bin/python" "$here/peers.py" "$@" &
python=$!
stop() {
    for pid in $(pgrep -s "$python"); do
        grep -qa resource_tracker "/proc/$pid/cmdline" 2>/dev/null || kill -KILL "$pid" 2>/dev/null || true
    done
    exit 143
}
trap stop INT TERM
wait "$python"
