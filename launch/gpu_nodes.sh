#!/usr/bin/env bash
# Train on hosts that ssh reaches: copies the code, sets it up, starts one process a host, starts again when one is lost.
#
#   launch/gpu_nodes.sh node1,node2 --config=configs/dbae_ffhq.py --workdir=/shared/runs/ffhq --data_dir=/data
#   DRY_RUN=1 launch/gpu_nodes.sh ...       prints the commands and runs nothing
#
# --workdir has to be a folder that all hosts share, or a bucket (gs://...). Ctrl-C stops all, saved.
# DIR: the code's folder on the hosts (default: diffrep_jax); EXTRA: what is installed with it (default: cuda13; with a
# bucket cuda13,gcs); PORT: of the first host (default: 12355); TRIES: how often it is started at most (default: 10);
# SSH: the ssh command.
set -euo pipefail

if (($# < 2)); then
  echo "usage: launch/gpu_nodes.sh HOST,HOST,... --config=configs/FILE.py --workdir=FOLDER [arguments of launch/main.py]" >&2
  exit 2
fi
IFS=, read -r -a hosts <<<"$1"
shift
dir=${DIR:-diffrep_jax} extra=${EXTRA:-cuda13} port=${PORT:-12355} tries=${TRIES:-10}
read -r -a ssh <<<"${SSH:-ssh -tt -o BatchMode=yes -o ServerAliveInterval=15}"
root=$(cd "$(dirname "$0")/.." && pwd)
arguments=$(printf '%q ' "$@")
address=${hosts[0]##*@}:$port

# shellcheck source=dry_run.sh
source "$root/launch/dry_run.sh"

on() { # HOST COMMAND: its output with the host's name before each line
  local host=$1
  run "${ssh[@]}" "$host" "$2" < /dev/null | sed -u "s|^|[$host] |"
}

each() { # COMMAND: on all hosts at once; the number of the first that failed
  local pids=() status=0 code
  for host in "${hosts[@]}"; do
    on "$host" "$1" &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do
    code=0
    wait "$pid" || code=$?
    ((status == 0)) && status=$code
  done
  return "$status"
}

train() { # start one process a host; the exit code of the first that failed, where it is not 75 of one that was left alone
  local pids=() status=0 code number=0
  for host in "${hosts[@]}"; do
    on "$host" "cd $dir && JAX_COORDINATOR_ADDRESS=$address JAX_NUM_PROCESSES=${#hosts[@]} JAX_PROCESS_ID=$number \
PYTHONUNBUFFERED=1 .venv/bin/python launch/main.py --multihost $arguments" &
    pids+=($!)
    number=$((number + 1))
  done
  for pid in "${pids[@]}"; do
    code=0
    wait "$pid" || code=$?
    ((status == 0 || code == 2)) && status=$code
  done
  return "$status"
}

for host in "${hosts[@]}"; do
  run rsync --archive --compress --delete --exclude=.git --exclude=.venv --exclude=runs -e "${ssh[*]}" "$root/" "$host:$dir/"
done
each "cd $dir && (test -x .venv/bin/python || python3 -m venv .venv) && .venv/bin/pip install --quiet --editable '.[$extra]'"
for ((try = 1; try <= tries; try++)); do
  status=0
  train "$@" || status=$?
  case $status in
    0 | 2 | 130) exit "$status" ;; # done; a mistake; Ctrl-C
  esac
  echo "Exit code $status: start $((try + 1)) of $tries, from the last checkpoint."
  run sleep "${PAUSE:-20}"
done
exit "$status"
