# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A box that answers the questions of a transfer with anything: it is refused in words, never with a traceback."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import carrier, delivery, destination, transfer
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.plugin_utils import (
    checked_transfer,
    object_storing,
    peer_answers,
    transfer_order,
)

ODD: list[Any] = [None, 3, True, "text", [], [3], [None], [[]], ["stranger"], {}, [{}], float("inf")]
ODD += [
    [{"path": "a"}],
    [{"path": "a", "what": 3}],
    [{"path": "a", "what": "x", "more": 1}],
    [{"path": [], "what": ""}],
]
ODD += [
    {"problem": "", "block_bytes": float("inf")},
    {"problem": "", "limits": 3},
    "/bin/\0x",
    "/" * 5000,
    "python3",
    "/bin/\x1b[2J",
]
KEYS = {
    "offer": ["mismatches", "rsync_problem", "python"],
    "survey": ["good", "extra", "room", "rsync_problem", "python"],
    "settle": ["settled", "mismatches", "quarantine"],
}


class Box:
    """This machine, whose answer to one question goes through ``change`` first."""

    def __init__(self, folder: Path, op: str, change: Callable[[dict[str, Any]], Any]) -> None:
        self.op, self.change = op, change
        self.patience: dict[str, float] = {}
        self.source, self.dest = folder / "source", folder / "dest"
        self.source.mkdir()
        for name in ("a", "b"):
            (self.source / name).write_bytes(name.encode())

    def ask(self, op: str, files: Any, within_s: float = 0, **options: Any) -> Any:
        self.patience[op] = within_s
        answer = delivery.answer(
            {"within": "", "aside": [], "inode_cap": 0, **options, "op": op, "files": files}, False
        )
        return self.change(answer) if op == self.op else answer

    def transfer(self, transport: str = "stream", extra: str = "report", deadline_s: int = 60) -> dict[str, Any]:
        order = transfer_order.Order(
            pull=self.op == "offer",
            src=str(self.source),
            dest=str(self.dest),
            files=delivery.scan_tree(str(self.source)),
            transport=transport,
            extra=extra,
            deadline_s=deadline_s,
            patience=carrier.Patience(0, 0, 0.01),
        )
        return checked_transfer.run(order, transfer_order.Far("box1", transfer.Link(), self.ask))


each_key = pytest.mark.parametrize(("op", "key"), [(op, key) for op, keys in KEYS.items() for key in keys])
READERS = {"offer": peer_answers.offer, "survey": peer_answers.survey, "settle": peer_answers.settled}


@each_key
@pytest.mark.parametrize("odd", ["missing", 3, [None]], ids=ascii)
def test_an_odd_answer_ends_a_transfer_in_words(tmp_path: Path, op: str, key: str, odd: Any) -> None:
    def change(answer: dict[str, Any]) -> dict[str, Any]:
        return {
            **{name: value for name, value in answer.items() if name != key},
            **({} if odd == "missing" else {key: odd}),
        }

    with pytest.raises(TenantFailure) as caught:
        Box(tmp_path, op, change).transfer()
    failure = caught.value
    assert (failure.box, bool(failure.safe), bool(failure.fix)) == ("box1", True, True)


@each_key
def test_whatever_is_in_an_answer_it_is_read_or_refused(tmp_path: Path, op: str, key: str) -> None:
    box = Box(tmp_path, op, lambda answer: answer)
    files = delivery.scan_tree(str(box.source))
    asked = delivery.by_name(files) if op == "offer" else [file.as_dict() for file in files]
    honest = box.ask(op, asked, root=str(box.source))
    for odd in ODD:
        with contextlib.suppress(peer_answers.Senseless):
            read: Any = READERS[op]({**honest, key: odd}, files)
            if op == "survey":
                assert isinstance(destination.room_problem(files, read.room, 0), str)
            for form, value in (("python", str), ("mismatches", tuple), ("good", frozenset), ("quarantine", str)):
                assert isinstance(getattr(read, form, value()), value)


