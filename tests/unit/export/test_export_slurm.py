# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The batch script: read by bash and by sbatch, and run with a trainer that is stopped, fails, or ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure

from gpu_tenant.export import targets
from gpu_tenant.export.place import Place

Bash = Callable[..., "subprocess.CompletedProcess[str]"]
ENDS = "#!/bin/sh\nexit {code}\n"
# It notes that it is at work, and on SIGTERM what it saved, as a trainer with the checkpoint helper does.
STOPPABLE = """\
#!/bin/bash
trap 'echo saved >>"$TENANT_CHECKPOINT_DIR/saved"; exit 30' TERM
mkfifo "$HOME/never"
echo ready >"$TENANT_CHECKPOINT_DIR/ready"
# Nobody writes there; a read that ends now and then lets the trap run.
for _ in $(seq 300); do read -r -t 0.1 _ <>"$HOME/never"; done
exit 9
"""
SCONTROL = '#!/bin/sh\necho "$@" >>"$HOME/requeued"\n'
SQUEUE = "#!/bin/sh\necho {state}\n"
DEADLINE_S = 600.0


def script_of(spec: dict[str, Any], root: Path, cell: str = "") -> str:
    return targets.render("slurm", spec, Place(checkpoints=str(root), code=str(root)), cell).text


def stubs(trainer: str, state: str = "RUNNING") -> dict[str, str]:
    return {"python": trainer, "scontrol": SCONTROL, "squeue": SQUEUE.format(state=state)}


def directives(text: str) -> dict[str, str]:
    """The options that sbatch takes: those before the first line that is neither blank nor a comment."""
    found = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            break
        if line.startswith("#SBATCH "):
            name, _equals, value = line.removeprefix("#SBATCH --").partition("=")
            found[name] = value
    return found


def test_the_options_say_what_the_spec_says(spec: dict[str, Any], tmp_path: Path) -> None:
    found = directives(script_of(spec, tmp_path))
    assert found.pop("job-name") in found.pop("output")
    assert found == {
        "nodes": "1",
        "ntasks": "1",
        "gres": "gpu:2",
        "time": "123",
        "requeue": "",
        "signal": "B:TERM@70",
        "open-mode": "append",
        "export": "ALL",
        "array": "0-1",
    }


def test_one_cell_needs_no_array_and_a_named_card_is_asked_for(spec: dict[str, Any]) -> None:
    text = targets.render("slurm", spec, Place(checkpoints="/scratch", gpu="a100"), "seed-1").text
    found = directives(text)
    assert "array" not in found
    assert found["gres"] == "gpu:a100:2"
    assert found["output"].endswith("-%j.log")


def test_no_gpu_is_asked_for_where_none_is_wanted(spec: dict[str, Any], tmp_path: Path) -> None:
    assert "gres" not in directives(script_of({**spec, "resources": {"gpu_count": 0}}, tmp_path))


def test_the_notice_never_comes_before_the_deadline(spec: dict[str, Any], tmp_path: Path) -> None:
    """Slurm gives it up to a minute early; a run as short as its notice would be stopped as it starts."""
    for deadline_s in (1, 61, 7200):
        found = directives(script_of({**spec, "deadline_s": deadline_s}, tmp_path))
        notice_s = int(found["signal"].removeprefix("B:TERM@"))
        assert int(found["time"]) * 60 - notice_s - 60 >= deadline_s


@pytest.mark.skipif(shutil.which("sbatch") is None, reason="sbatch is not installed")
def test_sbatch_reads_the_options_as_we_mean_them(spec: dict[str, Any], tmp_path: Path) -> None:
    """It says what it read before it asks a controller, and here there is none to ask."""
    (tmp_path / "slurm.conf").write_text(
        "ClusterName=none\nSlurmctldHost=localhost(127.0.0.1)\nSlurmctldPort=1\nAuthType=auth/none\n"
        "CredType=cred/none\nGresTypes=gpu\nMessageTimeout=2\nNodeName=localhost\nPartitionName=p Nodes=localhost\n"
    )
    script = tmp_path / "job.sbatch"
    script.write_text(script_of(spec, tmp_path))
    env = {**os.environ, "SLURM_CONF": str(tmp_path / "slurm.conf")}
    words = ["sbatch", "-vv", "--test-only", str(script)]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=600, check=False)
    told = dict(
        (part.strip() for part in line.removeprefix("sbatch: ").split(" : ", 1))
        for line in done.stderr.partition("end of defined options")[0].splitlines()
        if " : " in line
    )
    wanted = {"array": "0-1", "gres": "gres:gpu:2", "open-mode": "a", "requeue": "requeue", "signal": "B:TERM@70"}
    assert {name: told.get(name) for name in wanted} == wanted
    assert told["time"] == "02:03:00"


