#!/usr/bin/env bash
# Guess: with --benchmark-compare-fail the test run fails if a benchmark became slower, or if there is nothing to
# compare.
# Seen: the option fails a run that names no stored one, and fails one that is slower. But with --benchmark-disable in
# the configuration, or under pytest-xdist, which disables benchmarks as well, the run prints "Comparing against
# benchmarks from", compares nothing and ends with 0, fifty times slower or not. So does one whose benchmark was renamed.
# Why it matters: benchmarks that are tests too are disabled by default, and a gate in CI that inherits the setting,
# or its -n, can never be red.
set -euo pipefail
unset PYTHONPATH PYTEST_ADDOPTS
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv &&
    venv/bin/python -m pip install --quiet pytest==9.2.0 pytest-benchmark==5.3.1 pytest-xdist==3.8.0 || exit 2

cat >test_pause.py <<'PYTHON'
import os
import time


def test_pause(benchmark):
    benchmark.pedantic(time.sleep, args=(float(os.environ["PAUSE"]),), rounds=5)
PYTHON
sed 's/test_pause/test_renamed/' test_pause.py >test_renamed.py
venv/bin/python -m pip list | grep pytest
PAUSE=0.001 venv/bin/python -m pytest --quiet --benchmark-save=first test_pause.py >stored.log 2>&1

gate() {
    local status=0
    PAUSE=0.05 venv/bin/python -m pytest --benchmark-compare --benchmark-compare-fail=mean:10% "$@" >gate.log 2>&1 ||
        status=$?
    echo "fifty times slower, $*: exit $status"
    grep -m 1 "Comparing against" gate.log || true
    seen+=("$((status != 0))")
}
seen=()
gate test_pause.py
gate --benchmark-disable test_pause.py
gate -n 1 test_pause.py
gate test_renamed.py
[ "${seen[*]}" = "1 0 0 0" ] || { echo "changed: of the four, failed: ${seen[*]}" && exit 1; }
