#!/bin/sh
# Run one layer of the tests, note its time for the summary and, if it fails, what it said of that: who sees only the end
# of a long log sees which test it was.   .ci/layer.sh NAME command…
#
# The processor time stands beside the seconds: a layer with far more seconds than its share of the cores waited, or had
# to share the machine. What outlives its parent (boxes, supervisors) is not in it.
set -u
name=$1
shift
printf '\n===== %s: %s\n' "$name" "$*"
mkdir -p .cache
log=.cache/$name.log
pipe=.cache/$name.pipe
rm -f "$pipe"
mkfifo "$pipe"
tee "$log" <"$pipe" &
teller=$!
start=$(date +%s)
"$@" >"$pipe" 2>&1
status=$?
seconds=$(($(date +%s) - start))
# Into a file: in a pipe or $(…) it would be another shell's children.
times >".cache/times-$name"
processor=$(awk 'NR == 2 { for (i = 1; i <= 2; i++) { split($i, part, /[ms]/); sum += part[1] * 60 + part[2] }
  printf "%d", sum }' ".cache/times-$name")
rm -f ".cache/times-$name"
said=$([ $status = 0 ] && echo ok || echo "FAILED ($status)")
printf '%-12s %4ds  %4ds of processor time  %s\n' "$name" "$seconds" "$processor" "$said" >>.cache/layers.txt
# The log is whole once the pipe is closed. A process that a test left behind would hold it open for ever.
for _ in 1 2 3; do
  kill -0 $teller 2>/dev/null || break
  sleep 1
done
if [ $status != 0 ]; then
  {
    printf '\n===== %s failed\n' "$name"
    grep -E '^(FAILED|ERROR|E  )' "$log" | cut -c 1-600 | tail -n 30 | grep . || tail -n 20 "$log"
  } >>.cache/failed.txt
fi
kill $teller 2>/dev/null
wait $teller 2>/dev/null
rm -f "$pipe"
exit $status
