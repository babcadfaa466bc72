#!/bin/sh
# Put one collection of the distribution `ansible` into a virtual environment, and leave the other hundred out.
#
#   .ci/collection.sh FOLDER NAMESPACE/NAME VERSIONS
set -eu
python=$1/bin/python
download=$(mktemp -d)
trap 'rm -rf "$download"' EXIT
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --dest "$download" "ansible$3"
"$python" - "$download"/ansible-*.whl "$2" <<'PYTHON'
import sys
import sysconfig
import zipfile

wheel, collection = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    members = [name for name in archive.namelist() if name.startswith(f"ansible_collections/{collection}/")]
    archive.extractall(sysconfig.get_path("purelib"), members)
sys.exit(0 if members else f"{wheel} has no collection {collection}")
PYTHON
