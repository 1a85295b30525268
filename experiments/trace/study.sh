#!/usr/bin/env bash
# PPO, confidence replay and re-draw on the embedded task: 2 critics x 3 arms x 3 seeds, two runs at a time on two cores.
# usage: study.sh OUT [SEEDS]    writes OUT/<critic>/<arm>/s<seed>/ and a report for each critic
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
  rrl-report "out=$out/$critic/report" "ppo=$out/$critic/ppo/*" "confidence=$out/$critic/confidence/*" "redraw=$out/$critic/redraw/*"
done
