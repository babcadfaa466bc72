# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Law 1 where nothing is copied again: a receipt stands only while box, results and record agree, each of them read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.action import receipt_info
from ansible_collections.tenant.gpu.plugins.module_utils import receipts
from evidence_world import IDENTITY, World, edit_json

NOTHING_LEFT = {"files": 0, "bytes": 0, "listed": [], "summary": ""}


class Home:
    """A finished run that is home, and its sealed box."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder)
        self.receipt = self.world.give_receipt("r1", level="load", not_pulled=NOTHING_LEFT)
        self.root = self.world.root("r1")
        digest = self.world.digests["r1"]
        self.promise: Any = {
            "sealed": True,
            "state": "done",
            "digest": digest,
            "policy": None,
            "not_pulled": NOTHING_LEFT,
        }
        self.status = 0

    def look(self, **changes: Any) -> dict[str, Any]:
        options = {
            **IDENTITY.as_dict(),
            "state_dir": str(self.world.store.root),
            "run_id": "r1",
            "root": str(self.root),
            "tenant_root": "/workspace/gpu-tenant",
            **changes,
        }
        task = SimpleNamespace(
            args=options, check_mode=False, async_val=0, delegate_to=None, action="tenant.gpu.receipt_info"
        )
        box = SimpleNamespace(transport="ssh", become=None, _shell=SimpleNamespace(tmpdir=None))
        templar = SimpleNamespace(template=lambda value: value)
        action = receipt_info.ActionModule(task, box, SimpleNamespace(), None, templar, None)
        action.run_on_box = self._box  # type: ignore[method-assign]
        return action.run(task_vars={"inventory_hostname": "box1"})

    def _box(self, argv: list[str], _text: str) -> tuple[int, str, str]:
        assert argv[-3:] == ["promise", "--run", "r1"] or argv[-1] == "status"
        return self.status, json.dumps(self.promise), ""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_what_agrees_stands(home: Home) -> None:
    assert home.look() == {"changed": False, "stands": True, "why": ""}


HARM: dict[str, Callable[[Home], object]] = {
    "a file at home has other bytes of the same size": lambda home: (home.root / "c0/a1/out/model.bin").write_bytes(
        b"weighty"
    ),
    "a file at home is gone": lambda home: (home.root / "c0/a1/done.json").unlink(),
    "a file that nobody promised": lambda home: (home.root / "c0/a1/out/more.bin").write_bytes(b"x"),
    "the manifest beside them is gone": lambda home: (home.root / "manifest.json").unlink(),
    "the manifest beside them was edited": lambda home: edit_json(str(home.root / "manifest.json"), run_id="r2"),
    "the receipt is gone": lambda home: Path(home.receipt).unlink(),
    "the receipt is not complete": lambda home: edit_json(home.receipt, complete=False),
    "the receipt is of other files": lambda home: edit_json(home.receipt, manifest_digest="0" * 64),
    "the receipt is of another level": lambda home: edit_json(home.receipt, level="structure"),
    "the run has parts": lambda home: edit_json(home.receipt, parts=["box1", "box2"]),
    "the box is not sealed": lambda home: setattr(home, "promise", {"sealed": False}),
    "the box promises other files": lambda home: home.promise.update(digest="0" * 64),
    "the box says that the run failed": lambda home: home.promise.update(state="failed"),
    "more stays on the box": lambda home: home.promise.update(not_pulled={**NOTHING_LEFT, "files": 1, "bytes": 9}),
    "people chose otherwise": lambda home: home.promise.update(policy={"roles": ["log"]}),
    "the box says it in another form": lambda home: home.promise.update(sealed="yes", not_pulled=[1]),
    "its program does not know the question": lambda home: setattr(home, "promise", {"error": "usage", "exit": 64}),
    "it says nothing that is JSON": lambda home: setattr(home, "promise", float("nan")),
    "nothing was deployed": lambda home: setattr(home, "status", 72),
}


@pytest.mark.parametrize("harm", HARM)
def test_law_1_what_does_not_agree_does_not_stand(home: Home, harm: str) -> None:
    HARM[harm](home)
    found = home.look()
    assert (found["stands"], found["changed"], bool(found["why"])) == (False, False, True)


def test_a_further_copy_is_read_again_where_it_lies(home: Home, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for path in (path for path in home.root.rglob("*") if path.is_file()):
        target = copy / path.relative_to(home.root)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    manifest = home.world.bring_home("r1")
    claim = home.world.claim(manifest, not_pulled=NOTHING_LEFT, copies=[{"uri": copy.as_uri(), "how": "reread"}])
    receipts.establish(home.world.store, claim)
    assert home.look()["stands"]
    (copy / "c0/a1/out/model.bin").write_bytes(b"weighty")
    assert not home.look()["stands"]


def test_what_stays_on_the_box_is_told_each_time(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = [{"path": "c0/a1/cache", "bytes": 9, "why": "no artifact glob names it"}]
    left = {"files": 1, "bytes": 9, "listed": listed, "summary": "theirs"}
    claim = home.world.claim(home.world.bring_home("r1"), not_pulled=left)
    receipts.establish(home.world.store, claim)
    told: list[str] = []
    monkeypatch.setattr(receipt_info.display, "display", told.append)
    home.promise["not_pulled"] = left
    assert home.look()["stands"]
    assert told == [
        "1 file (9 bytes) of the run stay on the box and die with it: c0/a1/cache (no artifact glob names it)"
    ]
