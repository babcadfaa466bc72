# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Bad input and a bad world, on the real supervisor: each ends in a clear, recorded outcome, and nothing is lost."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils.box import attempt, records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.run_spec import load_run_spec, run_record
from metadata_server import metadata_service
from supervised_box import SupervisedBox, supervised_box, wait_for

pytestmark = pytest.mark.integration

HELPER = Path(__file__).parents[2] / "roles" / "deploy" / "files"
TRAINER = Path(__file__).with_name("helper_trainer.py")
JUMPER = Path(__file__).with_name("clock_jumper.c")
DAY_S = 86400


@pytest.fixture
def box(tmp_path: Path) -> Iterator[SupervisedBox]:
    with supervised_box(tmp_path) as made:
        yield made


def attempts(box: SupervisedBox, cell: str = "c1") -> list[int]:
    return list(box.layout.attempt_numbers("digits", cell))


# --- the queue ------------------------------------------------------------------------------------------------------

QUEUE = {
    "id": "digits",
    "command": ["python", "train.py", "--steps", "2"],
    "cells": [{"id": f"c{number}", "args": ["--exit-code", "0"], "seed": number} for number in (1, 2, 3)],
    "artifacts": [{"glob": "model.pt", "role": "other", "loader": "torch"}],
    "resources": {"limits": {"min_free_bytes": 0, "min_free_inodes": 0}},
}


def queued(box: SupervisedBox, text: bytes) -> dict[str, Any]:
    """The record that the text of a run spec becomes, for this box."""
    job = box.folder / "job"
    job.mkdir(exist_ok=True)
    shutil.copy(box.workdir / "train.py", job / "train.py")
    (job / "run.yml").write_bytes(text)
    known = {"name": "b1", "tenant_root": str(box.root), "python": box.python}
    spec = load_run_spec(str(job / "run.yml"))
    record = run_record(spec, {"generation": 1, "provider_id": "77"}, "vision", known)
    shutil.copytree(job, box.root / "code" / spec["code_sha256"], dirs_exist_ok=True)
    return record


@pytest.mark.parametrize("kind", ["CRLF", "no final newline", "CRLF and no final newline", "byte order mark"])
def test_every_cell_of_a_queue_written_elsewhere_runs(box: SupervisedBox, kind: str) -> None:
    text = yaml.safe_dump(QUEUE)
    assert text.endswith("\n")
    if "final newline" in kind:
        text = text.rstrip("\n")
    if "CRLF" in kind:
        text = text.replace("\n", "\r\n")
    record = queued(box, (b"\xef\xbb\xbf" if "mark" in kind else b"") + text.encode())
    assert "\\r" not in json.dumps(record)
    assert [cell["id"] for cell in record["cells"]] == ["c1", "c2", "c3"]
    # The supervisor is given the record in the same guise.
    stdin = json.dumps(record, indent=1).replace("\n", "\r\n" if "CRLF" in kind else "\n")
    box.verb("register", "--run-file", "-", stdin=stdin)
    box.verb("start")
    run = box.await_state("done")
    assert [(cell["cell"], cell["state"]) for cell in run["cells"]] == [("c1", "done"), ("c2", "done"), ("c3", "done")]


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ([{"id": "c1"}, {"id": "c1"}], "'c1'"),
        ([{"id": "c1", "arguments": ["--lr"]}], "arguments"),
        ([], "empty"),
        ([{"id": "c1\r"}], "usable name"),
        ([{"id": "../c1"}], "usable name"),
        ([{"args": ["--lr"]}], "id"),
    ],
)
def test_a_queue_that_means_two_things_is_refused_before_anything_is_rented(
    box: SupervisedBox, cells: list[Any], said: str
) -> None:
    with pytest.raises(TenantFailure, match=r"line [0-9]+") as refused:
        queued(box, yaml.safe_dump({**QUEUE, "cells": cells}).encode())
    assert (refused.value.exit_code, refused.value.safe) == (10, "nothing was rented and nothing was started")
    assert said in refused.value.what
    with pytest.raises(TenantFailure, match="unknown key 'cels'"):
        queued(box, yaml.safe_dump({**QUEUE, "cels": cells}).encode())


