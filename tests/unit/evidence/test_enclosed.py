# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Small trees that go with the question what is there: how often a box is asked, and what is never put in its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import delivery, enclosed, settling, transfer
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.plugin_utils import checked_transfer, peer_answers, transfer_order

NAMES = ("train.py", "nets/resnet.py", "nets/__init__.py")


class Pushed:
    """A tree that goes to a box, which is asked in this process. There is no other way to it."""

    def __init__(self, folder: Path) -> None:
        self.src, self.dest = folder / "code", folder / "box" / "code"
        for name in NAMES:
            (self.src / name).parent.mkdir(parents=True, exist_ok=True)
            (self.src / name).write_text(f"# {name}\n" * 3)
        self.asked: list[tuple[str, int]] = []

    def order(self, **changes: Any) -> transfer_order.Order:
        given: dict[str, Any] = {
            "pull": False,
            "src": str(self.src),
            "dest": str(self.dest),
            "files": delivery.scan_tree(str(self.src)),
            "enclose": True,
            **changes,
        }
        return transfer_order.Order(**given)

    def run(self, **changes: Any) -> dict[str, Any]:
        order = self.order(**changes)

        def ask(op: str, files: Any, within_s: float, **options: Any) -> dict[str, Any]:
            self.asked.append((op, len(options.get("contents", {}))))
            asked = json.loads(json.dumps({"op": op, "files": files, **options}))
            return dict(json.loads(json.dumps(delivery.answer(asked, order.check_mode))))

        link = transfer.Link()
        return checked_transfer.run(order, transfer_order.Far("box1", link, ask))

    def there(self) -> dict[str, str]:
        found = (path for path in self.dest.rglob("*") if path.is_file())
        return {str(path.relative_to(self.dest)): path.read_text() for path in found}


@pytest.fixture
def pushed(tmp_path: Path) -> Pushed:
    return Pushed(tmp_path)


def test_a_small_tree_is_there_after_one_question(pushed: Pushed) -> None:
    result = pushed.run()
    assert pushed.asked == [("survey", 3)]
    assert (result["changed"], result["verified"], result["transport"]) == (True, True, "enclosed")
    assert (result["transferred_files"], result["attempts"]) == (3, 1)
    assert 0 < result["wire_bytes"] < 1000
    assert pushed.there() == {name: f"# {name}\n" * 3 for name in NAMES}
    again = pushed.run()
    assert (again["changed"], again["verified"], again["transport"]) == (False, True, "none")


def test_what_lies_there_and_is_wrong_is_put_right(pushed: Pushed) -> None:
    pushed.run()
    (pushed.dest / "train.py").write_text("# somebody else's\n")
    result = pushed.run()
    assert (result["changed"], result["transferred"], result["transport"]) == (True, ["train.py"], "enclosed")
    assert pushed.there()["train.py"] == "# train.py\n" * 3


def test_a_check_run_sends_nothing(pushed: Pushed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checked_transfer._Transfer, "_preflight", lambda *_any: "")
    result = pushed.run(check_mode=True)
    assert pushed.asked == [("survey", 0)]
    assert result["changed"]
    assert not pushed.dest.exists()


@pytest.mark.parametrize("extra", ["refuse", "quarantine"])
def test_nothing_is_put_beside_files_that_have_to_go_first(
    pushed: Pushed, monkeypatch: pytest.MonkeyPatch, extra: str
) -> None:
    pushed.dest.mkdir(parents=True)
    (pushed.dest / "old.py").write_text("old\n")
    monkeypatch.setattr(checked_transfer._Transfer, "_preflight", no_other_way)
    with pytest.raises((TenantFailure, NoOtherWay)):
        pushed.run(extra=extra)
    assert pushed.asked == [("survey", 0)]
    assert pushed.there() == {"old.py": "old\n"}


class NoOtherWay(Exception):
    """The transfer went on to carry files."""


def no_other_way(*_any: Any) -> str:
    raise NoOtherWay


@pytest.mark.parametrize("much", [{"train.py": enclosed.MOST_BYTES}, {f"n{i}": 1 for i in range(enclosed.MOST_FILES)}])
def test_a_large_tree_is_no_question(pushed: Pushed, monkeypatch: pytest.MonkeyPatch, much: dict[str, int]) -> None:
    for name, size in much.items():
        (pushed.src / name).write_bytes(b"x" * size)
    monkeypatch.setattr(checked_transfer._Transfer, "_preflight", no_other_way)
    with pytest.raises(NoOtherWay):
        pushed.run()
    assert pushed.asked == [("survey", 0)]


def test_a_file_that_changes_after_it_was_hashed_does_not_land(pushed: Pushed, monkeypatch: pytest.MonkeyPatch) -> None:
    order = pushed.order()
    (pushed.src / "train.py").write_text("# changed\n" * 2)
    monkeypatch.setattr(checked_transfer._Transfer, "_preflight", no_other_way)
    with pytest.raises(NoOtherWay):
        pushed.run(files=order.files)
    assert sorted(pushed.there()) == ["nets/__init__.py", "nets/resnet.py"]


def test_a_file_that_is_gone_since_it_was_hashed_is_left_to_the_other_way(pushed: Pushed) -> None:
    files = delivery.scan_tree(str(pushed.src))
    (pushed.src / "train.py").unlink()
    assert enclosed.contents(str(pushed.src), files) == {}


def test_without_room_nothing_lands_and_why_is_said(pushed: Pushed) -> None:
    with pytest.raises(TenantFailure, match="bytes are to come"):
        pushed.run(reserve_bytes=1 << 60)
    assert pushed.asked == [("survey", 3)]
    assert not pushed.there()


def test_a_planted_link_in_the_staging_folder_is_not_followed(pushed: Pushed, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    staged = Path(settling.staging(str(pushed.dest)))
    staged.mkdir(parents=True)
    (staged / "nets").symlink_to(elsewhere)
    with pytest.raises(TenantFailure):
        pushed.run()
    assert not list(elsewhere.iterdir())
    (staged / "nets").unlink()
    (staged / "train.py").symlink_to(elsewhere / "train.py")
    with pytest.raises(TenantFailure, match="leads out"):
        pushed.run()
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize(
    "lie", [{"landed": ["../x"]}, {"landed": ["train.py"], "good": ["train.py"]}, {"landed": 3}, {"landed": ["a", "a"]}]
)
def test_a_box_that_says_it_has_what_nobody_sent_is_not_believed(lie: dict[str, Any], pushed: Pushed) -> None:
    answer = {"good": [], "landed": [], "extra": [], "room": {}, "rsync_problem": "", "python": "/usr/bin/python3"}
    files = delivery.scan_tree(str(pushed.src))
    assert peer_answers.survey({**answer, "landed": ["train.py"]}, files).landed == {"train.py"}
    with pytest.raises(peer_answers.Senseless):
        peer_answers.survey({**answer, **lie}, files)
