#!/bin/sh
# Put some collections of the distribution `ansible` into a virtual environment, and leave the other hundred out.
#
#   .ci/collection.sh FOLDER VERSIONS NAMESPACE/NAME...
set -eu
python=$1/bin/python
versions=$2
shift 2
download=$(mktemp -d)
trap 'rm -rf "$download"' EXIT
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --dest "$download" "ansible$versions"
"$python" - "$download"/ansible-*.whl "$@" <<'PYTHON'
import sys
import sysconfig
import zipfile

wheel, *collections = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    names = archive.namelist()
    for collection in collections:
        members = [name for name in names if name.startswith(f"ansible_collections/{collection}/")]
        if not members:
            sys.exit(f"{wheel} has no collection {collection}")
        archive.extractall(sysconfig.get_path("purelib"), members)
PYTHON
