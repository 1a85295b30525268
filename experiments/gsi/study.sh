#!/usr/bin/env bash
# Guided self-improvement on the embedded task, with state reset and without help, one run after another.
# usage: study.sh OUT [SEEDS]    writes OUT/<arm>/s<seed>/ and reports of every level
set -euo pipefail
out=$1
seeds=${2:-"0 1 2"}
for seed in $seeds; do
  for guidance in state_reset none; do
    folder=$out/$guidance/s$seed
    [ -f "$folder/result.json" ] || rrl-train experiment=gsi/trace "guidance=$guidance" "seed=$seed" "run.dir=$folder" 2> /dev/null
  done
done
rm -rf "$out"/report-*
for level in L10 L6 L3; do
  rrl-report "out=$out/report-$level" "level=$level" tokens=100000,200000,250000 "none=$out/none/*" "state_reset=$out/state_reset/*"
done
