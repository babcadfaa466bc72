#!/bin/sh
# Make a virtual environment with the newest Python of the given ones and install requirements into it.
#
#   .ci/venv.sh FOLDER "3.11 3.12 3.13" pip arguments…
set -eu
folder=$1
versions=$2
shift 2

python_of() {
    for name in "python$1" "$HOME/.pyenv/versions/$1."*/bin/"python$1" python3; do
        if "$name" -c "import sys, venv; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" >/dev/null 2>&1; then
            echo "$name"
            return 0
        fi
    done
    return 1
}

for version in $versions; do
    if python=$(python_of "$version"); then
        break
    fi
done
if [ -z "${python:-}" ]; then
    echo "No Python of $versions found. On Debian or Ubuntu: sudo apt-get install python3 python3-venv" >&2
    exit 10
fi
[ -x "$folder/bin/python" ] || "$python" -m venv "$folder" || {
    echo "This Python cannot make virtual environments. On Debian or Ubuntu: sudo apt-get install python3-venv" >&2
    exit 10
}
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade pip
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
