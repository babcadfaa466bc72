# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Checkpoints on a durable mount (a real one, tmpfs): another box goes on from them after the first has vanished."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ansible_collections.tenant.gpu.plugins.module_utils.box import attempt, records
from supervised_box import SupervisedBox, supervised_box, wait_for

pytestmark = pytest.mark.integration

TRAINER = Path(__file__).with_name("helper_trainer.py")
HELPER = Path(__file__).parents[2] / "roles" / "deploy" / "files"


class Mount:
    def __init__(self, path: Path) -> None:
        self.path = path

    def mount(self, options: str = "size=64m") -> None:
        self.path.mkdir(exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.path)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
            pytest.skip("NOT RUN: mounting a file system needs root")

    def unmount(self) -> None:
        subprocess.run(["umount", str(self.path)], check=False, capture_output=True)

    def checkpoints(self, box: str = "b1", number: int = 1, generation: int = 1) -> Path:
        return self.path / "vision" / "digits" / box / f"g{generation}" / "c1" / f"a{number}" / "out" / "checkpoints"


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    made = Mount(tmp_path / "mount")
    made.mount()
    yield made
    made.unmount()


@pytest.fixture
def boxes(tmp_path: Path) -> Iterator[Callable[[str], SupervisedBox]]:
    with contextlib.ExitStack() as stack:

        def rent(name: str) -> SupervisedBox:
            (tmp_path / name).mkdir()
            box: SupervisedBox = stack.enter_context(supervised_box(tmp_path / name, sys.executable))
            shutil.copy(TRAINER, box.workdir / "train.py")
            return box

        yield rent


def register(box: SupervisedBox, mount: Mount, name: str, *arguments: str, **changes: Any) -> None:
    box.register(
        box=name,
        command=["python", "train.py", "--save-every", "1", *arguments],
        env={"PYTHONPATH": str(HELPER)},
        durable={"kind": "mount", "path": str(mount.path)},
        **changes,
    )


def vanish_at(box: SupervisedBox, mount: Mount, name: str, step: int, **changes: Any) -> None:
    """Train to ``step`` with a save at each, then lose the box with all that is on its disk."""
    register(box, mount, name, "--hold-at", str(step), "--gate", str(box.gate), **changes)
    box.verb("start")
    box.await_trainer(step=step)
    found = mount.checkpoints(name) / f"step-{step:010d}.pt"
    wait_for(f"{found} on the mount", found.exists)
    box.kill_everything()
    shutil.rmtree(box.root)


def metrics(box: SupervisedBox, number: int = 1) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(box.paths(number).metrics).read_text().splitlines()]


def resumed(box: SupervisedBox, number: int = 1) -> tuple[int, str]:
    line = next(line for line in metrics(box, number) if "resumed_from" in line)
    return line["resumed_from"], line["path"]


def weights(box: SupervisedBox, number: int = 1) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(Path(box.paths(number).output, "model.pt"), weights_only=True)["state"]
    return state


def test_another_box_goes_on_from_the_mount_and_ends_bit_for_bit_the_same(
    mount: Mount, boxes: Callable[[str], SupervisedBox]
) -> None:
    calm = boxes("calm")
    register(calm, mount, "calm", run_id="calm")
    calm.verb("start")
    vanish_at(boxes("first"), mount, "b1", 5)
    second = boxes("second")
    register(second, mount, "b2")
    second.verb("start")
    second.await_state("done")
    assert resumed(second) == (5, str(mount.checkpoints("b1") / "step-0000000005.pt"))
    # Its own saves went to a place of its own; what the lost box had written is as it was.
    assert sorted(path.name for path in mount.checkpoints("b2").glob("step-*")) == [
        "step-0000000007.pt",
        "step-0000000008.pt",
    ]
    assert (mount.checkpoints("b1") / "step-0000000005.pt").exists()
    claim = records.read_record(str(mount.checkpoints("b2").parents[1] / "claim.json"), "claim")
    assert (claim["box"], claim["generation"], claim["attempt"]) == ("b2", 1, 1)
    calm.await_state("done", "calm")
    alone = torch.load(Path(calm.layout.attempt("calm", "c1", 1).output, "model.pt"), weights_only=True)["state"]
    assert all(torch.equal(alone[name], tensor) for name, tensor in weights(second).items())


def test_the_newest_valid_one_wins_across_disk_and_mount(mount: Mount, boxes: Callable[[str], SupervisedBox]) -> None:
    vanish_at(boxes("first"), mount, "b1", 5)
    newest = mount.checkpoints("b1") / "step-0000000005.pt"
    newest.write_bytes(newest.read_bytes()[:-100])
    second = boxes("second")
    register(second, mount, "b2", "--hold-at", "6", "--gate", str(second.gate))
    second.verb("start")
    second.await_trainer(step=6)
    assert resumed(second) == (4, str(mount.checkpoints("b1") / "step-0000000004.pt"))
    assert (mount.checkpoints("b1") / "quarantine" / newest.name).exists()
    # Its own disk holds step 6 now, and so does the mount: the near one is read.
    held = Path(second.paths(1).checkpoints) / "step-0000000006.pt"
    wait_for("the save of step 6", held.exists)
    second.kill_everything()
    second.verb("start")
    wait_for("the second attempt", lambda: second.paths(2) and os.path.exists(second.paths(2).metrics))
    second.await_state("done")
    assert resumed(second, 2) == (6, str(held))


def test_checkpoints_of_another_spec_are_not_taken(mount: Mount, boxes: Callable[[str], SupervisedBox]) -> None:
    vanish_at(boxes("first"), mount, "b1", 3, spec_sha256="c" * 64)
    second = boxes("second")
    register(second, mount, "b2")
    second.verb("start")
    second.await_state("done")
    assert [line["step"] for line in metrics(second) if "step" in line] == list(range(1, 9))


