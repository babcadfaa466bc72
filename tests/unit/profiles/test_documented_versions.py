# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
PLUGINS = sorted(
    path
    for kind in ("modules", "inventory", "filter")
    for path in (ROOT / "plugins" / kind).iterdir()
    if path.is_file() and "version_added" in path.read_text(encoding="utf-8")
)


def version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def test_there_is_something_to_compare() -> None:
    assert len(PLUGINS) > 40


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: path.name)
def test_nothing_is_said_to_come_with_a_version_that_is_not_there_yet(path: Path) -> None:
    ours = version(yaml.safe_load((ROOT / "galaxy.yml").read_text())["version"])
    told = re.findall(r"^ *version_added: *[\"']?([0-9.]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert told
    assert all(version(each) <= ours for each in told)
