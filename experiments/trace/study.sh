#!/usr/bin/env bash
# PPO, confidence replay and re-draw on the embedded task: 2 critics x 3 arms x 3 seeds, two runs at a time on two cores.
# usage: study.sh OUT [SEEDS]    writes OUT/<critic>/<arm>/s<seed>/ and reports of every level;
# a run that failed or is missing makes the report fail
set -euo pipefail
out=$1
seeds=${2:-"0 1 2"}
rrl-sft > /dev/null
run() { # critic arm seed overrides...
  local folder=$out/$1/$2/s$3
  [ -f "$folder/result.json" ] || rrl-train "experiment=trace/$1_critic" "seed=$3" "run.dir=$folder" "${@:4}" 2> /dev/null
}
for critic in shared own; do
  for seed in $seeds; do
    for arm in "ppo algo=ppo" "confidence algo=rrl" "redraw algo=rrl sampler=redraw"; do
      # shellcheck disable=SC2086
      set -- $arm
      run "$critic" "$1" "$seed" "${@:2}" &
      while [ "$(jobs -rp | wc -l)" -ge 2 ]; do wait -n; done
    done
  done
  wait
  rm -rf "$out/$critic"/report-*
  arms=("ppo=$out/$critic/ppo/*" "confidence=$out/$critic/confidence/*" "redraw=$out/$critic/redraw/*")
  for level in L10 L6 L3; do rrl-report "out=$out/$critic/report-$level" "level=$level" "${arms[@]}"; done
  rrl-report "out=$out/$critic/report-pair" "${arms[2]}" "${arms[1]}"
done
