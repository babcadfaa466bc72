# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure

from gpu_tenant import playbook_process, workspace
from gpu_tenant.workspace import Workspace

WAIT_S = 600.0


def until(condition: object, what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():  # type: ignore[operator]  # a callable; object keeps the signature short
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "ws")


@pytest.fixture
def orphan(place: Workspace) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """A process that holds a play's lock like an ansible-playbook whose runner was killed."""
    folder = place.new_play("train", "demo", ["b1"])
    command = [sys.executable, playbook_process.__file__, str(folder / "playbook.lock"), "sleep", "600"]
    process = subprocess.Popen(command, start_new_session=True)
    until(lambda: (playbook_process.holder(str(folder / "playbook.lock")) or {}).get("pid"), "it never took its lock")
    yield folder, process
    process.kill()
    process.wait()


def test_folders_are_private(place: Workspace) -> None:
    folder = place.new_play("train", "demo", ["b1"])
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(place.root.stat().st_mode) == 0o700


def test_two_runs_never_share_a_folder(place: Workspace) -> None:
    assert len({place.new_play("train", "demo", ["b1"]) for _round in range(5)}) == 5


def test_one_runner_per_box(place: Workspace) -> None:
    with place.holding("demo", ["b1", "b2"]):
        with pytest.raises(TenantFailure) as caught, place.holding("demo", ["b2"]):
            pass
        assert caught.value.kind == "lease_held"
        assert str(os.getpid()) in str(caught.value)
        with place.holding("demo", ["b3"]), place.holding("other", ["b1"]):
            pass
    with place.holding("demo", ["b1", "b2"]):
        pass


def test_the_lock_of_a_killed_runner_that_was_starting_a_playbook_is_waited_for(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between fork and exec a child has what its runner had open."""
    script = """if True:
        import os, signal, sys
        from gpu_tenant.workspace import Workspace
        with Workspace(sys.argv[1]).holding("demo", ["b1"]):
            if os.fork():
                os.kill(os.getpid(), signal.SIGKILL)
            sys.stdin.read()
            os._exit(0)
    """
    runner = subprocess.Popen([sys.executable, "-c", script, str(place.root)], stdin=subprocess.PIPE)
    assert runner.stdin is not None
    assert runner.wait(WAIT_S) == -signal.SIGKILL
    with monkeypatch.context() as patience:
        patience.setattr(workspace, "_LET_GO_S", 0.1)
        with pytest.raises(TenantFailure, match=f"process {runner.pid}"), place.holding("demo", ["b1"]):
            pass
    let_go = threading.Timer(0.2, runner.stdin.close)
    let_go.start()
    with place.holding("demo", ["b1"]):
        let_go.join()


def test_the_lock_says_which_process(orphan: tuple[Path, subprocess.Popen[bytes]]) -> None:
    folder, process = orphan
    assert playbook_process.holder(str(folder / "playbook.lock")) == {"pid": process.pid, "session": process.pid}


def test_nobody_holds_a_lock_that_is_not_there(tmp_path: Path) -> None:
    assert playbook_process.holder(str(tmp_path / "none")) is None


def test_an_orphan_is_awaited(place: Workspace, orphan: tuple[Path, subprocess.Popen[bytes]]) -> None:
    _folder, process = orphan
    said: list[str] = []

    def wait(seconds: float) -> None:
        process.send_signal(signal.SIGTERM)
        process.wait(WAIT_S)

    place.end_orphans("demo", ["b1"], said.append, wait)
    assert len(said) == 1
    assert str(process.pid) in said[0]


def test_an_orphan_that_does_not_end_is_ended(place: Workspace, orphan: tuple[Path, subprocess.Popen[bytes]]) -> None:
    _folder, process = orphan
    place.end_orphans("demo", ["b1"], lambda text: None, lambda seconds: None, deadline_s=-1.0)
    assert process.wait(WAIT_S) in (-signal.SIGINT, -signal.SIGKILL)


def test_playbooks_on_other_boxes_are_left_alone(
    place: Workspace, orphan: tuple[Path, subprocess.Popen[bytes]]
) -> None:
    _folder, process = orphan
    for project, box in (("demo", "b2"), ("other", "b1")):
        place.end_orphans(project, [box], lambda text: None, lambda seconds: None, deadline_s=-1.0)
    assert process.poll() is None


def test_secrets_of_a_killed_run_are_removed_at_the_next_start(place: Workspace) -> None:
    folder = place.new_play("train", "demo", ["b1"])
    for path in ("secrets/vast-api-key", "env/extravars", "artifacts/train/command", "artifacts/train/stdout"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("secret")
    place.end_orphans("demo", ["b1"], lambda text: None, lambda seconds: None)
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == [
        "artifacts/train/stdout",
        "play.json",
    ]


def test_old_plays_go_and_living_ones_stay(
    place: Workspace, orphan: tuple[Path, subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _process = orphan
    monkeypatch.setattr(workspace, "KEPT_PLAYS", 2)
    for _round in range(5):
        place.new_play("harvest", "demo", ["b2"])
    assert folder.is_dir()
    assert len(list(place.plays.iterdir())) == 4


def test_history_survives_a_torn_line(place: Workspace) -> None:
    history = place.history("demo", "digits")
    history.append("pull", box="b1", step=3)
    with history.path.open("ab") as stream:
        stream.write(b'{"kind": "pul')
    assert [line["step"] for line in place.history("demo", "digits").lines("pull")] == [3]


def test_a_workspace_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TenantFailure, match="workspace"):
        Workspace(tmp_path / "file" / "x")


def test_the_session_folder_is_short_and_goes(tmp_path: Path) -> None:
    with workspace.Session() as session:
        assert len(str(session.folder)) < 40
        assert stat.S_IMODE(session.folder.stat().st_mode) == 0o700
    assert not session.folder.exists()


def test_the_session_folder_of_a_killed_runner_is_removed_by_the_next(tmp_path: Path) -> None:
    left, young, unlocked = (tmp_path / f"gpu-tenant-{name}" for name in ("left", "young", "unlocked"))
    foreign = tmp_path / "other"
    for folder in (left, young, unlocked, foreign):
        folder.mkdir()
    for folder in (left, young, foreign):
        (folder / "lock").touch()
    with workspace.Session(str(tmp_path)) as living:
        for folder in (left, unlocked, foreign, living.folder):
            os.utime(folder, (1.0, 1.0))
        with workspace.Session(str(tmp_path)):
            assert not left.exists()
            assert all(folder.exists() for folder in (young, unlocked, foreign, living.folder))
