#!/usr/bin/env bash
# Learning curves of the embedded programming task and the embedded dialogue, JOBS runs at a time (2).
# usage: study.sh OUT [SEEDS [TASKS]]    writes OUT/<task>/<arm>/s<seed>/ and reports of every level;
# a run that failed or is missing makes the report fail
set -euo pipefail
out=$1
seeds=${2:-"0 1 2"}
tasks=${3:-"minichat minicode"}
arms_of() {
  echo "ppo algo=ppo experiment=$1/curves"
  echo "rrl algo=rrl experiment=$1/curves"
  echo "redraw algo=rrl sampler=redraw experiment=$1/curves"
  if [ "$1" = minicode ]; then
    echo "ppocoder algo=ppocoder experiment=minicode/curves"
    echo "rltf algo=rltf experiment=minicode/curves"
    echo "gsi experiment=minicode/gsi"
  fi
}
run() { # task arm seed overrides...
  local folder=$out/$1/$2/s$3
  [ -f "$folder/result.json" ] || rrl-train "seed=$3" "run.dir=$folder" "${@:4}" 2> /dev/null
}
for task in $tasks; do
  rrl-sft "task=$task" > /dev/null
  for seed in $seeds; do
    while read -r arm overrides; do
      # shellcheck disable=SC2086
      run "$task" "$arm" "$seed" $overrides < /dev/null &
      while [ "$(jobs -rp | wc -l)" -ge "${JOBS:-2}" ]; do wait -n; done
    done < <(arms_of "$task")
  done
done
wait
for task in $tasks; do
  rm -rf "$out/$task"/report-*
  arms=() levels="helpful3 helpful1 harmless" tokens=100000,200000,300000 mode=mean@4
  if [ "$task" = minicode ]; then levels="hard5 hard3 easy3" tokens=100000,200000,300000,400000,500000 mode=mean@2; fi
  while read -r arm _; do arms+=("$arm=$out/$task/$arm/*"); done < <(arms_of "$task")
  for level in $levels; do rrl-report "out=$out/$task/report-$level" "level=$level" "mode=$mode" "tokens=$tokens" "${arms[@]}"; done
  rrl-report "out=$out/$task/report-pair" "level=${levels%% *}" "mode=$mode" "tokens=$tokens" "${arms[2]}" "${arms[1]}"
done
