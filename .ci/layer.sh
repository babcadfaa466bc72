#!/bin/sh
# Run one layer of the tests and note its time for the summary.   .ci/layer.sh NAME command…
#
# The processor time stands beside the seconds: a layer with far more seconds than its share of the cores waited, or had
# to share the machine. What outlives its parent (boxes, supervisors) is not in it.
set -u
name=$1
shift
printf '\n===== %s: %s\n' "$name" "$*"
mkdir -p .cache
start=$(date +%s)
"$@"
status=$?
seconds=$(($(date +%s) - start))
# Into a file: in a pipe or $(…) it would be another shell's children.
times >".cache/times-$name"
processor=$(awk 'NR == 2 { for (i = 1; i <= 2; i++) { split($i, part, /[ms]/); sum += part[1] * 60 + part[2] }
  printf "%d", sum }' ".cache/times-$name")
rm -f ".cache/times-$name"
said=$([ $status = 0 ] && echo ok || echo "FAILED ($status)")
printf '%-12s %4ds  %4ds of processor time  %s\n' "$name" "$seconds" "$processor" "$said" >>.cache/layers.txt
exit $status