def test_without_its_mount_the_cell_is_blocked_and_nothing_goes_to_the_folder_below(
    mount: Mount, boxes: Callable[[str], SupervisedBox]
) -> None:
    vanish_at(boxes("first"), mount, "b1", 3)
    mount.unmount()
    second = boxes("second")
    register(second, mount, "b2")
    code, answer = second.ask("start")
    assert (code, answer["kind"]) == (13, "disk")
    assert "nothing is mounted there" in answer["error"]
    assert list(mount.path.iterdir()) == []


@pytest.mark.parametrize(("options", "why"), [("size=64m,nr_inodes=3", "No space left"), ("ro", "cannot be written")])
def test_a_mount_that_takes_no_files_blocks_the_cell_until_it_does(
    tmp_path: Path, boxes: Callable[[str], SupervisedBox], options: str, why: str
) -> None:
    mount = Mount(tmp_path / "mount")
    mount.mount(options)
    try:
        box = boxes("only")
        register(box, mount, "b1")
        code, answer = box.ask("start")
        if code == 0:  # seen only when the attempt claims its folder
            box.await_state("blocked")
            box.await_no_daemon()
            assert attempt.exit_facts(attempt.read(box.paths(1).exit, "exit")).wrapper == 13  # type: ignore[union-attr]
            answer = {"error": attempt.read(box.paths(1).exit, "exit")["why"]}
        assert why in answer["error"]
        mount.unmount()
        mount.mount()
        box.verb("start")
        box.await_state("done")
        assert (mount.checkpoints("b1", number=box.cell()["attempt"]) / "step-0000000008.pt").exists()
    finally:
        mount.unmount()


# --- pruning behind the copy --------------------------------------------------------------------------------------

SAVES_AND_WAITS = """
import json, os, pickle, sys, zipfile
def save(path, **about):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(about, 2))
        archive.writestr("archive/manifest.json", json.dumps(about))
for step in range(1, 5):
    save(os.path.join(os.environ["TENANT_CHECKPOINT_DIR"], "step-%010d.pt" % step), step=step, best=2)
    with open(os.environ["TENANT_METRICS"], "a") as stream:
        stream.write(json.dumps({"step": step, "steps": 4}) + "\\n")
open(sys.argv[1]).read()
save(os.path.join(os.environ["TENANT_OUTPUT_DIR"], "model.pt"), step=4)
"""


def steps_in(box: SupervisedBox, number: int) -> list[int]:
    return sorted(int(path.stem[5:]) for path in Path(box.paths(number).checkpoints).glob("step-*.pt"))


def test_what_nobody_needs_goes_once_the_cell_is_synced_and_a_later_start_makes_good(
    mount: Mount, boxes: Callable[[str], SupervisedBox]
) -> None:
    box = boxes("b1")
    (box.workdir / "saves.py").write_text(SAVES_AND_WAITS)
    changes: dict[str, Any] = {"durable": {"kind": "mount", "path": str(mount.path)}, "box": "b1"}
    box.register(command=["python", "saves.py", str(box.gate)], **changes)
    box.verb("start")
    box.await_trainer(step=4)
    box.kill_everything()
    box.verb("start")
    box.await_trainer(2, step=4)
    assert (steps_in(box, 1), steps_in(box, 2)) == ([1, 2, 3, 4], [1, 2, 3, 4])
    box.release()
    box.await_state("done")
    box.await_no_daemon()
    assert (steps_in(box, 1), steps_in(box, 2)) == ([], [2, 4])
    assert "6 older checkpoints pruned" in box.log()
    # Killed between the done record and the pruning: as if neither had been written after the former.
    os.unlink(box.paths(2).pruned)
    shutil.copy(box.paths(2).checkpoints + "/step-0000000002.pt", box.paths(1).checkpoints)
    box.register(run_id="other", command=["python", "saves.py", str(box.gate)], **changes)
    box.verb("start")
    box.release()
    box.await_state("done", "other")
    assert (steps_in(box, 1), steps_in(box, 2)) == ([], [2, 4])
    assert box.run()["state"] == "done"


def test_the_known_cap_on_files_keeps_a_cell_from_starting_and_its_copy_from_its_first_byte(
    mount: Mount, boxes: Callable[[str], SupervisedBox]
) -> None:
    """AutoDL's shared disk, whose file system may tell more than the 200,000 files that it takes."""
    box, junk = boxes("b1"), mount.path / "junk"

    def fill() -> None:
        junk.mkdir()
        for number in range(195):
            (junk / str(number)).touch()

    fill()
    box.register(
        box="b1",
        command=["python", "train.py", "--hold-at", "2", "--gate", str(box.gate)],
        env={"PYTHONPATH": str(HELPER)},
        durable={"kind": "mount", "path": str(mount.path), "inode_cap": 200},
        limits={"min_free_bytes": 0, "min_free_inodes": 10},
    )
    code, answer = box.ask("start")
    assert (code, answer["kind"]) == (13, "disk")
    assert "196 of the 200 files that it may hold are there (most of them: junk 196)" in answer["error"]
    assert box.run()["state"] == "blocked"
    shutil.rmtree(junk)
    box.verb("start")
    box.await_trainer(step=2)
    fill()
    box.release()
    cell = box.await_state("failed")["cells"][0]
    assert cell["exit"]["wrapper"] == 21
    assert "of the 200 files that it may hold" in cell["why"]
    assert "remove what no run needs" in cell["why"]
    assert not list(mount.path.rglob("model.pt"))
    box.await_no_daemon()
    shutil.rmtree(junk)
    box.verb("start")
    assert box.await_state("done")["cells"][0]["attempt"] == 1, "nothing is trained twice"
    assert list(mount.path.rglob("model.pt"))
