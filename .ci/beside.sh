#!/bin/sh
# Run a command, and another one behind it: both at once, the output of the second after that of the first.
#
#   .ci/beside.sh 'COMMAND BEHIND' command…
set -u
behind=$1
shift
mkdir -p .cache
sh -c "exec $behind" >.cache/behind.txt 2>&1 &
second=$!
# A shell lets what is behind ignore an interruption.
trap 'kill $second; wait $second; cat .cache/behind.txt; exit 130' INT TERM
"$@"
status=$?
wait $second || status=$?
cat .cache/behind.txt
exit $status
