# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import profile_schema
from sample_profiles import SAMPLES

from gpu_tenant import profile_docs

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "inventories" / "profiles", tmp_path / "inventories" / "profiles")
    return tmp_path


def test_the_page_in_the_repository_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert profile_docs.main(["--root", str(ROOT), "--check"]) == 0, capsys.readouterr().err


def test_it_writes_once(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert profile_docs.main(["--root", str(checkout), "--check"]) == 1
    assert profile_docs.main(["--root", str(checkout)]) == 0
    assert capsys.readouterr().out.startswith("wrote ")
    assert profile_docs.main(["--root", str(checkout)]) == 0
    assert capsys.readouterr().out == ""
    assert profile_docs.main(["--root", str(checkout), "--check"]) == 0


def test_a_changed_fact_shows(checkout: Path) -> None:
    profile_docs.main(["--root", str(checkout)])
    vast = checkout / "inventories/profiles/group_vars/vast.yml"
    vast.write_text(vast.read_text().replace("platform_data_dir: /workspace", "platform_data_dir: /elsewhere"))
    assert profile_docs.main(["--root", str(checkout), "--check"]) == 1


def test_a_broken_profile_is_a_sentence(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (checkout / "inventories/profiles/group_vars/odd.yml").write_text("platform_name: odd\n", encoding="utf-8")
    assert profile_docs.main(["--root", str(checkout)]) == 2
    assert "platform_kind: is missing" in capsys.readouterr().err


def test_every_key_and_every_platform_is_on_the_page() -> None:
    page = profile_docs.render({sample["platform_name"]: sample for sample in SAMPLES})
    for key in profile_schema.PLATFORM_KEYS:
        assert f"| `{key}` |" in page
    for sample in SAMPLES:
        assert f"\n## {sample['platform_name']}\n" in page
    assert "| full stop 4 | delete snapshots | cli |" in page


def test_every_table_is_whole() -> None:
    page = profile_docs.render({sample["platform_name"]: sample for sample in SAMPLES})
    width = 0
    for line in page.splitlines():
        cells = line.replace("\\|", "").count("|") if line.startswith("|") else 0
        assert not cells or not width or cells == width, line
        width = cells
