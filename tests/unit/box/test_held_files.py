# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a snapshot lists stays there while it is copied, whatever the trainer removes."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import held_task
from ansible_collections.tenant.gpu.plugins.module_utils.box import held_files, run_manifest, survey
from ansible_collections.tenant.gpu.plugins.module_utils.box.layout import Layout
from ansible_collections.tenant.gpu.plugins.module_utils.box.refusal import LIVE, Refused

RUN = "digits"
LISTED = "c1/a1/out/checkpoints/step-1.pt"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(str(tmp_path))


def write(layout: Layout, path: str, data: bytes = b"weights") -> Path:
    place = Path(layout.run_dir(RUN)) / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    return place


def lines(*paths: str) -> list[dict[str, Any]]:
    return [{"path": path} for path in paths]


def test_a_held_file_outlives_its_removal(layout: Layout) -> None:
    place = write(layout, LISTED)
    held_files.hold(layout, RUN, lines(LISTED))
    place.unlink()
    root = held_files.root_of(layout, RUN, snapshot=True)
    assert (Path(root) / LISTED).read_bytes() == b"weights"
    assert held_files.root_of(layout, RUN, snapshot=False) == layout.run_dir(RUN)


def test_a_file_that_is_replaced_by_its_name_stays_what_was_held(layout: Layout) -> None:
    place = write(layout, LISTED)
    held_files.hold(layout, RUN, lines(LISTED))
    newer = place.with_name("newer")
    newer.write_bytes(b"other")
    newer.replace(place)
    assert (Path(layout.held(RUN)) / LISTED).read_bytes() == b"weights"


def test_the_next_snapshot_lets_go_of_the_last(layout: Layout) -> None:
    first, second = write(layout, LISTED), write(layout, "c1/a1/out/checkpoints/step-2.pt")
    held_files.hold(layout, RUN, lines(LISTED))
    held_files.hold(layout, RUN, lines("c1/a1/out/checkpoints/step-2.pt"))
    assert not (Path(layout.held(RUN)) / LISTED).exists()
    assert (first.stat().st_nlink, second.stat().st_nlink) == (1, 2)
    held_files.release(layout, RUN)
    assert second.stat().st_nlink == 1
    assert second.read_bytes() == b"weights"


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSPC, errno.EMLINK])
def test_without_hard_links_the_files_are_copied_from_where_they_are(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    write(layout, LISTED)

    def refuse(*_paths: str, **_how: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(held_files.os, "link", refuse)
    held_files.hold(layout, RUN, lines(LISTED))
    assert held_files.root_of(layout, RUN, snapshot=True) == layout.run_dir(RUN)
    assert not Path(layout.held(RUN)).exists()


def test_a_file_that_is_gone_already_is_said_and_nothing_is_held(layout: Layout) -> None:
    write(layout, LISTED)
    with pytest.raises(held_files.Gone):
        held_files.hold(layout, RUN, lines(LISTED, "c1/a1/out/checkpoints/step-2.pt"))
    assert not Path(layout.held(RUN)).exists()


@pytest.mark.parametrize("removed", [1, 4])
def test_a_snapshot_is_begun_anew_when_the_trainer_was_faster(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, removed: int
) -> None:
    """Each look lists the newest checkpoint; the first ones are gone before they can be held."""
    looks: list[str] = []

    def of_run(layout: Layout, _found: Any, _run_id: str, snapshot: bool, chosen: Any) -> dict[str, Any]:
        assert (snapshot, chosen) == (True, None)
        path = f"c1/a1/out/checkpoints/step-{len(looks)}.pt"
        looks.append(path)
        if len(looks) > removed:
            write(layout, path)
        return {"files": lines(path)}

    monkeypatch.setattr(run_manifest, "of_run", of_run)
    monkeypatch.setattr(run_manifest.index, "read", lambda _layout: {})
    monkeypatch.setattr(survey, "survey", lambda _layout: None)
    found = run_manifest.current(layout, RUN, snapshot=True)
    assert found["files"] == lines(looks[-1])
    assert len(looks) == removed + 1
    assert (Path(held_files.root_of(layout, RUN, snapshot=True)) / looks[-1]).exists()


def test_a_trainer_that_is_always_faster_is_told(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_manifest, "of_run", lambda *_unused, **_how: {"files": lines(LISTED)})
    monkeypatch.setattr(run_manifest.index, "read", lambda _layout: {})
    monkeypatch.setattr(survey, "survey", lambda _layout: None)
    with pytest.raises(Refused) as refused:
        run_manifest.current(layout, RUN, snapshot=True)
    assert refused.value.code == LIVE
    assert refused.value.fix


def test_what_is_home_is_let_go_of_once(layout: Layout, tmp_path: Path) -> None:
    place = write(layout, LISTED)
    held_files.hold(layout, RUN, lines(LISTED))
    params = {"tenant_root": str(tmp_path), "run_id": RUN}
    assert held_task.let_go(params, check_mode=True) == {"changed": True}
    assert os.path.isdir(layout.held(RUN))
    assert held_task.let_go(params, check_mode=False) == {"changed": True}
    assert held_task.let_go(params, check_mode=False) == {"changed": False}
    assert not os.path.exists(layout.held(RUN))
    assert place.is_file()
