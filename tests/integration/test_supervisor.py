# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The supervisor as boxes run it: the real program, real processes, killed at inconvenient moments."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import (
    attempt,
    cgroup,
    detach,
    process,
    records,
    run_record,
    tfevents,
)
from supervised_box import SupervisedBox, python38, supervised_box, wait_for

pytestmark = pytest.mark.integration


@pytest.fixture
def box(tmp_path: Path) -> Iterator[SupervisedBox]:
    with supervised_box(tmp_path) as made:
        yield made


@pytest.fixture(params=["this python", "python 3.8"])
def any_box(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SupervisedBox]:
    """On the newest Python that controllers use and on the oldest that boxes have."""
    with supervised_box(tmp_path, sys.executable if request.param == "this python" else python38()) as made:
        yield made


def attempts(box: SupervisedBox, cell: str = "c1") -> list[int]:
    return list(box.layout.attempt_numbers("digits", cell))


def worker_of(box: SupervisedBox) -> process.Identity:
    """The living worker that the first attempt's trainer started in a session of its own."""
    lines = [json.loads(line) for line in Path(box.paths().metrics).read_text().splitlines()]
    worker = process.identify(next(line["worker"] for line in lines if "worker" in line))
    assert worker is not None
    return worker


# --- a life without accidents -----------------------------------------------------------------------------------


def test_a_run_trains_verifies_and_ends(any_box: SupervisedBox) -> None:
    assert any_box.register(cells=[{"id": "c1"}, {"id": "c2", "args": ["--steps", "5"], "seed": 6}])["changed"]
    assert any_box.verb("start")["changed"]
    run = any_box.await_state("done")
    assert [(cell["state"], cell["liveness"], cell["step"], cell["steps"]) for cell in run["cells"]] == [
        ("done", "finished", 3, 3),
        ("done", "finished", 5, 5),
    ]
    done = records.read_record(any_box.paths().done, "done")
    assert (done["wrapper_exit"], done["child_exit"], done["durable"]["state"]) == (0, 0, "none")
    assert {line["path"] for line in done["artifacts"]} == {
        "c1/a1/out/model.pt",
        "c1/a1/metrics.jsonl",
        "c1/a1/run.log",
    }
    for line in done["artifacts"]:
        path = os.path.join(any_box.layout.run_dir("digits"), line["path"])
        assert (os.path.getsize(path), records.sha256_file(path)) == (line["bytes"], line["sha256"])
    assert "synced" not in json.dumps(any_box.verb("status"))
    any_box.await_no_daemon()


def test_the_second_time_changes_nothing(box: SupervisedBox) -> None:
    box.register()
    box.verb("start")
    box.await_state("done")
    box.await_no_daemon()
    before = box.paths().folder, os.stat(box.paths().done)
    assert not box.register()["changed"]
    assert not box.verb("start")["changed"]
    assert not box.verb("resume-all")["changed"]
    assert attempts(box) == [1]
    assert before == (box.paths().folder, os.stat(box.paths().done))


def test_the_trainer_gets_what_it_was_promised(box: SupervisedBox) -> None:
    script = box.workdir / "show.py"
    script.write_text(
        "import json, os, sys\n"
        "facts = {'env': dict(os.environ), 'stdin': sys.stdin.read(), 'leader': os.getsid(0) == os.getpid(),\n"
        "         'cwd': os.getcwd(), 'argv': sys.argv, 'pipe': __import__('signal').getsignal(13) is not None}\n"
        "json.dump(facts, open(os.path.join(os.environ['TENANT_OUTPUT_DIR'], 'facts.json'), 'w'))\n"
    )
    secrets = box.folder / "secrets.env"
    secrets.write_text("# comment\n\nWANDB_API_KEY=k e'y=1\n")
    secrets.chmod(0o600)
    box.register(
        command=["python", "show.py", "--lr"],
        cells=[{"id": "c1", "args": ["0.1"], "seed": 5}],
        env={"COLOUR": "red"},
        env_file=str(secrets),
        checkpoint={"mu_s": 900},
        artifacts=[{"glob": "facts.json", "role": "other", "loader": "json"}],
    )
    brought = Path(box.layout.cell_dir("digits", "c1"), "resume", "a" * 12)
    brought.mkdir(parents=True)
    brought.with_name("b" * 12).mkdir()  # of another spec
    box.verb("start")
    box.await_state("done")
    facts = json.loads(Path(box.paths().output, "facts.json").read_text())
    env = facts["env"]
    assert (facts["stdin"], facts["leader"], facts["cwd"]) == ("", True, str(box.workdir))
    assert facts["argv"] == ["show.py", "--lr", "0.1"]
    assert env["WANDB_API_KEY"] == "k e'y=1"
    assert (env["COLOUR"], env["PYTHONUNBUFFERED"], env["TENANT_SEED"]) == ("red", "1", "5")
    assert (env["TENANT_MU_S"], env["TENANT_GRACE_S"], env["TENANT_RUN_ID"]) == ("900", "20", "digits")
    assert env["TENANT_CHECKPOINT_DIR"] == box.paths().checkpoints
    assert env["TENANT_RESUME_DIRS"] == str(brought)
    assert env["OMP_NUM_THREADS"] == env["MKL_NUM_THREADS"] == str(cgroup.threads())
    told = [path.read_text(errors="replace") for path in box.root.rglob("*.json") if path.name != "facts.json"]
    assert "k e'y" not in "".join(told) + box.log()


# --- kill -9 ------------------------------------------------------------------------------------------------------


def test_a_killed_trainer_is_tried_again_and_resumes(any_box: SupervisedBox) -> None:
    any_box.register_held()
    any_box.verb("start")
    any_box.kill(any_box.await_trainer())
    cell = any_box.await_state("done")["cells"][0]
    assert (cell["attempt"], cell["resumed_from_step"], cell["step"]) == (2, 2, 4)
    ended = records.read_record(any_box.paths(1).exit, "exit")
    assert (ended["wrapper"], ended["child"], ended["stop_asked"]) == (40, -signal.SIGKILL, False)
    assert attempts(any_box) == [1, 2]


def test_retries_are_bounded(box: SupervisedBox) -> None:
    box.register_held(retries={"max": 1}, hold_at=1, steps=4)
    # Each attempt loses its checkpoints, so that it waits at the gate again.
    box.verb("start")
    box.kill(_without_checkpoints(box, 1))
    box.kill(_without_checkpoints(box, 2))
    cell = box.await_state("failed")["cells"][0]
    assert (cell["attempt"], cell["exit"]) == (2, {"wrapper": 40, "child": -9})
    assert "signal 9" in cell["why"]
    box.await_no_daemon()
    assert not box.verb("start")["changed"]
    assert attempts(box) == [1, 2]


