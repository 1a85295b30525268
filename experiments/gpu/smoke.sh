#!/usr/bin/env bash
# Every kind of task for a few steps on a GPU, in bfloat16, with a model of the size of Qwen2.5-0.5B and random weights.
# It shows that the parts work there, what they cost and how much memory they take; nothing is learnt but the warm start.
# usage: smoke.sh OUT DATA [SHAPE]    DATA holds gsm8k/ math/ apps/ hh-rlhf/; SHAPE as in model.py; a log and a run each
set -uo pipefail
out=$1 data=$2 shape=${3:-}
here=$(dirname "$0")
mkdir -p "$out"
stage() { # name command...
  local start=$SECONDS code=0
  timeout "${LIMIT:-120}" "${@:2}" > "$out/$1.log" 2>&1 || code=$?
  echo "$1: exit $code, $((SECONDS - start)) s" | tee -a "$out/stages.txt"
}
run() { # name overrides...
  stage "$1" rrl-train "run.dir=$out/runs/$1" model=hf "model.path=$out/sft" policy.micro_batch_size=16 engine.batch_size=128 \
    run.save_freq=null run.test_freq=null evaluation.limit=16 "${@:2}"
}
train() { # name dtype steps overrides...
  run "$1" "policy.dtype=$2" "trainer.total_training_steps=$3" trainer.ppo_mini_batch_size=64 policy.actor_lr=1e-5 policy.critic_lr=1e-5 \
    "${@:4}"
}
stage doctor rrl-doctor
# shellcheck disable=SC2086
stage model python3 "$here/model.py" "$data/gsm8k/train.jsonl" "$out/model" $shape
stage sft rrl-sft task=gsm8k "data.path=$data/gsm8k" model=hf "model.path=$out/model" policy.dtype=bfloat16 \
  warmstart=sft warmstart.steps=150 warmstart.batch_size=64 warmstart.micro_batch_size=32 warmstart.lr=3e-4 "run.dir=$out/sft"
rm -rf "$out/model"
gsm8k=(task=gsm8k "data.path=$data/gsm8k" data.max_response_length=256)
stage plan rrl-train dry_run=true model=hf "model.path=$out/sft" "${gsm8k[@]}" algo=rrl policy.dtype=bfloat16
train gsm8k_rrl bfloat16 10 "${gsm8k[@]}" algo=rrl trainer.train_batch_size=128
train gsm8k_rrl_float32 float32 5 "${gsm8k[@]}" algo=rrl trainer.train_batch_size=128
train gsm8k_rrl_engine_copy float32 5 "${gsm8k[@]}" algo=rrl trainer.train_batch_size=128 engine.dtype=bfloat16
train gsm8k_grpo bfloat16 5 "${gsm8k[@]}" algo=ppo objective=grpo policy.critic=none trainer.train_batch_size=16 trainer.n=8
apps=(task=apps "data.path=$data/apps/train_subset.jsonl.gz" data.max_response_length=256)
train apps_ppocoder bfloat16 3 "${apps[@]}" algo=ppocoder trainer.train_batch_size=128
train apps_rltf bfloat16 3 "${apps[@]}" algo=rltf trainer.train_batch_size=128
run math_gsi task=math "data.path=$data/math" data.max_response_length=128 policy.dtype=bfloat16 \
  algo=gsi trainer.problems_per_iteration=32 trainer.iterations=2 trainer.first=references
stage reward_model rrl-reward-model task=hh "data.path=$data/hh-rlhf" task.split_rows=5 model=hf "model.path=$out/sft" \
  kind=sequence kind.lr=1e-4 kind.dtype=bfloat16 kind.micro_batch_size=32 "run.dir=$out/rm"
train hh_rrl bfloat16 5 task=hh "data.path=$data/hh-rlhf" task.split_rows=5 algo=rrl scorer=sequence "scorer.path=$out/rm" \
  scorer.dtype=bfloat16 trainer.train_batch_size=128
train resumed bfloat16 2 "${gsm8k[@]}" algo=rrl trainer.train_batch_size=64
stage resume rrl-train "resume=$out/runs/resumed" trainer.total_training_steps=4
rm -rf "$out"/sft "$out"/rm/*.safetensors "$out"/runs/*/checkpoints
find "$out/runs" -name '*.safetensors' -delete