def test_the_box_refuses_such_a_queue_too_and_ignores_keys_of_a_later_version(box: SupervisedBox) -> None:
    for cells in ([{"id": "c1"}, {"id": "c1"}], [], [{"id": "c1\r"}]):
        code, answer = box.ask("register", "--run-file", "-", stdin=json.dumps(box.run_record(cells=cells)))
        assert (code, answer["kind"]) == (10, "usage")
        assert "cells" in answer["error"] or "usable name" in answer["error"]
    assert box.verb("status")["runs"] == []
    assert box.register(of_a_later_version={"x": 1})["changed"]
    box.verb("start")
    box.await_state("done")


def test_a_cell_that_reads_stdin_takes_nothing_from_the_others(box: SupervisedBox) -> None:
    reader = box.workdir / "reader.py"
    reader.write_text("import sys\nprint('read', repr(sys.stdin.read()))\nexec(open('train.py').read())\n")
    box.register(command=["python", "reader.py"], cells=[{"id": name} for name in ("c1", "c2", "c3")])
    # What feeds the queue is no cell's stdin either.
    done = subprocess.run(box.argv("start"), input="c4\nc5\n", capture_output=True, text=True, timeout=600, check=True)
    assert json.loads(done.stdout)["changed"]
    run = box.await_state("done")
    assert [cell["state"] for cell in run["cells"]] == ["done"] * 3
    for name in ("c1", "c2", "c3"):
        assert "read ''" in box.verb("log", "--run", "digits", "--cell", name)["lines"][0]


@pytest.mark.parametrize("words", [["start", "--run", "c99"], ["drill", "--run", "digits", "--cell", "c99"]])
def test_what_lies_past_the_end_of_the_queue_is_refused_and_no_success(box: SupervisedBox, words: list[str]) -> None:
    box.register()
    code, answer = box.ask(*words)
    assert (code, answer["kind"]) == (10, "usage")
    assert "c99" in answer["error"]
    assert (box.run()["state"], attempts(box)) == ("queued", [])


def test_words_of_success_in_the_log_are_not_believed(box: SupervisedBox) -> None:
    boast = box.workdir / "boast.py"
    boast.write_text("print('QUEUE DONE\\nall 3 exited 0\\nsynced best.pth to durable storage\\nTraining complete!')\n")
    box.register(command=["python", "boast.py"], cells=[{"id": "c1"}, {"id": "c2"}])
    box.verb("start")
    run = box.await_state("failed")
    assert [(cell["state"], cell["exit"]["wrapper"]) for cell in run["cells"]] == [("failed", 20), ("failed", 20)]
    box.await_no_daemon()
    assert not list(box.root.rglob("done.json"))
    assert "synced" not in json.dumps(box.verb("status"))


# --- the same id, other work ----------------------------------------------------------------------------------------


def test_a_config_changed_under_a_done_id_is_another_run_or_refused(box: SupervisedBox) -> None:
    box.register()
    box.verb("start")
    box.await_state("done")
    box.await_no_daemon()
    done = Path(box.paths(1).done).read_bytes()
    # The hash says the same work, the cells say other work: somebody is confused.
    changed = box.run_record(cells=[{"id": "c1", "args": ["--steps", "5"], "seed": 5}])
    code, answer = box.ask("register", "--run-file", "-", stdin=json.dumps(changed))
    assert (code, answer["kind"]) == (15, "mismatch")
    assert "'cells'" in answer["error"]
    assert box.run()["state"] == "done"
    # Said honestly it is other work: done again, under a number of its own, from nothing.
    box.register(**{**changed, "spec_sha256": "d" * 64})
    assert box.run()["state"] == "queued"
    box.verb("start")
    cell = box.await_state("done")["cells"][0]
    assert (cell["attempt"], cell["step"], cell["resumed_from_step"]) == (2, 5, None)
    assert Path(box.paths(1).done).read_bytes() == done