def _without_checkpoints(box: SupervisedBox, number: int) -> process.Identity:
    trainer: process.Identity = box.await_trainer(number, step=1)
    shutil.rmtree(box.paths(number).checkpoints)
    return trainer


def test_a_killed_shim_leaves_the_trainer_alive_and_the_artifacts_judge(any_box: SupervisedBox) -> None:
    any_box.register_held()
    any_box.verb("start")
    trainer = any_box.await_trainer()
    any_box.kill(attempt.shim_of(any_box.paths()))
    cell = any_box.cell()
    assert (cell["state"], cell["liveness"], cell["attempt"]) == ("running", "alive", 1)
    assert process.observe(trainer) == process.ALIVE
    any_box.release()
    cell = any_box.await_state("done")["cells"][0]
    assert (cell["attempt"], cell["exit"]) == (1, {"wrapper": 0, "child": None})


def test_a_trainer_that_dies_without_its_shim_is_continued(box: SupervisedBox) -> None:
    command = ["python", "train.py", "--steps", "4", "--hold-at", "2", "--with-worker", "--gate", str(box.gate)]
    box.register(command=command)
    box.verb("start")
    trainer = box.await_trainer()
    worker = worker_of(box)
    box.kill(attempt.shim_of(box.paths()))
    box.kill(trainer)
    wait_for("attempt 2", lambda: os.path.exists(box.paths(2).status))
    assert process.observe(worker) != process.ALIVE
    cell = box.await_state("done")["cells"][0]
    assert (cell["attempt"], cell["resumed_from_step"]) == (2, 2)
    ended = records.read_record(box.paths(1).exit, "exit")
    assert (ended["cause"], ended["child"], ended["wrapper"]) == ("lost", None, 40)


def test_a_killed_supervisor_adopts_what_lives(any_box: SupervisedBox) -> None:
    any_box.register_held()
    any_box.verb("start")
    trainer = any_box.await_trainer()
    first = any_box.daemon()
    any_box.kill(first)
    assert any_box.cell()["liveness"] == "alive"
    assert any_box.verb("start")["changed"]
    wait_for("the adoption", lambda: "adopted" in any_box.log())
    assert any_box.daemon() != first
    assert process.observe(trainer) == process.ALIVE
    assert not any_box.verb("start")["changed"]
    any_box.release()
    cell = any_box.await_state("done")["cells"][0]
    assert (cell["attempt"], cell["process"]) == (1, trainer.as_dict())


def test_a_cell_that_ends_without_a_supervisor_is_finished_by_the_next(box: SupervisedBox) -> None:
    box.register_held()
    box.verb("start")
    box.await_trainer()
    box.kill(box.daemon())
    box.release()
    wait_for("the exit record", lambda: os.path.exists(box.paths().exit))
    wait_for("the shim to leave", lambda: not attempt.is_alive(box.paths()))
    assert box.run()["state"] == "verifying"
    box.verb("resume-all")
    assert box.await_state("done")["cells"][0]["attempt"] == 1


def test_a_box_that_died_resumes_with_the_newest_checkpoints_first(any_box: SupervisedBox) -> None:
    any_box.register_held(retries={"max": 0})
    any_box.verb("start")
    any_box.await_trainer()
    any_box.kill_everything()
    cell = any_box.cell()
    assert (cell["state"], cell["liveness"]) == ("verifying", "dead")
    assert any_box.verb("resume-all")["changed"]
    cell = any_box.await_state("done")["cells"][0]
    assert (cell["attempt"], cell["resumed_from_step"]) == (2, 2)
    ended, mine = records.read_record(any_box.paths(1).exit, "exit"), process.myself()
    assert ended["cause"] == "interrupted"
    assert "killed at once" in ended["why"], "no reboot and no restart of a container"
    assert all(word in ended["why"] for word in (mine.boot_id, str(mine.pid1_start)))
    assert records.read_record(any_box.paths(2).status, "status")["resume_dirs"] == [any_box.paths(1).checkpoints]


def test_checkpoints_of_a_half_way_run_do_not_look_like_its_end(box: SupervisedBox) -> None:
    box.register_held(artifacts=[{"glob": "checkpoints/step-*.pt", "role": "checkpoint", "loader": "torch"}])
    box.verb("start")
    box.await_trainer()
    box.kill_everything()
    box.verb("resume-all")
    cell = box.await_state("done")["cells"][0]
    assert (cell["attempt"], cell["step"]) == (2, 4)


@pytest.mark.parametrize("life", ["rebooted", "restarted"])
def test_after_a_reboot_the_old_identity_is_not_believed(life: str, box: SupervisedBox) -> None:
    box.register_held()
    box.verb("start")
    box.await_trainer()
    box.kill_everything()
    # What is left: the same boot id and another start of pid 1, or another boot id; and a pid that somebody has again.
    status = records.read_record(box.paths().status, "status")
    mine = process.myself()
    earlier = {"boot_id": "before"} if life == "rebooted" else {"pid1_start": mine.pid1_start + 1}
    for key in ("process", "shim"):
        status[key] = {**mine.as_dict(), **earlier}
    records.write_record(box.paths().status, "status", status)
    assert box.cell()["liveness"] == life
    box.verb("resume-all")
    assert box.await_state("done")["cells"][0]["attempt"] == 2
    ended = records.read_record(box.paths(1).exit, "exit")
    evidence = {
        "rebooted": ("the machine rebooted", "before", mine.boot_id),
        "restarted": ("the container was restarted", mine.boot_id, str(mine.pid1_start + 1), str(mine.pid1_start)),
    }
    assert ended["cause"] == "interrupted"
    assert all(word in ended["why"] for word in evidence[life]), ended["why"]


def test_a_reused_pid_is_harmless(box: SupervisedBox) -> None:
    box.register_held()
    box.verb("start")
    box.await_trainer()
    box.kill_everything()
    bystander = subprocess.Popen(["cat"], stdin=subprocess.PIPE, start_new_session=True)
    try:
        stranger = process.identify(bystander.pid)
        assert stranger is not None
        status = records.read_record(box.paths().status, "status")
        for key in ("process", "shim"):
            status[key] = dict(stranger.as_dict(), start=stranger.start - 1)
        records.write_record(box.paths().status, "status", status)
        assert box.cell()["liveness"] == "dead"
        box.verb("start")
        box.await_state("done")
        box.verb("stop")
        assert process.observe(stranger) == process.ALIVE
    finally:
        bystander.kill()
        bystander.wait()


