# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""How a queue ends, and two projects on one machine that want the same GPU."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import gpu_locks
from supervised_box import SupervisedBox, supervised_box, wait_for

pytestmark = pytest.mark.integration


@pytest.fixture
def box(tmp_path: Path) -> Iterator[SupervisedBox]:
    with supervised_box(tmp_path) as made:
        yield made


CELLS = [{"id": "c1", "args": [], "seed": 1}, {"id": "c2", "args": ["--exit-code", "2"], "seed": 2}]


def test_a_queue_with_a_failed_cell_has_failed_and_says_which(box: SupervisedBox) -> None:
    box.register(cells=CELLS)
    box.verb("start")
    box.await_no_daemon()
    queue = box.run()["queue"]
    assert queue == {"end": "QUEUE_FAILED", "done": ["c1"], "failed": ["c2"], "waiting": []}
    assert "digits: QUEUE_FAILED 1 of 2 done, 1 failed, 0 waiting; failed: c2" in box.log()


def test_a_run_that_asks_to_stop_begins_no_cell_after_one_that_failed(box: SupervisedBox) -> None:
    cells = [{"id": name, "args": [], "seed": 0} for name in ("c1", "c2", "c3")]
    code = "import os, sys; sys.exit(3 if os.environ['TENANT_CELL'] == 'c2' and not os.path.exists(sys.argv[1]) else 0)"
    command = ["python", "-c", code, str(box.gate) + ".mended"]
    box.register(command=command, cells=cells, artifacts=[], on_fail="stop")
    box.verb("start")
    run = box.await_state("failed")
    box.await_no_daemon()
    assert [cell["state"] for cell in run["cells"]] == ["done", "failed", "queued"]
    run = box.run()
    assert run["queue"] == {"end": "QUEUE_ABORTED", "done": ["c1"], "failed": ["c2"], "waiting": ["c3"]}
    assert "on_fail" in run["halted"]
    assert "waiting: c3; a cell failed, and digits asks with on_fail" in box.log()
    # Neither a plain start nor a boot takes it for done with.
    assert box.verb("start")["changed"] is False
    assert box.verb("resume-all")["changed"] is False
    Path(str(box.gate) + ".mended").touch()
    box.verb("start", "--retry-failed")
    run = box.await_state("done")
    assert (run["queue"]["end"], run["halted"]) == ("QUEUE_OK", "")
    assert run["cells"][2]["attempt"] == 1


def test_a_queue_that_was_stopped_is_aborted_and_goes_on_later(box: SupervisedBox) -> None:
    box.register_held(cells=[{"id": name, "args": [], "seed": 1} for name in ("c1", "c2")])
    box.verb("start")
    box.await_trainer()
    assert box.run()["queue"]["end"] == ""
    box.verb("stop")
    box.await_no_daemon()
    assert box.run()["queue"] == {"end": "QUEUE_ABORTED", "done": [], "failed": [], "waiting": ["c1", "c2"]}
    assert "QUEUE_ABORTED 0 of 2 done" in box.log()
    box.verb("start")
    # The first cell goes on behind the step at which it waited.
    box.release()
    box.await_state("done")
    assert box.run()["queue"]["end"] == "QUEUE_OK"


def install_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, used_mib: list[int]) -> list[str]:
    """An nvidia-smi that reports cards with so much memory in use; their UUIDs."""
    names = [f"GPU-{uuid.uuid4()}" for _card in used_mib]
    folder.mkdir()
    rows = [f"{number}, {names[number]}, RTX 4090, 24564, {used}, 570.86" for number, used in enumerate(used_mib)]
    query = "; ".join(f"echo '{row}'" for row in rows)
    script = f'#!/bin/sh\ncase "$*" in *memory.used*) {query} ;; *) exit 2 ;; esac\n'
    (folder / "nvidia-smi").write_text(script)
    (folder / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return names


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The UUID of the one card that nvidia-smi reports."""
    return install_smi(tmp_path / "bin", monkeypatch, [5])[0]


def test_a_neighbour_on_another_card_is_no_obstacle(
    box: SupervisedBox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    neighbours, own = install_smi(tmp_path / "bin", monkeypatch, [20000, 5])
    held = gpu_locks.acquire([neighbours], 0)
    try:
        box.register_held(gpu={"required": True, "count": 1}, env={"CUDA_VISIBLE_DEVICES": "1"})
        box.verb("start")
        box.await_trainer()
        assert gpu_locks.held([neighbours, own]) == [neighbours, own]
        box.release()
        box.await_state("done")
        assert gpu_locks.held([neighbours, own]) == [neighbours]
    finally:
        gpu_locks.release(held)


def test_two_projects_on_one_machine_take_turns_on_a_card(box: SupervisedBox, card: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with supervised_box(other) as second:
        wanted = {"gpu": {"required": True, "count": 1}}
        box.register_held(**wanted)
        box.verb("start")
        box.await_trainer()
        assert gpu_locks.held([card]) == [card]
        second.register(**wanted)
        second.verb("start")
        wait_for("the second one to wait", lambda: f"another run on this machine uses GPU {card}" in second.log())
        assert second.layout.attempt_numbers("digits", "c1") == []
        box.release()
        box.await_state("done")
        second.await_state("done")
        assert gpu_locks.held([card]) == []
    assert second.log().count("waits: another run") == 1, "said once"
