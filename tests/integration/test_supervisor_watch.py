# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What the supervisor says while a trainer runs: progress by event files and by log lines, hanging tools, kills."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import attempt, process, run_record, shim
from supervised_box import PATIENCE_S, SupervisedBox, python38, supervised_box, wait_for

pytestmark = pytest.mark.integration

# Written by torch's SummaryWriter: 40 losses at steps 10 to 400.
EVENTS = Path(__file__).parents[1] / "unit" / "box" / "tfevents" / "simple_values.tfevents"
WRITES_EVENTS = """
import os, sys
events, gate = sys.argv[1:]
data = open(events, "rb").read()
folder = os.path.join(os.environ["TENANT_OUTPUT_DIR"], "tb", "run1")
os.makedirs(folder)
with open(os.path.join(folder, "events.out.tfevents.1795258667.host.1.0"), "wb", buffering=0) as stream:
    stream.write(data[:1000])
    open(gate).read()
    stream.write(data[1000:])
"""
PRINTS_LINES = """
import sys
for step in (10, 20):
    sys.stdout.write("\\r%d%%|##  | %d/40 [00:01, loss=0.%d]\\r" % (step, step, step))
    sys.stdout.flush()
    open(sys.argv[1]).read()
print("bye")
"""
PROVOKES_A_KILL = """
import subprocess, sys
open(sys.argv[1]).read()
grab = "held = bytearray(400 << 20); held[::4096] = b'x' * len(held[::4096])"
print("a worker ends with", subprocess.call([sys.executable, "-c", grab]))
"""


@pytest.fixture
def box(tmp_path: Path) -> Iterator[SupervisedBox]:
    with supervised_box(tmp_path) as made:
        yield made


@pytest.fixture(params=["this python", "python 3.8"])
def any_box(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SupervisedBox]:
    with supervised_box(tmp_path, sys.executable if request.param == "this python" else python38()) as made:
        yield made


def register(box: SupervisedBox, script: str, *arguments: str, **changes: Any) -> None:
    (box.workdir / "job.py").write_text(script)
    box.register(command=["python", "job.py", *arguments], artifacts=[], **changes)


def health(box: SupervisedBox) -> dict[str, Any]:
    return attempt.read(box.layout.health, "health")


def test_a_trainer_that_only_writes_event_files_is_followed(any_box: SupervisedBox) -> None:
    progress = {"source": "tensorboard", "total_steps": 400}
    register(any_box, WRITES_EVENTS, str(EVENTS), str(any_box.gate), progress=progress)
    any_box.verb("start")
    # The thousandth byte lies within a record.
    running = wait_for("a step from the event file", lambda: any_box.cell().get("step") and any_box.cell())
    assert (running["state"], running["steps"], running["progress_source"]) == ("running", 400, "tensorboard")
    assert 0 < running["step"] < 400
    assert (running["rate"], running["eta_s"], running["progress_problem"]) == (None, None, "")
    any_box.release()
    cell = any_box.await_state("done")["cells"][0]
    assert (cell["step"], cell["steps"], cell["eta_s"]) == (400, 400, None)
    assert cell["loss"] == pytest.approx(0.05)


def test_a_trainer_that_only_prints_is_followed_with_rate_and_time_left(any_box: SupervisedBox) -> None:
    progress = {"source": "regex", "pattern": r"(?P<step>\d+)/(?P<total>\d+) \[.*loss=(?P<loss>[\d.]+)\]"}
    register(any_box, PRINTS_LINES, str(any_box.gate), progress=progress)
    any_box.verb("start")
    wait_for("the first line", lambda: any_box.cell().get("step") == 10)
    any_box.release()
    cell = wait_for("a rate", lambda: any_box.cell().get("rate") and any_box.cell())
    assert (cell["step"], cell["steps"], cell["loss"]) == (20, 40, 0.2)
    # Ten steps between two looks that are ten seconds apart or more; the time left is that of 20 more.
    assert 0 < cell["rate"] <= 1
    assert cell["eta_s"] == pytest.approx(20 / cell["rate"], rel=0.01)
    asked = any_box.verb("status")["runs"][0]["cells"][0]
    assert (asked["step"], asked["progress_source"]) == (20, "regex")
    any_box.release()
    any_box.await_state("done")


def test_a_pattern_that_would_never_end_does_not_hold_the_supervisor(box: SupervisedBox) -> None:
    script = "import sys\nprint('a' * 60 + '!', flush=True)\nopen(sys.argv[1]).read()\nprint('x')\n"
    register(box, script, str(box.gate), progress={"source": "regex", "pattern": r"(a+)+(?P<step>\d)"})
    box.verb("start")
    cell = wait_for("the word on the pattern", lambda: box.cell().get("progress_problem") and box.cell())
    assert "needs more than" in cell["progress_problem"]
    assert (cell["state"], cell["step"]) == ("running", None)
    box.release()
    box.await_state("done")