def test_workers_of_a_killed_trainer_are_ended_before_the_next_attempt(box: SupervisedBox) -> None:
    command = ["python", "train.py", "--steps", "3", "--hold-at", "2", "--with-worker", "--gate", str(box.gate)]
    box.register(command=command)
    box.verb("start")
    trainer = box.await_trainer()
    worker = worker_of(box)
    box.kill(trainer)
    wait_for("attempt 2", lambda: attempts(box) == [1, 2])
    assert process.observe(worker) != process.ALIVE
    # The second attempt goes on behind the gate; its own worker is ended with it.
    assert box.await_state("done")["cells"][0]["attempt"] == 2
    assert attempt.members(box.paths(2)) == []


def at_once(commands: list[list[str]]) -> list[dict[str, Any]]:
    """Begin them all before any is waited for; what each answered."""
    running = [subprocess.Popen(each, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for each in commands]
    answers = []
    for each in running:
        out, err = each.communicate(timeout=600)
        assert (each.returncode, err) == (0, ""), out
        answers.append(json.loads(out))
    return answers


def test_twenty_starts_at_once_make_one_supervisor(any_box: SupervisedBox) -> None:
    """Half of them from the box's own start, as onstart does it while a deploy is at work."""
    any_box.register_held()
    answers = at_once([any_box.argv(verb) for _pair in range(10) for verb in ("start", "resume-all")])
    assert sum(answer["changed"] for answer in answers) == 1
    any_box.await_trainer()
    assert any_box.log().count(" started\n") == 1
    assert attempts(any_box) == [1]
    any_box.release()
    any_box.await_state("done")


def test_resume_all_in_the_midst_of_a_deploy_makes_one_supervisor(box: SupervisedBox, tmp_path: Path) -> None:
    """Before anything is registered, between register and start, and after: whoever comes first starts it, once."""
    record = tmp_path / "run.json"
    command = ["python", "train.py", "--steps", "4", "--hold-at", "2", "--gate", str(box.gate)]
    record.write_text(json.dumps(box.run_record(command=command)))
    register = shlex.join(box.argv("register", "--run-file", str(record)))
    deploy = ["sh", "-c", f"{register} >/dev/null && {shlex.join(box.argv('start'))}"]
    resumes = [box.argv("resume-all")] * 5
    answers = at_once([*resumes, deploy, *resumes, deploy, *resumes])
    came = [answer for answer in answers if answer.get("after", {}).get("supervisor") == "running"]
    assert len(came) == 1, answers
    box.await_trainer()
    assert (box.log().count(" started\n"), attempts(box)) == (1, [1])
    box.release()
    box.await_state("done")


def test_no_trainer_runs_before_its_identity_is_on_the_disk(box: SupervisedBox) -> None:
    box.register()
    run = run_record.read_run(box.layout, "digits")
    paths = attempt.claim(box.layout, run, run["cells"][0], 1)
    # The status cannot be written: a folder has its name.
    os.mkdir(paths.status)
    words = ["shim", "--run", "digits", "--cell", "c1", "--attempt", "1"]
    code = subprocess.run(box.argv(*words), capture_output=True, check=False).returncode
    assert code == 12
    wait_for("whatever was started to end", lambda: not attempt.members(paths))
    assert Path(paths.log).read_text() == ""
    assert not os.path.exists(paths.metrics)
    assert records.read_record(paths.exit, "exit")["wrapper"] == 12


def test_a_second_shim_of_an_attempt_refuses(box: SupervisedBox) -> None:
    box.register_held()
    box.verb("start")
    trainer = box.await_trainer()
    words = ["shim", "--run", "digits", "--cell", "c1", "--attempt", "1"]
    assert subprocess.run(box.argv(*words), capture_output=True, check=False).returncode == 14
    assert box.cell()["process"] == trainer.as_dict()
    box.release()
    box.await_state("done")
    assert subprocess.run(box.argv(*words), capture_output=True, check=False).returncode == 14


# --- damaged records ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", [b"", b'{"schema": "gpu-tenant/st', b"\xff\xfe", b"[]", b'{"schema": "x/y/v9"}'])
def test_a_damaged_status_does_not_hide_a_live_trainer(box: SupervisedBox, damage: bytes) -> None:
    box.register_held()
    box.verb("start")
    trainer = box.await_trainer()
    shim = attempt.shim_of(box.paths())
    box.kill(box.daemon())
    Path(box.paths().status).write_bytes(damage)
    assert box.cell()["liveness"] == "alive"
    # Even without the shim the trainer is found, because its environment names the attempt.
    box.kill(shim)
    assert box.cell()["liveness"] == "alive"
    box.verb("start")
    wait_for("the adoption", lambda: "adopted" in box.log())
    assert process.observe(trainer) == process.ALIVE
    box.release()
    assert box.await_state("done")["cells"][0]["attempt"] == 1


def test_damaged_records_are_told_and_end_nothing(box: SupervisedBox) -> None:
    box.register()
    box.verb("start")
    box.await_state("done")
    box.await_no_daemon()
    Path(box.layout.run_record("digits")).write_text("{")
    Path(box.layout.fence).write_text("{")
    answer = box.verb("status")
    assert len(answer["problems"]) == 2
    assert answer["runs"] == []
    code, answer = box.ask("start")
    assert (code, answer["kind"]) == (10, "damaged")
    os.unlink(box.layout.fence)
    code, answer = box.ask("seal")
    assert code == 15
    assert "run.json" in answer["error"]
    Path(box.layout.index).write_text('{"schema": "gpu-tenant/index/v1"}')
    assert box.verb("status")["runs"] == []
    assert box.ask("seal")[0] == 10


def test_a_damaged_done_record_is_written_again_without_training(box: SupervisedBox) -> None:
    box.register()
    box.verb("start")
    box.await_state("done")
    box.await_no_daemon()
    Path(box.paths().done).write_bytes(b"{")
    box.verb("start")
    box.await_state("done")
    assert attempts(box) == [1]
    assert Path(box.paths().log).read_text().count("trainer starts") == 1


# --- artifacts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "wrapper"), [("none", 20), ("cut", 22), ("link", 22)])
def test_without_a_sound_artifact_nothing_is_done(box: SupervisedBox, model: str, wrapper: int) -> None:
    box.register(command=["python", "train.py", "--model", model])
    box.verb("start")
    cell = box.await_state("failed")["cells"][0]
    assert cell["exit"] == {"wrapper": wrapper, "child": 0}
    assert "model.pt" in cell["why"]
    assert not os.path.exists(box.paths().done)
    box.await_no_daemon()
    assert not box.verb("start")["changed"]


def test_a_code_error_is_not_retried_by_itself(box: SupervisedBox) -> None:
    box.register(command=["python", "train.py", "--exit-code", "7"], retries={"max": 5})
    box.verb("start")
    cell = box.await_state("failed")["cells"][0]
    assert (cell["exit"], attempts(box)) == ({"wrapper": 40, "child": 7}, [1])
    box.await_no_daemon()
    assert not box.verb("start")["changed"]
    assert not box.verb("resume-all")["changed"]
    assert any("KeyError" in line for line in box.verb("log", "--run", "digits", "--cell", "c1")["lines"])
    assert box.verb("start", "--retry-failed")["changed"]
    wait_for("attempt 2", lambda: attempts(box) == [1, 2])
    box.await_state("failed")


# Writes more than a log may hold, and ends with its last words in it: as it was cut under it, or before anybody could.
LOUD = """\
import os, sys, time
log = os.path.join(os.path.dirname(os.environ["TENANT_OUTPUT_DIR"]), "run.log")
words = "Traceback (most recent call last):\\n  File \\"train.py\\"\\ntorch.OutOfMemoryError: CUDA out of memory.\\n"
def write(text):
    sys.stdout.write(text)
    sys.stdout.flush()
for number in range(65):
    write(("x" * 1023 + "\\n") * 1024)
if sys.argv[1] != "as it ends":
    write(words if sys.argv[1] == "before it is rotated" else "")
    until = time.monotonic() + 300
    while os.path.getsize(log) > 2**20 and time.monotonic() < until:
        time.sleep(0.05)
if sys.argv[1] != "before it is rotated":
    write(words)
sys.exit(1)
"""


@pytest.mark.parametrize("when", ["as it ends", "before it is rotated", "after it is rotated"])
def test_the_last_words_of_a_loud_trainer_are_read_and_come_home(box: SupervisedBox, when: str) -> None:
    (box.workdir / "loud.py").write_text(LOUD)
    box.register(command=["python", "loud.py", when], artifacts=[])
    box.verb("start")
    box.await_state("failed")
    box.await_no_daemon()
    log = Path(box.paths().log)
    if when != "as it ends":
        # The shim itself has rotated the log of a trainer that lived.
        assert log.stat().st_size <= 2**20
        assert Path(f"{log}.1").stat().st_size > 2**26
    assert attempt.read(box.paths().exit, "exit")["failure"]["class"] == "gpu_memory"
    told = box.verb("log", "--run", "digits", "--cell", "c1", "--tail", "3")["lines"]
    assert told[-1] == "torch.OutOfMemoryError: CUDA out of memory."
    assert len(told) == 3
    home = {line["path"]: line for line in box.verb("manifest", "--run", "digits")["files"]}
    there = {f"c1/a1/{path.name}" for path in (log, Path(f"{log}.1")) if path.exists()}
    assert there <= set(home)
    assert {home[path]["role"] for path in there} == {"log"}


def test_a_failed_cell_does_not_keep_the_others_from_running(box: SupervisedBox) -> None:
    box.register(cells=[{"id": "c1", "args": ["--exit-code", "3"]}, {"id": "c2"}])
    box.verb("start")
    run = box.await_state("failed")
    assert [cell["state"] for cell in run["cells"]] == ["failed", "done"]


@pytest.mark.parametrize(
    ("changes", "wrapper", "word"),
    [
        ({"command": ["no-such-program"]}, 12, "no-such-program"),
        ({"env_file": "/nonexistent/secrets.env"}, 11, "secrets.env"),
        ({"workdir": "/nonexistent"}, 11, "/nonexistent"),
    ],
)
def test_a_cell_that_cannot_start_says_why_and_starts_once_it_can(
    box: SupervisedBox, changes: dict[str, Any], wrapper: int, word: str
) -> None:
    box.register(**changes)
    box.verb("start")
    cell = box.await_state("failed")["cells"][0]
    assert cell["exit"]["wrapper"] == wrapper
    assert word in cell["why"]
    box.await_no_daemon()
    box.register()
    # The world failed, not the work: a plain start tries again.
    box.verb("start")
    assert box.await_state("done")["cells"][0]["attempt"] == 2


# --- gates and copies ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [{"min_free_bytes": 2**60}, {"min_free_inodes": 2**50, "min_free_bytes": 0}])
def test_too_little_disk_blocks_before_the_cell(box: SupervisedBox, limits: dict[str, int]) -> None:
    if box.verb("status")["disk"]["free_inodes"] is None and "min_free_inodes" in limits:
        pytest.skip("NOT RUN: this file system does not count inodes")
    box.register(limits=limits)
    code, answer = box.ask("start")
    assert (code, answer["kind"]) == (13, "disk")
    run = box.run()
    assert (run["state"], run["exit"]) == ("blocked", 13)
    assert attempts(box) == []
    box.register(limits={"min_free_bytes": 0})
    box.verb("start")
    box.await_state("done")


def event_of(step: int) -> bytes:
    """A record of an event file: the scalar ``loss`` at ``step``."""
    value = b"\x0a\x04loss\x15" + struct.pack("<f", 0.5)
    summary = b"\x0a" + bytes([len(value)]) + value
    data = b"\x10" + bytes([step]) + b"\x2a" + bytes([len(summary)]) + summary
    length = struct.pack("<Q", len(data))
    checked = [part + struct.pack("<I", tfevents.masked_crc(part)) for part in (length, data)]
    return b"".join(checked)


def leaves_at(step: int | None, source: str) -> dict[str, Any]:
    """A run whose trainer leaves at ``step`` of ten and tells so where ``source`` looks."""
    if source == "tensorboard":
        events = b"" if step is None else event_of(step)
        code = (
            f"import os; os.chdir(os.environ['TENANT_OUTPUT_DIR']); open('{tfevents.PREFIX}1', 'wb').write({events!r})"
        )
        return {"command": ["python", "-c", code], "progress": {"source": source, "total_steps": 10}}
    if source == "regex":
        code = f"print({'nothing' if step is None else f'step {step}/10'!r})"
        pattern = r"step (?P<step>\d+)/(?P<total>\d+)"
        return {"command": ["python", "-c", code], "progress": {"source": source, "pattern": pattern}}
    line = json.dumps({"steps": 10} if step is None else {"step": step, "steps": 10})
    return {"command": ["python", "-c", f"import os; open(os.environ['TENANT_METRICS'], 'w').write('{line}\\n')"]}


@pytest.mark.parametrize("source", ["metrics", "tensorboard", "regex"])
@pytest.mark.parametrize(("step", "state"), [(4, "failed"), (5, "done"), (None, "done")])
def test_law_1_a_trainer_that_leaves_long_before_its_last_step_is_not_done(
    box: SupervisedBox, step: int | None, state: str, source: str
) -> None:
    box.register(artifacts=[], **leaves_at(step, source))
    box.verb("start")
    cell = box.await_state(state)["cells"][0]
    assert attempts(box) == [1], "what it did once it would do again"
    if state == "failed":
        assert cell["exit"] == {"wrapper": 20, "child": 0}
        assert cell["why"] == "suspicious: it ended with exit code 0 at step 4 of 10"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SupervisedBox]:
    """A box whose data disk has 4 MiB and 400 inodes."""
    data = tmp_path / "data"
    data.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m,nr_inodes=400", "tmpfs", str(data)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("NOT RUN: mounting a small file system needs root")
    try:
        with supervised_box(tmp_path) as made:
            yield made
    finally:
        subprocess.run(["umount", str(data)], check=True)