@pytest.mark.parametrize("op", sorted(KEYS))
def test_an_answer_with_nothing_in_it_is_refused(tmp_path: Path, op: str) -> None:
    with pytest.raises(TenantFailure, match=r"box1: the box's answer about its files makes no sense"):
        Box(tmp_path, op, lambda _answer: {}).transfer()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("settled", ["a", "a"]),
        ("settled", ["../../etc/passwd"]),
        ("mismatches", [{"path": "c", "what": "x"}]),
        ("mismatches", [{"path": "a", "what": "x"}, {"path": "\x1b[2J", "what": "x"}]),
    ],
)
def test_files_that_nobody_asked_about_are_not_named(tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(TenantFailure, match=f"{key} names files that it was not asked about") as caught:
        Box(tmp_path, "settle", lambda answer: {**answer, key: value}).transfer()
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    ("op", "more"),
    [
        ("offer", {"mismatches": [{"path": "a", "what": "\x1b[2J" * 1000}]}),
        ("offer", {"rsync_problem": "\x1b[2J" * 1000}),
        ("survey", {"room": {"problem": "\x1b[2J" * 1000}}),
        ("survey", {"extra": ["\x1b[2J" * 1000]}),
        ("settle", {"mismatches": [{"path": "a", "what": "\x1b[2J" * 1000}], "settled": []}),
    ],
)
def test_what_a_box_says_is_shown_bounded_and_in_plain_characters(tmp_path: Path, op: str, more: Any) -> None:
    box = Box(tmp_path, op, lambda answer: {**answer, **more})
    try:
        message = box.transfer(transport="rsync", extra="refuse")["msg"]
    except TenantFailure as failure:
        message = str(failure)
    assert "x1b[2J" in message
    assert message.isprintable()
    assert len(message) < 2000


def test_extra_files_are_named_in_plain_characters(tmp_path: Path) -> None:
    box = Box(tmp_path, "survey", lambda answer: {**answer, "extra": ["\x1b[2J", "plain"]})
    assert box.transfer()["extra"] == ["\\x1b[2J", "plain"]


@pytest.mark.parametrize("path", ["\x1b[2J", "c", None, ["a"], {}])
def test_files_of_a_store_that_nobody_asked_about_are_not_named(tmp_path: Path, path: Any) -> None:
    standing = object_storing.Standing()
    means = object_storing.Means("/far", 0.0)
    sender = object_storing.Sender(None, None, means, standing, lambda _standing: None)  # type: ignore[arg-type]
    files = delivery.scan_tree(str(Box(tmp_path, "settle", dict).source))
    answer = {"whole": [{"path": path, "what": "x"}, 3, {"path": "a", "what": "\x1b"}]}
    sender._take_wrong_files(files, answer)
    assert standing.mismatches == {"a": "\\x1b"}


def test_an_honest_answer_is_taken(tmp_path: Path) -> None:
    assert Box(tmp_path, "settle", lambda answer: answer).transfer()["verified"] is True


def test_a_path_that_is_named_twice_by_a_liar_is_no_second_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    files = delivery.scan_tree(str(tmp_path))
    twice = {"mismatches": [{"path": "a", "what": "x"}] * 2, "rsync_problem": "", "python": "/bin/python3"}
    assert len(peer_answers.offer(twice, files).mismatches) == 1


@pytest.mark.parametrize("deadline_s", [0, 300, 7200])
def test_every_question_has_a_deadline(tmp_path: Path, deadline_s: int) -> None:
    """Looking is soon done; hashing may take what is left; what arrived is settled whatever is left."""
    for op in ("offer", "survey"):
        (tmp_path / op).mkdir()
        box = Box(tmp_path / op, op, lambda answer: answer)
        with contextlib.suppress(TenantFailure):
            box.transfer(deadline_s=deadline_s)
        asked = {"offer"} if op == "offer" else {"survey", "settle"}
        assert set(box.patience) == asked
        assert all(0 < seconds <= max(deadline_s, 60) for seconds in box.patience.values())
        assert box.patience.get("offer", 0) <= 600
        assert box.patience.get("settle", 60) >= 60
