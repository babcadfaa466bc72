#!/bin/sh
# Roles on podman containers that are dressed as platforms, or rented from the marketplace. Needs podman as root.
#
#   .ci/molecule.sh              every platform at once, each role once, and one platform thoroughly; and a real Slurm
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
workers=""
if [ "${1:-}" = all ]; then
    # Half of a scenario is waiting: for a connection, a run, a container. What one of several says is not printed.
    workers="--workers=2 --continue-on-failure"
    set --
    for folder in extensions/molecule/*/molecule.yml; do
        scenario=$(basename "$(dirname "$folder")")
        [ "$scenario" = default ] || [ "$scenario" = every ] || set -- "$@" "$scenario"
    done
fi
[ $# -gt 0 ] || set -- every slurm
rm -rf .cache/molecule-ran
status=0
# shellcheck disable=SC2046,SC2086 # names without blanks
molecule test $(printf -- '--scenario-name=%s ' "$@") --destroy=always $workers || status=$?
end
python extensions/molecule/matrix.py ran "$@" || status=1
exit $status
