#!/bin/sh
# Somebody else's released client in an environment of its own: it may want other versions of what .venv has, which is
# used for all else, so that most of it need not be installed again. The Python is that of .venv.
#
#   .ci/client.sh FOLDER REQUIREMENT
set -eu
folder=$1
requirement=$2
rm -rf "$folder"
.venv/bin/python -m venv --without-pip "$folder"
purelib() { "$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }
purelib .venv >"$(purelib "$folder")/dot_venv.pth"
# pip counts what it must leave in .venv as not uninstalled, and says so at length.
said=$(.venv/bin/python -m pip --python "$folder/bin/python" install --quiet --disable-pip-version-check \
  "$requirement" 2>&1) || {
  echo "$said" >&2
  exit 1
}