@pytest.mark.parametrize("what", ["bytes", "inodes"])
def test_a_trainer_that_fills_the_disk_is_recorded_and_continued(small_disk: SupervisedBox, what: str) -> None:
    filler = small_disk.workdir / "fill.py"
    filler.write_text(
        "import os, sys\n"
        "out = os.environ['TENANT_OUTPUT_DIR']\n"
        "if os.path.exists(sys.argv[2]): sys.exit(0)\n"
        "number = 0\n"
        "while True:\n"
        "    number += 1\n"
        "    with open(f'{out}/{number if sys.argv[1] == \"inodes\" else 0}', 'ab') as stream:\n"
        "        stream.write(b'x' * (65536 if sys.argv[1] == 'bytes' else 0))\n"
    )
    enough = small_disk.folder / "enough"
    small_disk.register(
        command=["python", "fill.py", what, str(enough)],
        artifacts=[],
        cells=[{"id": "c1"}, {"id": "c2"}],
        limits={"min_free_bytes": 2**20, "min_free_inodes": 100},
    )
    small_disk.verb("start")
    run = small_disk.await_state("blocked")
    # The first cell's end is on the full disk, in the blocks that its shim had kept back; the second did not start.
    assert run["cells"][0]["exit"] == {"wrapper": 13, "child": 1}
    assert f"0 {what} are free" in run["cells"][0]["why"]
    assert (run["cells"][1]["attempt"], run["exit"]) == (0, 13)
    small_disk.await_no_daemon()
    assert small_disk.ask("start")[0] == 13
    for path in Path(small_disk.paths().output).iterdir():
        if path.is_file():
            path.unlink()
    enough.touch()
    small_disk.verb("start")
    run = small_disk.await_state("done")
    assert [cell["attempt"] for cell in run["cells"]] == [2, 1]


