# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The watcher's thread: it outlives every answer, and whoever reads its notice may do so while it changes."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import preemption

ENDS = preemption.Notice(preemption.STOP, "spot terminate", "2026-11-21T08:22:00Z")
PATIENCE_S = 20.0


class Flickers(preemption.Watcher):
    """Its notice is taken back as soon as it was looked at once."""

    looks = 0

    @property  # type: ignore[override]
    def notice(self) -> preemption.Notice | None:
        self.looks += 1
        return ENDS if self.looks % 2 else None

    @notice.setter
    def notice(self, _value: preemption.Notice | None) -> None:
        return


def test_a_notice_that_is_taken_back_while_it_is_read_ends_nobody() -> None:
    watcher = Flickers("aws_imds")
    for looks in (0, 1):
        for read in (watcher.left_s, watcher.as_dict, watcher.ends):
            watcher.looks = looks
            read()
            assert watcher.looks == looks + 1, "one look, so what was seen is what is told"


@pytest.mark.parametrize("error", [TypeError("argument of type 'int' is not iterable"), ValueError("Invalid header")])
def test_an_answer_that_nobody_foresaw_is_told_and_the_next_one_is_read(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    asked, told = 0, threading.Event()

    def source(_service: preemption.MetadataService) -> Iterator[preemption.Notice | None]:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise error
        assert watcher.problem == f"{type(error).__name__}: {error}"
        yield ENDS
        told.set()
        yield ENDS

    monkeypatch.setitem(preemption.SOURCES, "aws_imds", source)
    watcher = preemption.Watcher("aws_imds", poll_s=0.001)
    watcher.start()
    try:
        assert told.wait(PATIENCE_S)
        assert (watcher.notice, watcher.problem) == (ENDS, "")
        assert watcher.ends()
    finally:
        watcher.stop()


@pytest.mark.parametrize("resources", [5, None, {"a": 1}, "vm-1 and others"])
def test_resources_that_are_no_list_name_no_machine(resources: object) -> None:
    document = {"Events": [{"EventType": "Preempt", "Resources": resources}]}
    assert preemption.azure_notice(document, "vm-1") is None
