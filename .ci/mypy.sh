#!/bin/sh
# mypy strict on the runner and the domain library. The library is named file by file below the link, which is how it
# is imported; mypy finds nothing when it is asked for the package.
set -eu
collection=collections/ansible_collections/tenant/gpu
# shellcheck disable=SC2046 # names without blanks
exec .venv/bin/mypy src/gpu_tenant $(find plugins/module_utils -name '*.py' | sed "s|^|$collection/|")