def test_the_end_is_recorded_where_no_temporary_file_can_be_made(small_disk: SupervisedBox) -> None:
    """A box whose only disk the trainer has filled: the kernel's log is asked, and there is nothing to write on."""
    tools = small_disk.folder / "tools"
    tools.mkdir()
    (tools / "dmesg").write_text("#!/bin/sh\necho '[ 1.0] nothing of interest'\n")
    (tools / "dmesg").chmod(0o755)
    filler = small_disk.workdir / "fill.py"
    filler.write_text(
        "import os, sys\n"
        "with open(os.path.join(os.environ['TENANT_OUTPUT_DIR'], 'all'), 'ab', buffering=0) as stream:\n"
        "    while True: stream.write(b'x' * 4096)\n"
    )
    small_disk.register(command=["python", "fill.py"], artifacts=[])
    # Of this one's view only: the data disk is another mount, and stays as it is.
    read_only = f'mount -o remount,ro,bind / && export PATH="{tools}:$PATH" && exec "$@"'
    start = ["unshare", "--mount", "/bin/sh", "-c", read_only, "sh", *small_disk.argv("start")]
    done = subprocess.run(start, capture_output=True, text=True, check=False)
    if "unshare failed" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"NOT RUN: no mount namespace of its own: {done.stderr.strip()}")
    assert done.returncode == 0, done.stdout + done.stderr
    wait_for("the record of its end", lambda: os.path.exists(small_disk.paths().exit))
    ended = attempt.read(small_disk.paths().exit, "exit")
    assert (ended["wrapper"], ended["child"], ended["cause"]) == (13, 1, "exit"), small_disk.log()
    assert ended["failure"]["class"] == "disk_full"
    small_disk.await_no_daemon()


@pytest.mark.parametrize("verb", ["stop", "seal"])
@pytest.mark.parametrize("what", ["bytes", "inodes"])
def test_law_6_a_trainer_that_keeps_the_disk_full_can_be_stopped(
    small_disk: SupervisedBox, what: str, verb: str
) -> None:
    filler, full = small_disk.workdir / "fill.py", small_disk.folder / "full"
    filler.write_text(
        "import os, signal, sys, time\n"
        "out, number = os.environ['TENANT_OUTPUT_DIR'], 0\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(30))\n"
        "while True:\n"
        "    try:\n"
        "        number += 1\n"
        "        with open(f'{out}/{number if sys.argv[1] == \"inodes\" else 0}', 'ab') as stream:\n"
        "            stream.write(b'x' * (4096 if sys.argv[1] == 'bytes' else 0))\n"
        "    except OSError:\n"
        "        open(sys.argv[2], 'w').close()\n"
        "        signal.pause()\n"
    )
    small_disk.register(command=["python", "fill.py", what, str(full)], artifacts=[])
    small_disk.verb("start")
    wait_for("a full disk", full.exists)
    # With an epoch, as the controller asks: its record too is written before any signal.
    code, answer = small_disk.ask("--epoch", "7", verb, *(["--stop"] if verb == "seal" else []))
    assert process.observe(attempt.trainer_of(small_disk.paths())) != process.ALIVE, answer
    if verb == "stop":
        assert (code, answer["stopped_cells"]) == (0, ["digits/c1"])
        small_disk.await_no_daemon()
        assert small_disk.run()["stopped"]
        assert attempts(small_disk) == [1]


@pytest.fixture
def other_disk() -> Iterator[Path]:
    if not os.path.isdir("/dev/shm"):
        pytest.skip("NOT RUN: no second file system to mount durable storage from")
    folder = tempfile.mkdtemp(dir="/dev/shm")
    yield Path(folder)
    shutil.rmtree(folder)


