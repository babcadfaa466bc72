#!/bin/sh
# Install the Debian or Ubuntu packages whose programs are missing, as root or with sudo; otherwise say what to install.
#
#   .ci/system-packages.sh program=package …
set -eu
wanted=""
for pair in "$@"; do
    program=${pair%%=*}
    # sbin is not on every user's PATH, and sshd lives there.
    if ! PATH="$PATH:/usr/sbin:/sbin" command -v "$program" >/dev/null 2>&1; then
        wanted="$wanted ${pair#*=}"
    fi
done
[ -n "$wanted" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    echo "Missing programs. Install the equivalent of these Debian packages and run the same command again:$wanted" >&2
    exit 10
fi
if [ "$(id -u)" = 0 ]; then
    as_root=""
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    as_root="sudo -n"
else
    echo "Missing programs. Run this, then the same command again: sudo apt-get install$wanted" >&2
    exit 10
fi
echo "Installing system packages:$wanted"
export DEBIAN_FRONTEND=noninteractive
$as_root apt-get update -qq
# shellcheck disable=SC2086 # both are word lists
$as_root apt-get install -y -qq --no-install-recommends $wanted >/dev/null
