#!/bin/sh
# Run one layer of the tests and note its time for the summary.   .ci/layer.sh NAME command…
set -u
name=$1
shift
printf '\n===== %s: %s\n' "$name" "$*"
start=$(date +%s)
"$@"
status=$?
mkdir -p .cache
printf '%-12s %4ds  %s\n' "$name" $(($(date +%s) - start)) "$([ $status = 0 ] && echo ok || echo "FAILED ($status)")" >>.cache/layers.txt
exit $status