# --- interpreters ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "wrapper", "said"),
    [
        ("absent", 12, "cannot be started"),
        ("a folder", 12, "cannot be started"),
        ("not executable", 12, "cannot be started"),
        ("another system's", 12, "cannot be started"),
        ("without the package", 40, "exit code 1"),
    ],
)
def test_a_wrong_interpreter_is_named_and_the_run_goes_on_with_the_right_one(
    box: SupervisedBox, kind: str, wrapper: int, said: str
) -> None:
    wrong = box.folder / "python-of-another-box"
    if kind == "a folder":
        wrong.mkdir()
    elif kind != "absent":
        wrong.write_text({"without the package": "#!/bin/sh\necho 'ModuleNotFoundError: torch' >&2\nexit 1\n"}.get(
            kind, "\x7fELF of another machine"
        ))  # fmt: skip
        wrong.chmod(0o644 if kind == "not executable" else 0o755)
    box.register(python=str(wrong))
    box.verb("start")
    cell = box.await_state("failed")["cells"][0]
    assert cell["exit"]["wrapper"] == wrapper
    assert said in cell["why"]
    recorded = attempt.read(box.paths(1).exit, "exit")
    assert (recorded["wrapper"], said in recorded["why"]) == (wrapper, True)
    box.await_no_daemon()
    box.register()
    box.verb("start", "--retry-failed")
    assert box.await_state("done")["cells"][0]["attempt"] == 2


# --- two supervisors ------------------------------------------------------------------------------------------------


def test_a_second_supervisor_leaves_the_first_and_its_cell_alone(box: SupervisedBox) -> None:
    box.register_held()
    box.verb("start")
    trainer, daemon = box.await_trainer(), box.daemon()
    for words in (["daemon"], ["shim", "--run", "digits", "--cell", "c1", "--attempt", "1"]):
        done = subprocess.run(box.argv(*words), capture_output=True, text=True, timeout=600, check=False)
        assert (done.returncode, json.loads(done.stdout)["kind"]) == (14, "held")
        assert "is held by another process" in done.stderr, "its log says it too"
    assert (box.daemon(), attempt.trainer_of(box.paths(1))) == (daemon, trainer)
    box.release()
    box.await_state("done")
    assert attempts(box) == [1]


# --- the disk in mid-save -------------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint_disk(box: SupervisedBox) -> Iterator[Path]:
    """A file system of its own for the output of the first attempt, mounted when the test asks for it."""
    place = box.folder / "small"
    place.mkdir()
    yield place
    subprocess.run(["umount", str(place)], check=False, capture_output=True)


def mount(place: Path, options: str) -> None:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("NOT RUN: mounting a file system needs root")


@pytest.mark.parametrize(
    ("what", "words"),
    [("inodes", "No space left on device"), ("bytes", "No space left on device"), ("unwritable", "Read-only")],
)
def test_a_disk_that_fails_in_mid_save_costs_that_save_only(
    box: SupervisedBox, checkpoint_disk: Path, what: str, words: str
) -> None:
    mount(checkpoint_disk, "size=2m,nr_inodes=40")
    shutil.copy(TRAINER, box.workdir / "train.py")
    place = checkpoint_disk / "checkpoints"
    # The script takes its folder from the environment: here it is one on the small disk.
    box.register(
        command=["sh", "-c", f"TENANT_CHECKPOINT_DIR={place} exec {box.python} train.py --steps 8 --save-every 1 "
                 f"--hold-at 3 --gate {box.gate}"],
        env={"PYTHONPATH": str(HELPER)},
        retries={"max": 0},
    )  # fmt: skip
    box.verb("start")
    # Two are kept, and the one before them is removed after the newest has its name.
    before = [f"step-{step:010d}.pt" for step in (2, 3)]
    wait_for("the save of step 3", lambda: sorted(path.name for path in place.glob("step-*.pt")) == before)
    fill(checkpoint_disk, what)
    box.release()
    cell = box.await_state("failed")["cells"][0]
    recorded = attempt.read(box.paths(1).exit, "exit")
    assert recorded["child"] == 1
    assert cell["state"] == "failed"
    said = [json.loads(line) for line in Path(box.paths(1).metrics).read_text().splitlines()]
    failed = next(line for line in said if "checkpoint_failed" in line)
    assert words in failed["checkpoint_failed"]
    assert failed["safe"] == str(place / before[-1])
    assert any("is safe" in line and "run the same command again" in line for line in log(box))
    # What was whole is whole, and nothing half-written has a checkpoint's name.
    assert sorted(path.name for path in place.glob("step-*.pt")) == before
    assert torch.load(place / before[-1], weights_only=True)["step"] == 3
    box.await_no_daemon()
    empty(checkpoint_disk, what)
    box.verb("start", "--retry-failed")
    cell = box.await_state("done")["cells"][0]
    assert (cell["attempt"], cell["resumed_from_step"]) == (2, 3)


