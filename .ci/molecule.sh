#!/bin/sh
# Roles on podman containers that are dressed as platforms, or rented from the marketplace. Needs podman as root.
#
#   .ci/molecule.sh              every platform at once, each role once, and one platform thoroughly; a real Slurm; and
#                                what stands for roles on Kubernetes
#   .ci/molecule.sh all          every platform thoroughly
#   .ci/molecule.sh SCENARIO…    these
set -eu
PATH="$PWD/.venv/bin:$PATH"
export PATH
unset ANSIBLE_CONFIG TENANT_STATE_DIR VAST_API_KEY VAST_URL AWS_PROFILE AWS_SESSION_TOKEN
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
    # shellcheck disable=SC2046 # names without blanks
    set -- $(python extensions/molecule/matrix.py names all)
fi
# shellcheck disable=SC2046 # names without blanks
[ $# -gt 0 ] || set -- $(python extensions/molecule/matrix.py names)
rm -rf .cache/molecule-ran
status=0
# shellcheck disable=SC2046,SC2086 # names without blanks
molecule test $(printf -- '--scenario-name=%s ' "$@") --destroy=always $workers || status=$?
end
python extensions/molecule/matrix.py ran "$@" || status=1
exit $status
