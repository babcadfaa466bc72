# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A wrong value that a team gave is told with the file and the line where it stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible_collections.tenant.gpu.plugins.plugin_utils import origins

VARIABLES = """\
---
platform_data_dir: relative
platform_storage:
  - tier: disk
    path: /
    survives_stop: true
  - {tier: other, path: 7}
platform_shared_fs: true
platform_free_egress:
"""


@pytest.fixture
def team(tmp_path: Path) -> tuple[str, dict[str, Any]]:
    """A file of variables, and what Ansible reads of it."""
    path = tmp_path / "box-a.yml"
    path.write_text(VARIABLES)
    read: dict[str, Any] = DataLoader().load_from_file(str(path))
    return str(path), read


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("platform_data_dir", 2),
        ("platform_storage[0].path", 5),
        ("platform_storage[1].path", 7),
        # A truth value carries no place: what is around it does.
        ("platform_storage[0].survives_stop", 4),
        ("platform_storage[0].no_such_key", 4),
        ("platform_storage[7].path", 4),
    ],
)
def test_a_value_is_told_with_its_line(team: tuple[str, dict[str, Any]], key: str, line: int) -> None:
    path, read = team
    assert origins.place_of(read, key) == f"{path}:{line}"


@pytest.mark.parametrize("key", ["platform_shared_fs", "platform_free_egress", "platform_nothing", "", "(file)"])
def test_where_nobody_knows_nothing_is_told(team: tuple[str, dict[str, Any]], key: str) -> None:
    assert origins.place_of(team[1], key) == ""


def test_a_core_without_these_tags_tells_the_key_alone(
    team: tuple[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(origins, "Origin", None)
    assert origins.place_of(team[1], "platform_data_dir") == ""


def test_a_value_of_a_command_line_has_no_file() -> None:
    assert origins.place_of({"platform_data_dir": "relative"}, "platform_data_dir") == ""
