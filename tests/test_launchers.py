"""The scripts that start a run on many hosts: their commands, with stand-ins for gcloud, srun and ssh in PATH."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.several import free_port
from tests.tiny import ROOT

SCRIPTS = ("gpu_nodes.sh", "slurm.sbatch", "tpu_vm.sh", "xpk.sh")
RUN = ["--config=configs/ddpm_digits.py", "--workdir=/shared/a run"]

# Writes its name and arguments, with separators that are in none, then does what $ACT_<name> says, a line of bash.
STAND_IN = r"""#!/usr/bin/env bash
name=${0##*/}
printf -v line '%s\x1f' "$name" "$@"
printf '%s\x1e' "$line" >> "$CALLS"
act="ACT_${name//-/_}"
eval "${!act:-true}"
"""


@pytest.fixture
def script(tmp_path):
    """Runs a script with stand-ins: (exit code, output, [[command, arguments, ...]])."""
    stand_ins, calls = tmp_path / "bin", tmp_path / "calls"
    stand_ins.mkdir()
    for name in ("docker", "gcloud", "git", "rsync", "scontrol", "sleep", "srun", "ssh", "tar", "xpk"):
        (stand_ins / name).write_text(STAND_IN)
        (stand_ins / name).chmod(0o755)

    def start(name, *arguments, **environment):
        calls.write_text("")
        done = subprocess.run(
            ["bash", ROOT / "launch" / name, *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
            env=os.environ | {"PATH": f"{stand_ins}:{os.environ['PATH']}", "CALLS": str(calls)} | environment,
        )
        return (
            done.returncode,
            done.stdout + done.stderr,
            [line.removesuffix("\x1f").split("\x1f") for line in calls.read_text().split("\x1e")[:-1]],
        )

    return start


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck, a Debian package")
def test_shellcheck_has_nothing_to_say():
    done = subprocess.run(
        ["shellcheck", "-x", "dry_run.sh", *SCRIPTS], cwd=ROOT / "launch", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_parse(name):
    subprocess.run(["bash", "-n", ROOT / "launch" / name], check=True)


@pytest.mark.parametrize("name", SCRIPTS)
def test_without_arguments_a_script_says_how_it_is_used(script, name):
    code, output, calls = script(name)
    assert code == 2 and "--config" in output and not calls


SLURM = {"SLURM_JOB_ID": "20007", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "node[1-2]"}
NODES = {"ACT_scontrol": '[[ "$1" != show ]] || printf "node1\\nnode2\\n"'}


def test_slurm_starts_one_process_a_node(script):
    print_task = {"ACT_srun": 'echo "$JAX_COORDINATOR_ADDRESS $JAX_NUM_PROCESSES"'}
    code, output, calls = script("slurm.sbatch", *RUN, **SLURM, **NODES, **print_task)
    assert code == 0 and "node1:20007 2" in output
    assert calls[0] == ["scontrol", "show", "hostnames", "node[1-2]"]
    assert calls[1][:4] == ["srun", "--ntasks=2", "--ntasks-per-node=1", "--kill-on-bad-exit=0"]
    assert calls[1][-2:] == RUN and "requeue" not in str(calls)


def test_a_slurm_task_is_the_process_of_its_number_with_all_gpus_of_its_node(script, tmp_path):
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    python = tmp_path / "venv" / "bin" / "python"
    python.write_text('#!/usr/bin/env bash\necho "$JAX_PROCESS_ID of $JAX_NUM_PROCESSES: $JAX_LOCAL_DEVICE_IDS: $*"\n')
    python.chmod(0o755)
    task = {"ACT_srun": 'shift 3; SLURM_PROCID=1 "$@"', "SLURM_GPUS_ON_NODE": "4", "VENV": str(tmp_path / "venv")}
    code, output, _ = script("slurm.sbatch", *RUN, **SLURM, **NODES, **task)
    assert code == 0 and f"1 of 2: 0,1,2,3: launch/main.py --multihost {' '.join(RUN)}" in output


@pytest.mark.parametrize("status, requeued", [(143, True), (75, True), (2, False), (1, False)])
def test_slurm_requeues_what_was_preempted_or_lost_a_node(script, status, requeued):
    code, _, calls = script("slurm.sbatch", *RUN, **SLURM, **NODES, ACT_srun=f"exit {status}")
    assert (["scontrol", "requeue", "20007"] in calls) == requeued
    assert code == (0 if requeued else status)


def test_gpu_nodes_copies_installs_and_starts_each_host_as_its_number(script):
    code, _, calls = script("gpu_nodes.sh", "me@node1,node2", *RUN, PORT="4000")
    assert code == 0
    copies = [call for call in calls if call[0] == "rsync"]
    assert [call[-1] for call in copies] == ["me@node1:diffrep_jax/", "node2:diffrep_jax/"]
    assert all("--exclude=.venv" in call and call[-2] == f"{ROOT}/" for call in copies)
    remote = [call[-2:] for call in calls if call[0] == "ssh"]
    assert sum("pip install" in command and "[cuda13]" in command for _, command in remote) == 2
    starts = {host: command for host, command in remote if "--multihost" in command}
    for number, host in enumerate(["me@node1", "node2"]):
        wanted = f"JAX_COORDINATOR_ADDRESS=node1:4000 JAX_NUM_PROCESSES=2 JAX_PROCESS_ID={number} "
        assert wanted in starts[host] and r"--workdir=/shared/a\ run" in starts[host]


@pytest.mark.parametrize("status, starts", [(75, 3), (143, 3), (255, 3), (2, 1), (130, 1)])
def test_gpu_nodes_starts_again_what_was_lost(script, status, starts):
    act = f'[[ "$*" != *--multihost* ]] || exit {status}'
    code, _, calls = script("gpu_nodes.sh", "node1,node2", *RUN, ACT_ssh=act, TRIES="3")
    assert code == status and sum("--multihost" in call[-1] for call in calls) == 2 * starts


def test_gpu_nodes_stops_where_a_host_cannot_be_set_up(script):
    code, _, calls = script("gpu_nodes.sh", "node1,node2", *RUN, ACT_ssh='[[ "$*" != *"node2 "* ]] || exit 255')
    assert code == 255 and not any("--multihost" in call[-1] for call in calls)


@pytest.mark.slow
def test_gpu_nodes_trains_on_two_hosts(script, tmp_path):
    """For real: both hosts are this machine."""
    (tmp_path / "code").mkdir()
    for name in ("launch", "diffrep_jax", "configs"):
        (tmp_path / "code" / name).symlink_to(ROOT / name)
    (tmp_path / "code" / ".venv" / "bin").mkdir(parents=True)
    python = tmp_path / "code" / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    tiny = {"data.image_size": 8, "method.unet.width": 8, "method.unet.mult": "(1,)", "method.unet.attention": "()"}
    tiny |= {"train.batch_size": 8, "train.total_steps": 2, "train.log_every": 1}
    run = ["--config=configs/ddpm_digits.py", f"--workdir={tmp_path / 'run'}"]
    run += [f"--config.{name}={value}" for name, value in tiny.items()]
    act = '[[ "${@: -1}" == *"pip install"* ]] || bash -c "${@: -1}"'
    more = {"DIR": str(tmp_path / "code"), "PORT": str(free_port()), "JAX_PLATFORMS": "cpu", "TRIES": "1"}
    code, output, _ = script("gpu_nodes.sh", "localhost,localhost", *run, ACT_ssh=act, **more)
    assert code == 0, output
    assert re.search(r"\[localhost\] .*step 2/2", output) and (tmp_path / "run" / "checkpoints" / "2").is_dir()


TPU = {"NAME": "ffhq", "ZONE": "us-west4-a", "TYPE": "v5litepod-16"}


def test_tpu_vm_creates_installs_trains_and_deletes(script):
    act = '[[ "$*" != *describe* ]] || echo "$STATE"'
    code, _, calls = script("tpu_vm.sh", "create", **TPU, SPOT="1", PROJECT="mine", ACT_gcloud=act, STATE="ACTIVE")
    assert code == 0
    resource = ["gcloud", "compute", "tpus", "queued-resources"]
    place = ["--zone=us-west4-a", "--project=mine"]
    size = ["--node-id=ffhq", "--accelerator-type=v5litepod-16", "--runtime-version=v2-alpha-tpuv5-lite", "--spot"]
    assert calls[0] == [*resource, "create", "ffhq", *place, *size]

    code, _, calls = script("tpu_vm.sh", "install", **TPU)
    assert code == 0 and calls[0][:1] == ["git"] and "archive" in calls[0]
    machines = ["gcloud", "compute", "tpus", "tpu-vm"]
    assert calls[1][:5] == [*machines, "scp"] and "--worker=all" in calls[1]
    assert calls[2][:5] == [*machines, "ssh"] and "[tpu,gcs]" in calls[2][-1]

    code, _, calls = script("tpu_vm.sh", "train", *RUN, **TPU)
    assert code == 0 and calls[-1][:-1] == [*machines, "ssh", "ffhq", "--zone=us-west4-a", "--worker=all"]
    assert r"launch/main.py --multihost --config=configs/ddpm_digits.py --workdir=/shared/a\ run" in calls[-1][-1]

    code, _, calls = script("tpu_vm.sh", "delete", **TPU)
    assert code == 0 and calls == [[*resource, "delete", "ffhq", "--zone=us-west4-a", "--force", "--quiet"]]


def test_tpu_vm_asks_again_after_a_preemption(script, tmp_path):
    """The first training ends with the slice, the second one is done."""
    act = """case "$*" in
      *describe*) if [[ -e "$GONE" ]]; then echo SUSPENDED; else echo ACTIVE; fi ;;
      *--multihost*) [[ -e "$ONCE" ]] || { touch "$ONCE" "$GONE"; exit 1; } ;;
      *delete*) rm -f "$GONE" ;;
    esac"""
    files = {"GONE": str(tmp_path / "gone"), "ONCE": str(tmp_path / "once")}
    code, output, calls = script("tpu_vm.sh", "all", *RUN, **TPU, ACT_gcloud=act, **files)
    assert code == 0 and "preempted" in output
    done = [word for call in calls for word in ("create", "delete", "scp", "--multihost") if word in " ".join(call)]
    assert done == ["scp", "--multihost", "delete", "create", "scp", "--multihost"]


def test_tpu_vm_does_not_start_again_what_ends_by_its_own_error(script):
    act = 'case "$*" in *describe*) echo ACTIVE ;; *--multihost*) exit 2 ;; esac'
    code, _, calls = script("tpu_vm.sh", "all", *RUN, **TPU, ACT_gcloud=act)
    assert code == 1 and sum("--multihost" in " ".join(call) for call in calls) == 1


GKE = {"CLUSTER": "tpus", "ZONE": "us-east5-b", "PROJECT": "mine", "NAME": "ffhq", "TYPE": "v5p-32"}
OF_CLUSTER = ["--cluster=tpus", "--zone=us-east5-b", "--project=mine"]


@pytest.mark.parametrize(
    "more, capacity",
    [({}, "--on-demand"), ({"SPOT": "1"}, "--spot"), ({"RESERVATION": "ours"}, "--reservation=ours")],
)
def test_xpk_makes_a_cluster_of_slices(script, more, capacity):
    code, _, calls = script("xpk.sh", "cluster", **GKE, **more, SLICES="2")
    size = ["--tpu-type=v5p-32", "--num-slices=2"]
    assert code == 0 and calls == [["xpk", "cluster", "create", *OF_CLUSTER, *size, capacity]]


def test_xpk_builds_submits_and_waits(script):
    code, _, calls = script("xpk.sh", "all", *RUN, **GKE, MORE="--storage=data --priority=low")
    assert code == 0 and [call[0] for call in calls] == ["git", "tar", "docker", "docker", "xpk", "xpk"]
    build, push, submit, wait = calls[2:]
    assert "--build-arg=EXTRA=tpu,gcs" in build and "--tag=gcr.io/mine/diffrep-jax" in build
    assert push == ["docker", "push", "gcr.io/mine/diffrep-jax"]
    assert submit[:3] == ["xpk", "workload", "create"] and submit[3:6] == OF_CLUSTER
    assert {"--workload=ffhq", "--docker-image=gcr.io/mine/diffrep-jax", "--tpu-type=v5p-32"} <= set(submit)
    assert {"--max-restarts=50", "--restart-on-exit-codes=75", "--storage=data", "--priority=low"} <= set(submit)
    assert wait == ["xpk", "workload", "list", *OF_CLUSTER, "--wait-for-job-completion=ffhq"]


def test_a_workload_of_xpk_is_the_command_with_its_arguments(script, tmp_path):
    python = tmp_path / "python"
    python.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@" > "$SEEN"\n')
    python.chmod(0o755)
    act = """for word in "$@"; do
      [[ "$word" != --command=* ]] || PATH="$PYTHON:$PATH" bash -c "cd() { :; }; ${word#--command=}"
    done"""
    files = {"PYTHON": str(tmp_path), "SEEN": str(tmp_path / "seen")}
    code, output, _ = script("xpk.sh", "train", *RUN, **GKE, ACT_xpk=act, **files)
    assert code == 0, output
    assert (tmp_path / "seen").read_text().splitlines() == ["launch/main.py", "--multihost", *RUN]


@pytest.mark.parametrize("status", [125, 1])
def test_xpk_hands_on_how_a_workload_has_ended(script, status):
    code, output, _ = script("xpk.sh", "wait", **GKE, ACT_xpk=f"exit {status}")
    assert code == status and ("kubectl logs" in output) == (status == 125)


def test_xpk_submits_nothing_where_the_image_is_not_built(script):
    code, _, calls = script("xpk.sh", "all", *RUN, **GKE, ACT_docker="exit 1")
    assert code == 1 and not any(call[0] == "xpk" for call in calls)


def test_xpk_deletes_the_workload_alone(script):
    code, _, calls = script("xpk.sh", "delete", **GKE)
    assert code == 0 and calls == [["xpk", "workload", "delete", *OF_CLUSTER, "--workload=ffhq"]]


@pytest.mark.parametrize(
    "name, arguments, environment",
    [
        ("slurm.sbatch", RUN, SLURM | NODES),
        ("gpu_nodes.sh", ["node1,node2", *RUN], {}),
        ("tpu_vm.sh", ["all", *RUN], TPU),
        ("xpk.sh", ["all", *RUN], GKE),
    ],
)
def test_a_dry_run_prints_the_commands_and_runs_nothing(script, name, arguments, environment):
    code, output, calls = script(name, *arguments, **environment, DRY_RUN="1")
    assert code == 0 and all(call[:2] == ["scontrol", "show"] for call in calls)
    assert "--multihost" in output and "ddpm_digits.py" in output


def test_the_image_is_made_of_files_that_there_are():
    lines = (ROOT / "launch" / "Dockerfile").read_text().splitlines()
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    assert {"diffrep_jax", "launch", "configs", "pyproject.toml"} <= set(copied)
    assert all((ROOT / name).exists() for name in copied)