def test_bash_can_read_it(spec: dict[str, Any], tmp_path: Path) -> None:
    done = subprocess.run(["bash", "-n"], input=script_of(spec, tmp_path), text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# --- run --------------------------------------------------------------------------------------------------------------


def run_stopped(spec: dict[str, Any], root: Path, state: str) -> int:
    """Start the script, wait until its trainer is at work, and send SIGTERM to the script alone, as --signal=B does."""
    programs = root / "bin"
    programs.mkdir()
    for name, body in stubs(STOPPABLE, state).items():
        (programs / name).write_text(body)
        (programs / name).chmod(0o755)
    script = root / "job.sh"
    script.write_text(script_of(spec, root))
    env = {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(root), "SLURM_JOB_ID": "7"}
    process = subprocess.Popen(["bash", str(script)], env=env, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + DEADLINE_S
        while not list(root.glob("*/*/*/a1/out/checkpoints/ready")):
            assert process.poll() is None
            assert time.monotonic() < until, "the trainer did not start"
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        return process.wait(DEADLINE_S)
    finally:
        process.kill()


def test_a_stop_reaches_the_trainer_which_saves_and_the_job_is_queued_again(
    one_cell: dict[str, Any], tmp_path: Path
) -> None:
    assert run_stopped(one_cell, tmp_path, "RUNNING") == 30
    assert [path.read_text() for path in tmp_path.glob("*/*/*/a1/out/checkpoints/saved")] == ["saved\n"]
    assert (tmp_path / "requeued").read_text() == "requeue 7\n"


def test_a_job_that_somebody_cancelled_stays_away(one_cell: dict[str, Any], tmp_path: Path) -> None:
    assert run_stopped(one_cell, tmp_path, "COMPLETING") == 30
    assert list(tmp_path.glob("*/*/*/a1/out/checkpoints/saved"))
    assert not (tmp_path / "requeued").exists()


@pytest.mark.parametrize(("code", "requeued"), [(0, False), (1, False), (30, True)])
def test_an_end_is_an_end_and_a_resumable_one_is_not(
    one_cell: dict[str, Any], tmp_path: Path, run_bash: Bash, code: int, requeued: bool
) -> None:
    done = run_bash(script_of(one_cell, tmp_path), stubs(ENDS.format(code=code)), {"SLURM_JOB_ID": "7"})
    assert done.returncode == code
    assert (tmp_path / "requeued").exists() is requeued


def test_each_task_of_the_array_is_its_cell(spec: dict[str, Any], tmp_path: Path, run_bash: Bash) -> None:
    trainer = '#!/bin/sh\necho "$TENANT_CELL $TENANT_SEED $TENANT_CHECKPOINT_DIR $HF_TOKEN $*"\n'
    told = []
    for index in ("0", "1"):
        env = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": index, "HF_TOKEN": "value"}
        told.append(run_bash(script_of(spec, tmp_path), stubs(trainer), env).stdout.split(maxsplit=4))
    assert [line[:2] for line in told] == [["seed-0", "0"], ["seed-1", "1"]]
    assert [line[4] for line in told] == [f"train.py --epochs 3 --seed {seed}\n" for seed in (0, 1)]
    assert told[0][2] != told[1][2]
    assert all(Path(line[2]).is_dir() and line[3] == "value" for line in told)


def test_a_task_without_a_cell_and_a_missing_secret_start_nothing(
    spec: dict[str, Any], tmp_path: Path, run_bash: Bash
) -> None:
    trainer = '#!/bin/sh\ntouch "$HOME/started"\n'
    env = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}
    wrong = run_bash(script_of(spec, tmp_path), stubs(trainer), {**env, "HF_TOKEN": "value"})
    assert (wrong.returncode, "which is no cell of this run" in wrong.stderr) == (2, True)
    bare = run_bash(script_of(spec, tmp_path), stubs(trainer), env)
    assert bare.returncode != 0
    assert "HF_TOKEN: set it where sbatch is called" in bare.stderr
    assert not (tmp_path / "started").exists()


def test_the_deadline_counts_from_the_first_start(one_cell: dict[str, Any], tmp_path: Path, run_bash: Bash) -> None:
    trainer = '#!/bin/sh\necho "$TENANT_ATTEMPT"\n'
    text = script_of(one_cell, tmp_path)
    first = run_bash(text, stubs(trainer), {"SLURM_JOB_ID": "7"})
    assert first.returncode == 0
    started = Path(first.stdout.strip(), "started")
    started.write_text(str(int(started.read_text()) - 7200))
    late = run_bash(text, stubs(trainer), {"SLURM_JOB_ID": "7"})
    assert (late.returncode, late.stdout) == (1, "")
    assert "the deadline of 7200 s is over" in late.stderr


def test_a_stop_after_the_deadline_does_not_queue_it_again(
    one_cell: dict[str, Any], tmp_path: Path, run_bash: Bash
) -> None:
    clock = {"date": '#!/bin/sh\ncat "$HOME/now"\n'}
    (tmp_path / "now").write_text("1000\n")
    trainer = '#!/bin/sh\necho {then} >"$HOME/now"\nexit 30\n'
    text = script_of(one_cell, tmp_path)
    assert run_bash(text, {**stubs(trainer.format(then=8200)), **clock}, {"SLURM_JOB_ID": "7"}).returncode == 30
    assert not (tmp_path / "requeued").exists()
    (tmp_path / "now").write_text("1000\n")
    run_bash(text, {**stubs(trainer.format(then=8199)), **clock}, {"SLURM_JOB_ID": "7"})
    assert (tmp_path / "requeued").read_text() == "requeue 7\n"


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ({}, "--checkpoints"),
        ({"checkpoints": "relative"}, "#SBATCH"),
        ({"checkpoints": "/a b"}, "#SBATCH"),
        ({"checkpoints": "/a/%j"}, "#SBATCH"),
        ({"checkpoints": "/a\n#SBATCH --x"}, "#SBATCH"),
        ({"checkpoints": "/a", "gpu": "a100:8"}, "gres"),
        ({"checkpoints": "/a", "image": "train:1"}, "no use for --image"),
        ({"checkpoints": "/a", "code": "here"}, "absolute"),
    ],
)
def test_a_place_that_cannot_be_is_refused(spec: dict[str, Any], place: dict[str, str], said: str) -> None:
    with pytest.raises(TenantFailure, match=said):
        targets.render("slurm", spec, Place(**place))


def test_more_notice_than_slurm_gives_is_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(TenantFailure, match="more notice than Slurm gives"):
        targets.render("slurm", {**spec, "grace_s": 65535}, Place(checkpoints="/a"))
