#!/bin/sh
# ansible-test sanity through the committed link, with the ansible-core of the given virtual environment.
#
#   .ci/sanity.sh VENV [ansible-test arguments]
# The runner below src/ is no part of the collection; ruff and mypy see to it.
#
# ansible-test builds its own environment and wants to download a bootstrap script for pip from its own host; a cached
# script of that name is accepted, and ensurepip does the same from what Python already carries.
set -eu
venv=$(cd "$1" && pwd)
shift
for version in 24_2 24_3 25_0 25_1 25_2 25_3 26_0 26_1; do
    cached="$HOME/.ansible/test/cache/get_pip_$version.py"
    [ -e "$cached" ] && continue
    mkdir -p "$(dirname "$cached")"
    printf 'import ensurepip\nensurepip.bootstrap(upgrade=True)\n' >"$cached"
done
python=$("$venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
# The interpreter that made the environment comes first on PATH: a version manager's shim would abort the run.
PATH="$("$venv/bin/python" -c 'import os, sys; print(os.path.join(sys.base_prefix, "bin"))'):$venv/bin:$PATH"
export PATH
ANSIBLE_TEST_CONTENT_ROOT="$PWD/collections/ansible_collections/tenant/gpu" \
    exec "$venv/bin/ansible-test" sanity --exclude collections/ --exclude src/ --local --python "$python" --color no "$@"
