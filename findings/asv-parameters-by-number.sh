#!/usr/bin/env bash
# Guess: what asv stores for time_it('one') at an old commit was measured with the parameter 'one'.
# Seen: asv reads the parameters' names once, at the newest commit, and asks each commit for them by number. If the list
# comes from the package (its registry of models, say) and an entry was added in front, the old commit's numbers stand
# under the wrong names. As long as the lists are of the same length nothing fails and asv's exit status is 0.
# Why it matters: a comparison shows a speed-up or a regression that is the difference between two benchmarks.
set -euo pipefail
unset PYTHONPATH
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv &&
    venv/bin/python -m pip install --quiet asv==0.6.6 asv_runner==0.3.2 virtualenv==21.15.11 || exit 2

mkdir -p repository/benchmarks && cd repository
touch benchmarks/__init__.py
cat >pyproject.toml <<'TOML'
[build-system]
requires = ["flit_core==3.12.0"]
build-backend = "flit_core.buildapi"
[project]
name = "registry"
version = "1"
description = "A registry of values."
TOML
cat >benchmarks/values.py <<'PYTHON'
import registry


class Values:
    params = list(registry.VALUES)

    def track_value(self, name):
        return registry.VALUES[name]
PYTHON
version=$(../venv/bin/python -c 'import sys; print("{}.{}".format(*sys.version_info))')
cat >asv.conf.json <<JSON
{"version": 1, "project": "registry", "repo": ".", "branches": ["HEAD"], "benchmark_dir": "benchmarks",
 "environment_type": "virtualenv", "pythons": ["$version"], "build_command": [],
 "install_command": ["in-dir={env_dir} python -m pip install --quiet {build_dir}"],
 "uninstall_command": ["return-code=any python -m pip uninstall --quiet --yes registry"]}
JSON
commit() {
    echo "VALUES = $1" >registry.py
    git add --all && git -c user.name=x -c user.email=x@localhost commit --quiet --message "VALUES = $1"
}
git init --quiet --initial-branch=main .
commit '{"one": 1, "two": 2}'
commit '{"half": 0.5, "one": 1}'

PATH=$folder/venv/bin:$PATH ASV_CONF_DIR=$folder HOME=$folder
export PATH HOME
python -m pip list | grep asv
asv machine --yes >/dev/null
status=0
asv continuous --quick HEAD~1 HEAD >asv.log 2>&1 || status=$?
echo "asv continuous ends with $status. Of the commit VALUES = {\"one\": 1, \"two\": 2} it has kept:"
asv show HEAD~1 | tee shown.txt
grep -Eq '^ *half +1(\.0)? *$' shown.txt && grep -Eq '^ *one +2(\.0)? *$' shown.txt && exit
echo "changed: the values no longer stand under the newest commit's names" && exit 1
