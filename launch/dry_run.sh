# Sourced by the scripts next to it. `run COMMAND ARGUMENTS` runs a command; with DRY_RUN=1 it prints it.
# shellcheck shell=bash
run() {
  if [[ -n "${DRY_RUN:-}" ]]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}
