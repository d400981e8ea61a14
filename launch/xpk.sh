#!/usr/bin/env bash
# Train on TPU slices of a GKE cluster by xpk (pip install xpk): builds and pushes the image, submits the run as a
# workload that starts again when a slice is preempted, and waits for its end.
#
#   export CLUSTER=tpus ZONE=us-east5-b PROJECT=mine TYPE=v5p-32 NAME=ffhq
#   launch/xpk.sh cluster                  once: makes the cluster with SLICES slices of TYPE; SPOT=1 or RESERVATION=...
#   launch/xpk.sh all --config=configs/dbae_ffhq.py --workdir=gs://bucket/runs/ffhq --data_dir=gs://bucket/ffhq.zip
#   launch/xpk.sh image | train ARGUMENTS | wait | delete          the steps, one at a time
#   DRY_RUN=1 launch/xpk.sh all ...        prints the commands and runs nothing
#
# IMAGE: where it is pushed to (default: gcr.io/PROJECT/diffrep-jax). SLICES: how many (default: 1). RESTARTS: how often
# it is started again at most (default: 50). MORE: more arguments of `xpk workload create`, such as --storage=NAME.
set -euo pipefail

usage() {
  sed -n '2,/^set/s/^# \{0,1\}//p' "$0" | sed '$d' >&2
  exit 2
}

[[ $# -ge 1 && -n "${CLUSTER:-}" && -n "${ZONE:-}" && -n "${PROJECT:-}" && -n "${NAME:-}" ]] || usage
step=$1
shift
place=(--cluster="$CLUSTER" --zone="$ZONE" --project="$PROJECT")
size=(--tpu-type="${TYPE:-v5litepod-16}" --num-slices="${SLICES:-1}")
image=${IMAGE:-gcr.io/$PROJECT/diffrep-jax}
read -r -a more <<<"${MORE:-}"
root=$(cd "$(dirname "$0")/.." && pwd)

# shellcheck source=dry_run.sh
source "$root/launch/dry_run.sh"

cluster() {
  local capacity=(--on-demand)
  [[ -z "${SPOT:-}" ]] || capacity=(--spot)
  [[ -z "${RESERVATION:-}" ]] || capacity=(--reservation="$RESERVATION")
  run xpk cluster create "${place[@]}" "${size[@]}" "${capacity[@]}"
}

image() { # of the committed code
  local context
  context=$(mktemp -d)
  run git -C "$root" archive --format=tar --output="$context/code.tar" HEAD
  run tar -xf "$context/code.tar" -C "$context"
  run docker build --file="$context/launch/Dockerfile" --build-arg=EXTRA=tpu,gcs --tag="$image" "$context"
  run docker push "$image"
  rm -r "$context"
}

# xpk starts a workload again after the exit codes of signals; 75 says that another process of the run was lost.
# `exec`: the signal of a preemption reaches the training, which saves.
train() {
  run xpk workload create "${place[@]}" "${size[@]}" --workload="$NAME" --docker-image="$image" \
    --max-restarts="${RESTARTS:-50}" --restart-on-exit-codes=75 --termination-grace-period-seconds=120 "${more[@]}" \
    --command="cd /diffrep_jax && exec python launch/main.py --multihost $(printf '%q ' "$@")"
}

wait_for_end() {
  local code=0
  run xpk workload list "${place[@]}" --wait-for-job-completion="$NAME" || code=$?
  if ((code == 125)); then
    echo "error: $NAME has failed, and not by a preemption; its log: kubectl logs --selector=jobset.sigs.k8s.io/jobset-name=$NAME" >&2
  fi
  return "$code"
}

delete() {
  run xpk workload delete "${place[@]}" --workload="$NAME"
}

case $step in
  cluster | image | delete) "$step" ;;
  wait) wait_for_end ;;
  train)
    (($#)) || usage
    train "$@"
    ;;
  all)
    (($#)) || usage
    image
    train "$@"
    wait_for_end
    ;;
  *) usage ;;
esac