def test_the_durable_copy_is_read_back_before_the_word_synced(box: SupervisedBox, other_disk: Path) -> None:
    box.register(durable={"kind": "mount", "path": str(other_disk)})
    box.verb("start")
    cell = box.await_state("done")["cells"][0]
    assert cell["durable"] == "synced"
    copy = other_disk / "vision" / "digits" / "b1" / "g1" / "c1" / "a1"
    done = records.read_record(box.paths().done, "done")
    assert done["durable"] == {"kind": "mount", "state": "synced", "path": str(copy)}
    for line in done["artifacts"]:
        assert records.sha256_file(str(copy / Path(line["path"]).relative_to("c1/a1"))) == line["sha256"]
    assert (copy / "done.json").read_bytes() == Path(box.paths().done).read_bytes()
    assert not list(other_disk.rglob("*.part"))


def test_a_failed_copy_is_repeated_without_training_again(box: SupervisedBox, other_disk: Path) -> None:
    blocked = other_disk / "vision/digits/b1/g1/c1/a1/out/model.pt"
    blocked.mkdir(parents=True)  # a folder where the file should be
    box.register(durable={"kind": "mount", "path": str(other_disk)})
    box.verb("start")
    cell = box.await_state("failed")["cells"][0]
    assert cell["exit"] == {"wrapper": 21, "child": 0}
    assert "synced" not in json.dumps(box.verb("status"))
    box.await_no_daemon()
    blocked.rmdir()
    assert box.verb("start")["changed"]
    assert box.await_state("done")["cells"][0]["durable"] == "synced"
    assert attempts(box) == [1]


def test_a_folder_is_no_mount(box: SupervisedBox) -> None:
    not_mounted = box.folder / "durable"
    not_mounted.mkdir()
    box.register(durable={"kind": "mount", "path": str(not_mounted)})
    code, answer = box.ask("start")
    assert code == 13
    assert "nothing is mounted" in answer["error"]
    assert list(not_mounted.iterdir()) == []


def test_law_1_a_folder_on_the_disk_of_the_system_is_no_mount_for_a_box_with_a_data_disk(
    other_disk: Path, tmp_path: Path
) -> None:
    """Two disks, and neither is a durable one: what was copied there would be called synced and die with the box."""
    not_mounted = tmp_path / "durable"
    not_mounted.mkdir()
    if os.stat(not_mounted).st_dev != os.stat("/").st_dev:
        pytest.skip("NOT RUN: the folder of the tests is not on the disk of the system")
    with supervised_box(other_disk) as box:
        box.register(durable={"kind": "mount", "path": str(not_mounted)})
        code, answer = box.ask("start")
        assert (code, attempts(box)) == (13, [])
        assert "nothing is mounted" in answer["error"]
        assert list(not_mounted.iterdir()) == []


# --- stop, hold, seal, fence --------------------------------------------------------------------------------------


def test_sigterm_to_the_supervisor_saves_and_leaves(any_box: SupervisedBox) -> None:
    any_box.register_held()
    any_box.verb("start")
    any_box.await_trainer()
    os.kill(any_box.daemon().pid, signal.SIGTERM)
    any_box.await_no_daemon()
    cell = any_box.cell()
    assert (cell["state"], cell["exit"]) == ("preempted", {"wrapper": 30, "child": 30})
    any_box.verb("start")
    assert any_box.await_state("done")["cells"][0]["attempt"] == 2


def test_a_stopped_run_stays_stopped_until_a_start(box: SupervisedBox) -> None:
    box.register_held(retries={"max": 0})
    box.verb("start")
    box.await_trainer()
    assert box.verb("stop", "--run", "digits")["stopped_cells"] == ["digits/c1"]
    box.await_no_daemon()
    assert box.run()["state"] == "preempted"
    assert not box.verb("stop")["changed"]
    assert not box.verb("resume-all")["changed"]
    assert attempts(box) == [1]
    assert box.verb("start")["changed"]
    assert box.await_state("done")["cells"][0]["attempt"] == 2


def test_a_trainer_that_ignores_sigterm_is_killed_after_the_grace(box: SupervisedBox) -> None:
    command = ["python", "train.py", "--steps", "3", "--hold-at", "2", "--gate", str(box.gate), "--on-term", "ignore"]
    box.register(command=command, retries={"max": 0})
    box.verb("start")
    trainer = box.await_trainer()
    box.verb("stop", "--grace-s", "0.5")
    assert process.observe(trainer) != process.ALIVE
    cell = box.cell()
    assert (cell["state"], cell["exit"]) == ("preempted", {"wrapper": 30, "child": -9})


@pytest.mark.parametrize("with_shim", [True, False])
def test_leaving_with_zero_when_asked_to_stop_is_not_the_end(box: SupervisedBox, with_shim: bool) -> None:
    command = ["python", "train.py", "--steps", "3", "--hold-at", "2", "--gate", str(box.gate), "--on-term", "leave"]
    box.register(command=command, retries={"max": 0})
    box.verb("start")
    box.await_trainer()
    box.kill(box.daemon())
    if not with_shim:
        box.kill(attempt.shim_of(box.paths()))
    box.verb("stop")
    assert box.run()["state"] == "preempted"
    box.verb("start")
    assert box.await_state("done")["cells"][0]["attempt"] == 2


def test_a_hold_survives_and_is_lifted_by_a_start(box: SupervisedBox) -> None:
    box.register_held(cells=[{"id": "c1"}, {"id": "c2"}])
    box.verb("start")
    box.await_trainer()
    assert box.verb("hold")["changed"]
    assert not box.verb("hold")["changed"]
    box.release()
    # The live cell went on to its end; the next one does not start.
    box.await_no_daemon()
    assert [cell["state"] for cell in box.run()["cells"]] == ["done", "queued"]
    assert box.verb("resume-all") == {"changed": False, "reason": "the box is on hold"}
    box.verb("start")
    box.await_trainer(number=1)
    wait_for("c2 at the gate", lambda: os.path.exists(box.paths(1, "c2").metrics))
    box.release()
    box.await_state("done")


def test_a_sealed_box_refuses_to_work(box: SupervisedBox) -> None:
    box.register_held()
    box.verb("start")
    box.await_trainer()
    code, answer = box.ask("seal")
    assert (code, answer["kind"]) == (17, "live")
    assert box.verb("status")["desired"] == "run"
    assert box.verb("--check", "seal", "--stop")["changed"]
    assert not os.path.exists(box.layout.seal)
    sealed = box.verb("seal", "--stop")
    assert sealed["changed"]
    assert [run["state"] for run in sealed["seal"]["runs"]] == ["preempted"]
    assert box.verb("status")["sealed"]
    for words in (["start"], ["register", "--run-file", "-"]):
        code, answer = box.ask(*words, stdin=json.dumps(box.run_record(run_id="other")))
        assert (code, answer["kind"]) == (16, "sealed")
        assert box.layout.seal in answer["error"]
    assert not box.verb("seal")["changed"]
    assert box.verb("resume-all") == {"changed": False, "reason": "the box is sealed"}
    assert box.verb("unseal")["changed"]
    assert box.verb("resume-all") == {"changed": False, "reason": "the box is on hold"}
    box.verb("start")
    assert box.await_state("done")["cells"][0]["attempt"] == 2


