#!/bin/sh
# Roles on podman containers that are dressed as platforms, or rented from the marketplace. Needs podman as root.
#
#   .ci/molecule.sh              what touches every role and every platform once, and one platform thoroughly
#   .ci/molecule.sh all          every platform thoroughly
#   .ci/molecule.sh SCENARIO…    these
set -eu
PATH="$PWD/.venv/bin:$PATH"
export PATH
unset ANSIBLE_CONFIG TENANT_STATE_DIR VAST_API_KEY VAST_URL
if ! podman info >/dev/null 2>&1; then
    if [ "${CI:-}" = true ]; then
        echo "podman does not work here: the role tests cannot run" >&2
        exit 1
    fi
    echo "NOT RUN: the role tests need podman as root"
    exit 0
fi
# A run that was cut off may have left its market and boxes behind.
end() { molecule destroy --all >/dev/null 2>&1 || true; }
end
if [ "${1:-}" = all ]; then
    set -- --all --exclude=every
else
    [ $# -gt 0 ] || set -- every vast
    for scenario; do
        set -- "$@" "--scenario-name=$scenario"
        shift
    done
fi
status=0
# Half of a scenario is waiting: for a connection, a run, a container.
molecule test "$@" --destroy=always --workers=2 --continue-on-failure || status=$?
end
exit $status
