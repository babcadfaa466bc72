# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The table by which the boxes of a play notice that two names reach one machine, without each reading all others."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.fixed_endpoints import FixedEndpoints, this_run
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore


class Play:
    """Boxes with addresses, and a count of how often Ansible was asked for one box's variables."""

    def __init__(self, folder: Path, places: dict[str, tuple[str, int]], run: str = "1 100") -> None:
        self.places = places
        self.asked = 0
        self.table = FixedEndpoints(StateStore(str(folder)), run, list(places), self._read)

    def _read(self) -> list[tuple[str, str, object]]:
        self.asked += len(self.places)
        return [(name, host, port) for name, (host, port) in self.places.items()]

    def sharing(self, name: str, fixed: bool = True) -> list[str]:
        return self.table.sharing(name, *self.places[name], fixed)


def many(count: int) -> dict[str, tuple[str, int]]:
    return {f"b{number}": (f"192.0.2.{number}", 22) for number in range(count)}


@pytest.mark.parametrize("count", [10, 60])
def test_every_box_is_read_once_however_many_look(tmp_path: Path, count: int) -> None:
    play = Play(tmp_path, many(count))
    for name in play.places:
        assert play.sharing(name) == []
    assert play.asked == count


def test_a_box_that_knows_its_port_better_does_not_make_all_be_read_again(tmp_path: Path) -> None:
    play = Play(tmp_path, many(20))
    for name, (host, _port) in list(play.places.items()):
        assert play.table.sharing(name, host, 2222, True) == []
    assert play.asked == 20


def test_both_names_of_one_machine_are_told(tmp_path: Path) -> None:
    play = Play(tmp_path, {**many(3), "twin": ("192.0.2.1", 22), "other-port": ("192.0.2.1", 23)})
    assert play.sharing("b1") == ["twin"]
    assert play.sharing("twin") == ["b1"]
    assert play.sharing("other-port") == []
    assert play.table.sharing("rented", "192.0.2.1", 22, False) == ["b1", "twin"]


@pytest.mark.parametrize("order", list(itertools.permutations(["b0", "b1"])))
def test_an_old_table_hides_no_pair(tmp_path: Path, order: tuple[str, str]) -> None:
    play = Play(tmp_path, many(2))
    for name in order:
        play.sharing(name)
    play.places.update(b0=("198.51.100.9", 22), b1=("198.51.100.9", 22))
    assert any(play.sharing(name) for name in order)


def test_an_old_table_refuses_nobody(tmp_path: Path) -> None:
    play = Play(tmp_path, many(2))
    assert play.sharing("b0") == []
    play.places.update(b0=("198.51.100.9", 22), b1=("192.0.2.0", 22))
    assert play.sharing("b1") == []


def test_another_run_or_other_hosts_read_anew(tmp_path: Path) -> None:
    first = Play(tmp_path, many(3))
    first.sharing("b0")
    for other in (Play(tmp_path, many(3), run="1 200"), Play(tmp_path, many(4), run="1 200")):
        other.sharing("b0")
        assert other.asked == len(other.places)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": "gpu-tenant/fixed-endpoints/v1", "of": 3}'])
def test_a_damaged_table_is_read_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "fixed-endpoints.json").write_text(text)
    play = Play(tmp_path, {"a": ("h", 1), "b": ("h", 1)})
    assert play.sharing("a") == ["b"]


def test_a_run_is_named_by_the_process_that_forked_us() -> None:
    pid, began = this_run().split()
    assert pid == str(os.getppid())
    assert began.isdigit()