def test_a_bad_pattern_is_refused_at_the_door_of_the_box(box: SupervisedBox) -> None:
    code, answer = box.ask("register", "--run-file", "-", stdin=_with_pattern(box, "(?P<step>"))
    assert (code, answer["kind"]) == (10, "usage")
    assert "progress.pattern cannot be used: it is no regular expression" in answer["error"]
    assert not os.path.exists(box.layout.index)


def _with_pattern(box: SupervisedBox, pattern: str) -> str:
    return json.dumps(box.run_record(progress={"source": "regex", "pattern": pattern}))


# --- a driver that hangs ------------------------------------------------------------------------------------------


@pytest.fixture
def hanging_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An nvidia-smi that answers nothing for ever. The file that is given holds the pids of those that were started."""
    folder = tmp_path / "tools"
    folder.mkdir()
    started = tmp_path / "started"
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\necho $$ >>{started}\nexec sleep 600\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    yield started
    for identity in hanging(started):
        process.kill_all([identity])


def hanging(started: Path) -> list[process.Identity]:
    pids = started.read_text().split() if started.exists() else []
    return [identity for identity in (process.identify(int(pid)) for pid in pids) if identity is not None]


def test_a_hanging_nvidia_smi_does_not_stop_a_run(box: SupervisedBox, hanging_smi: Path) -> None:
    box.register(cells=[{"id": "c1"}, {"id": "c2"}])
    box.verb("start")
    run = box.await_state("done")
    assert [cell["state"] for cell in run["cells"]] == ["done", "done"]
    # Two cells were run to their ends without an answer, and no question was put beside another: the first one still
    # waits, unless the cells took longer than it may take.
    assert hanging_smi.read_text()
    assert len(hanging(hanging_smi)) <= 1
    told = health(box)["gpu"]
    assert told is None or "no answer within 20 s" in told["problem"], told
    assert health(box)["disk"]["free_bytes"] > 0


def test_the_gate_for_gpus_does_not_hold_the_box_while_it_asks(box: SupervisedBox, hanging_smi: Path) -> None:
    box.register(gpu={"required": True, "count": 1})
    box.verb("start")
    wait_for("the question", lambda: hanging(hanging_smi))
    assert box.verb("hold")["changed"]
    assert hanging(hanging_smi)
    assert box.run()["state"] == "queued"
    box.verb("start")
    box.await_no_daemon()
    assert "the run needs a GPU: nvidia-smi: no answer within 20 s" in box.log()
    assert box.layout.attempt_numbers("digits", "c1") == []
    run = box.run()
    assert (run["state"], run["exit"]) == ("blocked", 12)
    assert run["blocked_by"] == ["the run needs a GPU: nvidia-smi: no answer within 20 s"]


# --- memory -------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_memory() -> Iterator[Path]:
    """A memory cgroup of 200 MiB of which processes can become members."""
    with contextlib.ExitStack() as made:
        yield made.enter_context(_memory_group())


@contextlib.contextmanager
def _memory_group() -> Iterator[Path]:
    root = Path("/sys/fs/cgroup")
    base, limit = (root / "memory", "memory.limit_in_bytes") if (root / "memory").is_dir() else (root, "memory.max")
    group = base / f"tenant-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / limit).write_text(str(200 << 20))
        with contextlib.suppress(OSError):
            (group / "memory.swap.max").write_text("0")
    except OSError as error:
        with contextlib.suppress(OSError):
            group.rmdir()
        pytest.skip(f"NOT RUN: no memory cgroup can be made here ({error})")
    try:
        yield group
    finally:
        wait_for("the group to be empty", lambda: _removed(group))


def _removed(group: Path) -> bool:
    for pid in (group / "cgroup.procs").read_text().split():
        process.kill_all([identity for identity in [process.identify(int(pid))] if identity is not None])
    with contextlib.suppress(OSError):
        group.rmdir()
    return not group.exists()


def test_a_worker_that_the_kernel_kills_for_memory_is_told(small_memory: Path, box: SupervisedBox) -> None:
    register(box, PROVOKES_A_KILL, str(box.gate))
    enter = f'echo $$ >{small_memory}/cgroup.procs && exec "$@"'
    subprocess.run(["sh", "-c", enter, "sh", *box.argv("start")], check=True, timeout=PATIENCE_S, capture_output=True)
    wait_for("a sample of the attempt", lambda: (health(box).get("memory") or {}).get("oom_attempt"))
    before = health(box)["memory"]
    assert (before["oom_since"], before["limit_bytes"]) == (0, 200 << 20)
    box.release()
    box.await_state("done")
    box.await_no_daemon()
    assert "a worker ends with -9" in Path(box.paths().log).read_text()
    after = health(box)
    assert after["memory"]["oom_since"] == 1
    assert "the kernel killed 1 processes for memory since digits/c1/a1 began" in after["warnings"]


# --- stalls -------------------------------------------------------------------------------------------------------


def test_a_shim_tells_when_it_saw_life_and_status_believes_it_over_a_clock_that_was_set(box: SupervisedBox) -> None:
    box.register(stall_s=1800)
    run = run_record.read_run(box.layout, "digits")
    paths = attempt.claim(box.layout, run, run["cells"][0], 1)
    watch = shim.Shim(box.layout, "digits", "c1", 1, ())
    attempt.write_status(paths, watch.keys, process=process.myself().as_dict())
    # As the clock sees them after it was set forward by a day.
    for path in (paths.claim, paths.checkpoints):
        os.utime(path, (time.time() - 86400,) * 2)
    assert (box.cell()["liveness"], box.cell()["idle_s"] > 86000) == ("stalled", True)
    watch._beat()
    assert (box.cell()["liveness"], box.cell()["idle_s"] < 1800) == ("alive", True)


@pytest.mark.parametrize("leaves_with", [0, 30, None])
def test_law_6_a_trainer_that_stalls_is_ended_tried_once_more_and_then_failed(
    box: SupervisedBox, leaves_with: int | None
) -> None:
    answer = "signal.SIG_IGN" if leaves_with is None else f"lambda *_: sys.exit({leaves_with})"
    code = f"import signal, sys; signal.signal(signal.SIGTERM, {answer}); open(sys.argv[1]).read()"
    box.register(command=["python", "-c", code, str(box.gate)], artifacts=[], stall_s=1, grace_s=1)
    box.verb("start")
    cell = box.await_state("failed")["cells"][0]
    assert cell["attempt"] == 2
    assert "it stalls" in cell["why"]
    for number in (1, 2):
        ended = attempt.read(box.paths(number).exit, "exit")
        assert (ended["wrapper"], ended["stop_asked"], ended["failure"]["class"]) == (40, False, "stalled")
    box.await_no_daemon()
    assert box.run()["queue"]["end"] == "QUEUE_FAILED"


@pytest.mark.parametrize("leaves_with", [0, 30, None])
def test_law_6_a_trainer_that_is_busy_for_too_long_is_ended_and_has_failed(
    box: SupervisedBox, leaves_with: int | None
) -> None:
    answer = "signal.SIG_IGN" if leaves_with is None else f"lambda *_: sys.exit({leaves_with})"
    code = f"import signal, sys; signal.signal(signal.SIGTERM, {answer})\nwhile True: print('busy', flush=True)"
    box.register(command=["python", "-c", code], artifacts=[], cell_timeout_s=1, grace_s=1)
    box.verb("start")
    cell = box.await_state("failed")["cells"][0]
    assert (cell["attempt"], cell["failure"]) == (1, "timed_out")
    assert "cell_timeout_s is 1" in cell["why"]
    ended = attempt.read(box.paths(1).exit, "exit")
    assert (ended["wrapper"], ended["stop_asked"], ended["failure"]["again"]) == (40, False, False)


# --- signals to everybody -----------------------------------------------------------------------------------------

TOLD_WITH_ITS_TRAINER = """
import os, signal, sys
from ansible_collections.tenant.gpu.plugins.module_utils.box import attempt, post_mortem, run_record, shim
from ansible_collections.tenant.gpu.plugins.module_utils.box.layout import Layout