def test_the_seal_carries_the_digest_of_every_manifest(box: SupervisedBox) -> None:
    box.register()
    box.register(run_id="second", spec_sha256="c" * 64, command=["python", "train.py", "--exit-code", "1"])
    box.verb("start")
    box.await_state("done")
    box.await_state("failed", "second")
    seal = box.verb("seal")["seal"]
    for run in seal["runs"]:
        manifest = box.verb("manifest", "--run", run["run_id"])
        covered = {key: manifest[key] for key in ("project", "run_id", "generation", "files")}
        assert run["manifest_digest"] == manifest["digest"] == records.digest(covered)
        for line in manifest["files"]:
            path = os.path.join(box.layout.run_dir(run["run_id"]), line["path"])
            assert records.sha256_file(path) == line["sha256"]
    failed = box.verb("manifest", "--run", "second")
    # A run that failed has evidence too: how far it came, and why.
    assert {os.path.basename(line["path"]) for line in failed["files"]} == {
        "step-0000000003.pt",
        "metrics.jsonl",
        "run.log",
    }
    assert (failed["state"], failed["snapshot"]) == ("failed", False)


def test_a_finished_artifact_that_changed_is_noticed(box: SupervisedBox) -> None:
    box.register()
    box.verb("start")
    box.await_state("done")
    box.await_no_daemon()
    model = Path(box.paths().output, "model.pt")
    data = bytearray(model.read_bytes())
    data[-1] ^= 1
    model.write_bytes(data)
    code, answer = box.ask("seal")
    assert code == 22
    assert "model.pt" in answer["error"]
    assert not os.path.exists(box.layout.seal)


def test_the_fence_lets_only_the_newest_lease_pass(box: SupervisedBox) -> None:
    record = json.dumps(box.run_record())
    box.verb("--epoch", "5", "register", "--run-file", "-", stdin=record)
    for words in (["start"], ["stop"], ["hold"], ["seal"], ["unseal"], ["resume-all"], ["register", "--run-file", "-"]):
        code, answer = box.ask("--epoch", "4", *words, stdin=record)
        assert (code, answer["kind"]) == (14, "held"), words
        assert "epoch 5" in answer["error"]
    assert box.verb("status")["epoch"] == 5
    box.verb("--epoch", "7", "hold")
    assert box.verb("status")["epoch"] == 7
    assert box.ask("--epoch", "6", "start")[0] == 14
    # What the box runs by itself at its start has no lease.
    box.verb("resume-all")


# --- snapshots ----------------------------------------------------------------------------------------------------


def test_a_snapshot_of_a_live_run_is_stable_while_it_trains_on(box: SupervisedBox) -> None:
    box.register_held(hold_at=3, steps=5)
    box.verb("start")
    box.await_trainer(step=3)
    # A newer checkpoint that is cut short must not be taken.
    whole = Path(box.paths().checkpoints, "step-0000000003.pt")
    Path(box.paths().checkpoints, "step-0000000009.pt").write_bytes(whole.read_bytes()[:-30])
    assert box.ask("manifest", "--run", "digits")[0] == 17
    manifest = box.verb("manifest", "--run", "digits", "--snapshot")
    assert manifest["snapshot"] is True
    assert [line["path"] for line in manifest["files"]] == [
        "c1/a1/out/checkpoints/step-0000000003.pt",
        "c1/a1/snapshot/metrics.jsonl",
    ]
    os.unlink(Path(box.paths().checkpoints, "step-0000000009.pt"))
    box.release()
    box.await_state("done")
    # A trainer that keeps few checkpoints removes this one while it is copied.
    whole.unlink()
    for line in manifest["files"]:
        assert records.sha256_file(os.path.join(box.layout.held("digits"), line["path"])) == line["sha256"]


def test_check_mode_of_a_snapshot_leaves_no_copy(box: SupervisedBox) -> None:
    box.register_held()
    box.verb("start")
    box.await_trainer()
    looked = box.verb("--check", "manifest", "--run", "digits", "--snapshot")
    assert not os.path.exists(box.paths().frozen_metrics)
    assert not os.path.exists(box.layout.held("digits"))
    assert looked["digest"] == box.verb("manifest", "--run", "digits", "--snapshot")["digest"]


# --- registering --------------------------------------------------------------------------------------------------


def test_another_spec_waits_for_the_live_cell(box: SupervisedBox) -> None:
    box.register_held()
    box.verb("start")
    box.await_trainer()
    code, answer = box.ask("register", "--run-file", "-", stdin=json.dumps(box.run_record(spec_sha256="d" * 64)))
    assert (code, answer["kind"]) == (17, "live")
    box.verb("stop")
    assert box.register(spec_sha256="d" * 64)["changed"]
    box.verb("start")
    cell = box.await_state("done")["cells"][0]
    # Other work: it starts from nothing, under a new number, and what was there stays evidence.
    assert (cell["attempt"], cell["resumed_from_step"]) == (2, None)
    paths = [line["path"] for line in box.verb("manifest", "--run", "digits")["files"]]
    assert "c1/a1/out/checkpoints/step-0000000002.pt" in paths
    assert "c1/a2/out/model.pt" in paths


def test_a_finished_cell_is_bound_to_its_spec(box: SupervisedBox) -> None:
    for spec, known in (("a", [1]), ("d", [1, 2]), ("a", [1, 2])):
        box.register(spec_sha256=spec * 64)
        box.verb("start")
        box.await_state("done")
        box.await_no_daemon()
        assert attempts(box) == known