def log(box: SupervisedBox) -> list[str]:
    lines: list[str] = box.verb("log", "--run", "digits", "--cell", "c1")["lines"]
    return lines


def fill(disk: Path, what: str) -> None:
    if what == "unwritable":
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        return
    with contextlib.suppress(OSError):
        for number in range(1000):
            (disk / f"filler-{number}").write_bytes(b"" if what == "inodes" else b"x" * 65536)


def empty(disk: Path, what: str) -> None:
    if what == "unwritable":
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    for path in disk.glob("filler-*"):
        path.unlink()


# --- the clock ------------------------------------------------------------------------------------------------------


@pytest.fixture
def jumping(box: SupervisedBox, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that moves the wall clock of everything that this box starts from now on."""
    library = box.folder / "clock_jumper.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(JUMPER)], check=True)
    offset = box.folder / "clock"
    offset.write_text("0")
    monkeypatch.setenv("LD_PRELOAD", str(library))
    monkeypatch.setenv("CLOCK_JUMP_FILE", str(offset))
    shown = subprocess.run([box.python, "-c", "import time; print(time.time())"], capture_output=True, check=True)
    assert abs(float(shown.stdout) - time.time()) < 60
    return offset


def status_of(box: SupervisedBox) -> dict[str, Any]:
    """Asked of the program, whose clock is the box's."""
    cell: dict[str, Any] = box.verb("status")["runs"][0]["cells"][0]
    return cell


@pytest.mark.parametrize("jump_s", [10 * DAY_S, -10 * DAY_S])
def test_a_clock_that_jumps_ends_nothing(box: SupervisedBox, jumping: Path, jump_s: int) -> None:
    box.register_held()
    box.verb("start")
    trainer = box.await_trainer()
    jumping.write_text(str(jump_s))
    now = records.parse_utc(box.verb("status")["box_now"]).timestamp()
    assert abs(now - time.time() - jump_s) < 300, "the clock of the box did not move"
    for _look in range(3):
        cell = status_of(box)
        assert cell["liveness"] in ("alive", "stalled")
        assert cell["running_s"] >= 0
        assert cell["idle_s"] >= 0
        assert not box.verb("start")["changed"]
        assert not box.verb("resume-all")["changed"]
    assert attempt.trainer_of(box.paths(1)) == trainer
    box.release()
    box.await_state("done")
    assert attempts(box) == [1]
    assert attempt.read(box.paths(1).exit, "exit")["seconds"] < 600, "the duration is not a difference of wall times"


@pytest.mark.parametrize("jump_s", [3600, -3600])
def test_a_wrong_clock_does_not_take_the_grace_of_a_notice(box: SupervisedBox, jumping: Path, jump_s: int) -> None:
    """The provider says when the machine ends by its own clock; by the box's that was an hour ago."""
    jumping.write_text(str(jump_s))
    with metadata_service() as service:
        box.register_held(preemption={"source": "aws_imds", "url": service.url}, grace_s=25)
        box.verb("start")
        box.await_trainer()
        service.aws_action = {
            "action": "terminate",
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 120)),
        }
        wait_for("the trainer to have saved", lambda: os.path.exists(box.paths(1).exit))
        ended = attempt.exit_facts(attempt.read(box.paths(1).exit, "exit"))
        assert ended is not None
        assert (ended.wrapper, ended.child) == (30, 30), "it was killed before it could save"
        assert attempt.read(box.paths(1).stop, "stop")["grace_s"] == 25