layout = Layout(sys.argv[1])
run = run_record.read_run(layout, "digits")
paths = attempt.claim(layout, run, run["cells"][0], 1)

def while_the_driver_is_asked(self, cards):
    trainer = attempt.trainer_of(paths)
    os.kill(trainer.pid, signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
    os.waitid(os.P_PID, trainer.pid, os.WEXITED | os.WNOWAIT)

post_mortem.PostMortem.tell_cards_apart = while_the_driver_is_asked
sys.exit(shim.Shim(layout, "digits", "c1", 1, ()).main(lambda: None))
"""


def test_a_stop_that_ends_the_trainer_before_its_shim_is_heard_is_no_failure(box: SupervisedBox) -> None:
    """A box that goes down tells all of its processes at once."""
    box.register(command=["sleep", "1000000"], artifacts=[])
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
    told = [sys.executable, "-c", TOLD_WITH_ITS_TRAINER, box.layout.root]
    done = subprocess.run(told, env=environment, timeout=PATIENCE_S, check=False, capture_output=True, text=True)
    assert done.returncode == 30, done.stderr
    ended = attempt.read(box.paths(1).exit, "exit")
    assert (ended["child"], ended["stop_asked"], ended["failure"]) == (-15, True, None)
    assert box.cell()["state"] == "preempted"