def test_cells_may_be_added_behind_a_live_one_and_nothing_else_may_change(box: SupervisedBox) -> None:
    """The queue is append-only while it lives; who is done and who lives is not asked to work again."""
    cells = [{"id": "c1", "args": [], "seed": 5}, {"id": "c2", "args": ["--hold-at", "2"], "seed": 6}]
    more = [*cells, {"id": "c3", "args": [], "seed": 7}]
    work = {"work_sha256": "e" * 64, "command": ["python", "train.py", "--steps", "4", "--gate", str(box.gate)]}
    box.register(cells=cells, **work)
    box.verb("start")
    wait_for("the second cell to hold", lambda: box.cell("c2").get("step") == 2)
    daemon = box.daemon()
    other = [dict(cells[0], args=["--steps", "3"]), *more[1:]]
    for changes in (
        {"cells": [more[1], more[0], more[2]]}, {"cells": other}, {"cells": [more[2], *cells]}, {"cells": cells[1:]},
        {"cells": more, "work_sha256": "f" * 64}, {"cells": more, "code_sha256": "c" * 64},
    ):  # fmt: skip
        record = box.run_record(**{**work, "spec_sha256": "d" * 64, **changes})
        code, answer = box.ask("register", "--run-file", "-", stdin=json.dumps(record))
        assert (code, answer["kind"]) == (17, "live")
        assert "behind the known ones" in answer["fix"]
    assert box.register(cells=more, spec_sha256="d" * 64, **work)["changed"]
    assert box.daemon() == daemon
    box.release()
    run = box.await_state("done")
    assert [(cell["cell"], cell["attempt"], cell["step"]) for cell in run["cells"]] == [
        ("c1", 1, 4), ("c2", 1, 4), ("c3", 1, 4),
    ]  # fmt: skip
    box.await_no_daemon()
    assert "QUEUE_OK 3 of 3 done" in box.log()
    built = box.verb("manifest", "--run", "digits")
    assert built["spec_sha256"] == "d" * 64
    assert {f"{cell}/a1/done.json" for cell in ("c1", "c2", "c3")} <= {line["path"] for line in built["files"]}
    # A cell that does change is another work, and the only one.
    box.register(cells=other, spec_sha256="9" * 64, **work)
    box.verb("start")
    box.await_state("done")
    assert [attempts(box, cell) for cell in ("c1", "c2", "c3")] == [[1, 2], [1], [1]]


def test_a_disk_that_moves_to_a_new_generation_goes_on(box: SupervisedBox) -> None:
    box.register_held()
    box.verb("start")
    box.await_trainer()
    box.verb("seal", "--stop")
    assert box.ask("register", "--run-file", "-", stdin=json.dumps(box.run_record()))[0] == 16
    command = records.read_record(box.layout.run_record("digits"), "run")["command"]
    assert box.register(generation=2, provider_id="78", command=command)["changed"]
    code, answer = box.ask("register", "--run-file", "-", stdin=json.dumps(box.run_record(command=command)))
    assert (code, answer["kind"]) == (15, "mismatch")
    assert box.verb("status")["generation"] == 2
    box.verb("start")
    assert box.await_state("done")["cells"][0]["resumed_from_step"] == 2
    assert box.verb("manifest", "--run", "digits")["generation"] == 2


@pytest.mark.parametrize(
    "words",
    [[], ["dance"], ["stop", "--grace-s", "soon"], ["manifest"], ["--epoch", "-1", "start"], ["start"], ["seal"]],
)
def test_bad_usage_is_answered_in_json(box: SupervisedBox, words: list[str]) -> None:
    code, answer = box.ask(*words)
    assert (code, answer["exit"]) == (10, 10)
    assert answer["error"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"run_id": "../x"}', '{"run_id": "r", "project": "p", "box": "b", "cells": 3}']
)
def test_a_bad_run_record_is_refused_and_leaves_nothing(box: SupervisedBox, text: str) -> None:
    code, answer = box.ask("register", "--run-file", "-", stdin=text)
    assert (code, answer["kind"]) == (10, "usage")
    assert not (box.root / "runs").exists()


def test_before_deploy_nothing_happens(box: SupervisedBox) -> None:
    assert box.verb("resume-all") == {"changed": False, "reason": "nothing is deployed"}
    assert box.verb("status")["runs"] == []
    assert not box.root.exists()
    assert box.verb("--check", "register", "--run-file", "-", stdin=json.dumps(box.run_record()))["changed"]
    assert not box.root.exists()


# --- detaching ----------------------------------------------------------------------------------------------------


def test_the_supervisor_survives_the_session_that_started_it(box: SupervisedBox) -> None:
    box.register_held()
    login = subprocess.Popen(
        ["sh", "-c", '"$@"; exec cat', "sh", *box.argv("start")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    trainer = box.await_trainer()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(login.pid, signal.SIGHUP)
        os.killpg(login.pid, signal.SIGKILL)
    login.communicate()
    daemon = box.daemon()
    assert process.observe(daemon) == process.ALIVE
    assert os.getsid(daemon.pid) != login.pid
    for number in (0, 1):
        assert os.readlink(f"/proc/{daemon.pid}/fd/{number}") == "/dev/null"
    assert process.observe(trainer) == process.ALIVE
    box.release()
    box.await_state("done")


def test_tmux_is_another_way_to_detach(box: SupervisedBox) -> None:
    if shutil.which("tmux") is None:
        if os.environ.get("CI"):
            pytest.fail("NOT RUN: no tmux")
        pytest.skip("NOT RUN: no tmux")
    box.register_held()
    assert box.verb("start", "--detach", "tmux")["changed"]
    box.await_trainer()
    assert not box.verb("start", "--detach", "tmux")["changed"]
    box.release()
    box.await_state("done")
    box.await_no_daemon()


def test_variables_reach_a_cell_in_a_tmux_server_that_is_older(
    box: SupervisedBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("tmux") is None:
        if os.environ.get("CI"):
            pytest.fail("NOT RUN: no tmux")
        pytest.skip("NOT RUN: no tmux")
    server = ["tmux", "-L", detach.unit_name(str(box.root))]
    old = {"PATH": os.environ["PATH"], "OF_THE_LOGIN": "old", "OF_THE_RUN": "old"}
    subprocess.run([*server, "new-session", "-d", "-s", "older", "--", "sleep", "600"], env=old, check=True)
    try:
        monkeypatch.setenv("OF_THE_LOGIN", "a b;c")
        secrets = box.folder / "secrets.env"
        secrets.write_text("OF_THE_SECRETS=s3\n")
        secrets.chmod(0o600)
        box.register_held(env={"OF_THE_RUN": "new"}, env_file=str(secrets))
        box.verb("start", "--detach", "tmux")
        trainer = box.await_trainer()
        found = dict(
            line.split("=", 1) for line in Path(f"/proc/{trainer.pid}/environ").read_text().split("\0") if "=" in line
        )
        assert (found["OF_THE_LOGIN"], found["OF_THE_RUN"], found["OF_THE_SECRETS"]) == ("a b;c", "new", "s3")
        box.release()
        box.await_state("done")
    finally:
        subprocess.run([*server, "kill-server"], check=False, capture_output=True)


def test_detach_none_starts_nothing(box: SupervisedBox) -> None:
    box.register()
    assert not box.verb("start", "--detach", "none")["changed"]
    assert box.run()["state"] == "queued"
    # The platform's own job does.
    box.verb("resume-all")
    box.await_state("done")
