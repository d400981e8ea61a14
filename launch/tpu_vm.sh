#!/usr/bin/env bash
# Train on a TPU slice of Google Cloud: asks for it, copies the code, sets it up, runs on all workers, and when the slice
# is preempted asks again and goes on.
#
#   export NAME=ffhq ZONE=us-central2-b TYPE=v4-32 SPOT=1
#   launch/tpu_vm.sh all --config=configs/dbae_ffhq.py --workdir=gs://bucket/runs/ffhq --data_dir=gs://bucket/ffhq.zip
#   launch/tpu_vm.sh create | install | train ARGUMENTS | delete          the steps, one at a time
#   DRY_RUN=1 launch/tpu_vm.sh all ...      prints the commands and runs nothing
#
# RUNTIME: the image of the machines (default: that of the TYPE's generation). PROJECT: else gcloud's own.
set -euo pipefail

usage() {
  sed -n '2,/^set/s/^# \{0,1\}//p' "$0" | sed '$d' >&2
  exit 2
}

[[ $# -ge 1 && -n "${NAME:-}" && -n "${ZONE:-}" ]] || usage
step=$1
shift
type=${TYPE:-v5litepod-16}
case $type in
  v5lite* | v5e*) runtime=v2-alpha-tpuv5-lite ;;
  v5p*) runtime=v2-alpha-tpuv5 ;;
  v6e*) runtime=v2-alpha-tpuv6e ;;
  *) runtime=tpu-ubuntu2204-base ;;
esac
runtime=${RUNTIME:-$runtime}
place=(--zone="$ZONE")
[[ -z "${PROJECT:-}" ]] || place+=(--project="$PROJECT")
root=$(cd "$(dirname "$0")/.." && pwd)

# shellcheck source=dry_run.sh
source "$root/launch/dry_run.sh"

state() { # of the queued resource: ACTIVE, PROVISIONING, SUSPENDED, ...; empty where there is none
  if [[ -n "${DRY_RUN:-}" ]]; then
    echo ACTIVE
  else
    gcloud compute tpus queued-resources describe "$NAME" "${place[@]}" --format='value(state.state)' 2> /dev/null || true
  fi
}

workers() { # COMMAND, on all workers
  run gcloud compute tpus tpu-vm ssh "$NAME" "${place[@]}" --worker=all --command="$1"
}

create() {
  local more=()
  [[ -z "${SPOT:-}" ]] || more=(--spot)
  run gcloud compute tpus queued-resources create "$NAME" "${place[@]}" --node-id="$NAME" --accelerator-type="$type" \
    --runtime-version="$runtime" "${more[@]}"
  until [[ "$(state)" == ACTIVE ]]; do
    case $(state) in
      FAILED | SUSPENDED) echo "error: $NAME was not granted; launch/tpu_vm.sh delete, and try again." >&2 && exit 75 ;;
    esac
    sleep "${PAUSE:-30}"
  done
}

delete() {
  run gcloud compute tpus queued-resources delete "$NAME" "${place[@]}" --force --quiet
}

install() {
  local code
  code=$(mktemp -d)/diffrep_jax.tar.gz
  run git -C "$root" archive --format=tar.gz --output="$code" HEAD
  run gcloud compute tpus tpu-vm scp "$code" "$NAME:diffrep_jax.tar.gz" "${place[@]}" --worker=all
  workers "mkdir -p diffrep_jax && tar -xzf diffrep_jax.tar.gz -C diffrep_jax && cd diffrep_jax && \
(test -x .venv/bin/python || python3 -m venv .venv) && .venv/bin/pip install --quiet --editable '.[tpu,gcs]'"
}

train() {
  workers "cd diffrep_jax && PYTHONUNBUFFERED=1 .venv/bin/python launch/main.py --multihost $(printf '%q ' "$@")"
}

all() { # what ends by an error while the slice is there is the run's own error
  [[ "$(state)" == ACTIVE && -z "${DRY_RUN:-}" ]] || create
  install
  until train "$@"; do
    [[ "$(state)" != ACTIVE ]] || exit 1
    echo "The slice was preempted: asking for another; the run goes on from its last checkpoint."
    delete
    until create; do delete && sleep "${PAUSE:-60}"; done
    install
  done
}

case $step in
  create | install | delete) "$step" ;;
  train | all) (($#)) || usage && "$step" "$@" ;;
  *) usage ;;
esac
