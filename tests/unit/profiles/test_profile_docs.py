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


def test_the_pages_in_the_repository_are_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert profile_docs.main(["--root", str(ROOT), "--check"]) == 0, capsys.readouterr().err


def test_it_writes_once(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [path.stem for path in (checkout / "inventories/profiles/group_vars").glob("*.yml")]
    assert profile_docs.main(["--root", str(checkout), "--check"]) == 1
    assert not (checkout / "docs").exists(), "a check writes nothing"
    assert profile_docs.main(["--root", str(checkout)]) == 0
    assert capsys.readouterr().out.count("wrote ") == len(names) + 1
    assert sorted(page.stem for page in (checkout / "docs/platforms").iterdir()) == sorted(names)
    assert profile_docs.main(["--root", str(checkout)]) == 0
    assert capsys.readouterr().out == ""
    assert profile_docs.main(["--root", str(checkout), "--check"]) == 0


@pytest.mark.parametrize(
    ("was", "now"),
    [
        ("platform_hf_home: /workspace/hf", "platform_hf_home: /workspace/elsewhere"),
        ("survives_stop: false", "survives_stop: true"),
        ("verb: stop", "verb: pause"),
        ("after: 0s", "after: 7d"),
    ],
)
def test_a_changed_fact_shows_on_the_page_of_its_platform_alone(
    checkout: Path, capsys: pytest.CaptureFixture[str], was: str, now: str
) -> None:
    profile_docs.main(["--root", str(checkout)])
    capsys.readouterr()
    profile = checkout / "inventories/profiles/group_vars/runpod.yml"
    assert was in profile.read_text()
    profile.write_text(profile.read_text().replace(was, now))
    assert profile_docs.main(["--root", str(checkout), "--check"]) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if "platforms.md" not in line]
    assert [line.split(" is out of date")[0] for line in said] == [str(checkout / "docs/platforms/runpod.md")]


def test_what_is_written_by_hand_stays(checkout: Path) -> None:
    page = checkout / "docs/platforms/vast.md"
    page.parent.mkdir(parents=True)
    page.write_text(f"# Ours\n\nBefore.\n\n{profile_docs.BEGIN}\nstale\n{profile_docs.END}\n\nAfter.\n")
    assert profile_docs.main(["--root", str(checkout)]) == 0
    text = page.read_text()
    assert text.startswith(f"# Ours\n\nBefore.\n\n{profile_docs.BEGIN}\n\n{profile_docs.HEADING}\n")
    assert text.endswith(f"{profile_docs.END}\n\nAfter.\n")
    assert "stale" not in text


@pytest.mark.parametrize(
    "written",
    [
        "# No place\n",
        f"# Open\n{profile_docs.BEGIN}\n",
        f"# Turned\n{profile_docs.END}\n{profile_docs.BEGIN}\n",
        f"# Twice\n{profile_docs.BEGIN}\n{profile_docs.END}\n{profile_docs.BEGIN}\n{profile_docs.END}\n",
    ],
)
def test_a_page_without_one_place_for_it_is_a_sentence_and_stays(
    checkout: Path, capsys: pytest.CaptureFixture[str], written: str
) -> None:
    page = checkout / "docs/platforms/vast.md"
    page.parent.mkdir(parents=True)
    page.write_text(written)
    assert profile_docs.main(["--root", str(checkout)]) == 2
    assert "docs/platforms/vast.md needs these two lines" in capsys.readouterr().err
    assert page.read_text() == written


def test_a_broken_profile_is_a_sentence(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (checkout / "inventories/profiles/group_vars/odd.yml").write_text("platform_name: odd\n", encoding="utf-8")
    assert profile_docs.main(["--root", str(checkout)]) == 2
    assert "platform_kind: is missing" in capsys.readouterr().err


def test_the_index_has_every_key_and_every_platform() -> None:
    page = profile_docs.render({sample["platform_name"]: sample for sample in SAMPLES})
    for key in profile_schema.PLATFORM_KEYS:
        assert f"| `{key}` |" in page
    for sample in SAMPLES:
        assert f"| [{sample['platform_name']}](platforms/{sample['platform_name']}.md) |" in page


def test_a_page_has_verbs_clocks_storage_proxies_and_source() -> None:
    pages = {sample["platform_name"]: profile_docs.render_page(sample, "") for sample in SAMPLES}
    for sample in SAMPLES:
        page = pages[sample["platform_name"]]
        for one in [one for plan in sample["platform_verbs"].values() for one in plan]:
            assert f"| {one['verb']} | {one['transport']} |" in page
        for clock in sample["platform_clocks"]:
            assert clock["effect"] in page
        for tier in sample["platform_storage"]:
            path = f"`{tier['path']}`" if tier["path"] else "-"
            assert f"| {tier['tier']} | {path} |" in page
        for proxy in sample["platform_ssh_proxies"]:
            assert f"| {proxy['host']} | {proxy['instead']} |" in page
        assert sample["platform_source"] in page
    assert "| full stop | terminate | api | yes | yes | network_volume | no |" in pages["runpod"]
    assert any("| full stop 4 | delete snapshots | cli |" in page for page in pages.values())


def test_every_table_is_whole() -> None:
    named = {sample["platform_name"]: sample for sample in SAMPLES}
    for page in (profile_docs.render(named), *(profile_docs.render_page(sample, "") for sample in SAMPLES)):
        width = 0
        for line in page.splitlines():
            cells = line.replace("\\|", "").count("|") if line.startswith("|") else 0
            assert not cells or not width or cells == width, line
            width = cells
