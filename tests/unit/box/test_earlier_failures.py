# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What earlier scripts got wrong (docs/earlier-failures.md): the tests of it that fit nowhere else, and a check that
every test which that page names exists, or a page of traps: a platform's, or that of all platforms."""

from __future__ import annotations

import ast
import copy
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils import profile_rules, supervisor_client
from ansible_collections.tenant.gpu.plugins.module_utils.box import run_record, shim
from ansible_collections.tenant.gpu.plugins.module_utils.box.refusal import Refused
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from still_clock import StillClock

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "earlier-failures.md"
TRAPS = ROOT / "docs" / "platforms"
OF_EVERY_PLATFORM = ROOT / "docs" / "traps.md"
UNIVERSAL = [f"U{number}" for number in range(1, 45)]
sys.path.insert(0, str(ROOT / "tests" / "unit" / "profiles"))
from sample_profiles import BASE  # noqa: E402 - it lies beside the tests of profiles

RUN: dict[str, Any] = {
    "project": "p", "box": "b1", "generation": 1, "provider_id": "7", "run_id": "r", "spec_sha256": "a" * 64,
    "code_sha256": "b" * 64, "python": "/usr/bin/python3", "command": ["python"], "workdir": "/",
    "cells": [{"id": "c"}],
}  # fmt: skip


def test_1_an_empty_value_means_none() -> None:
    """Not another platform's default: no hook, no file, no folder, and nothing in the trainer's environment."""
    run = run_record.check_run({**RUN, "env_file": "", "durable": {"kind": "", "path": ""}, "env": {"PROXY": ""}})
    assert (run["env_file"], run["durable"]) == ("", {"kind": "none", "path": ""})
    environment = shim.trainer_environment({"PROXY": "http://left-over"}, run, {}, {}, 1)
    assert environment["PROXY"] == ""
    for path in sorted((ROOT / "inventories" / "profiles" / "group_vars").glob("*.yml")):
        profile = yaml.safe_load(path.read_text())
        if profile["platform_durable_kind"] in ("pull", "none"):
            assert profile["platform_durable_path"] == "", path
            assert profile_rules.problems_as_written(profile) == []


@pytest.mark.parametrize("path", ["off-box", "", "./durable", "~/durable"])
def test_2_a_durable_path_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(Refused, match="absolute path"):
        run_record.check_run({**RUN, "durable": {"kind": "mount", "path": path}})
    wrong = {**copy.deepcopy(BASE), "platform_durable_kind": "mount", "platform_durable_path": path}
    assert any(problem.key == "platform_durable_path" for problem in profile_rules.problems_after_merge(wrong, "base"))


def test_3_secrets_with_crlf_are_taken_without_it(tmp_path: Path) -> None:
    path = tmp_path / "secrets.env"
    path.write_bytes(b"# from another system\r\n\r\nKEY=one two\r\nLAST=three")
    path.chmod(0o600)
    assert run_record.read_env_file(str(path)) == {"KEY": "one two", "LAST": "three"}


def test_5_a_start_that_shows_no_life_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock of its own: a supervisor that says for ever that it is starting a cell."""
    waiting = {"cell": "c", "state": "queued", "liveness": "none", "why": ""}
    run = {"run_id": "r", "state": "queued", "cells": [waiting], "blocked_by": []}
    answer = json.dumps({"box": "b1", "daemon": {"alive": True}, "runs": [run]})
    clock = StillClock()
    monkeypatch.setattr(supervisor_client, "time", clock)
    client = supervisor_client.SupervisorClient(lambda argv, text: (0, answer, ""), ["python", "pyz"])
    with pytest.raises(TenantFailure, match="no cell of run r came to life within 60 s"):
        client.prove_live("r", 60)
    assert 60 <= clock.now < 70


@pytest.mark.parametrize("said", ["verified 2026-11-21", "2026-11-21", "re-verify before 2026-11", "", "2026-13", None])
def test_8_a_verification_is_one_month_and_nothing_else(said: str | None) -> None:
    problems = profile_rules.problems_as_written({**copy.deepcopy(BASE), "platform_verified": said})
    assert [problem.key for problem in problems] == ["platform_verified"]


def test_9_no_option_that_its_program_has_dropped() -> None:
    """``--resume-download`` of the Hugging Face client, and ``:-`` defaults that take an empty value for none."""
    stale = re.compile(r"--resume-download|\$\{[A-Z_]+:-/")
    folders = ("plugins", "roles", "src", "playbooks", "inventories", "examples")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".yml", ".j2")]
    assert len(files) > 100
    assert [str(path) for path in files if stale.search(path.read_text())] == []


# --- the page -------------------------------------------------------------------------------------------------------


def named_tests(page: Path) -> list[tuple[str, str]]:
    return re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text())


def defined_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


@pytest.mark.parametrize(
    ("path", "name"),
    sorted({named for page in (PAGE, OF_EVERY_PLATFORM, *TRAPS.glob("*.md")) for named in named_tests(page)}),
)
def test_every_test_that_the_page_names_exists(path: str, name: str) -> None:
    assert (ROOT / path).is_file()
    assert name in defined_in(ROOT / path)


def test_every_row_of_the_page_names_a_test() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if re.match(r"\| (?!---|#|what )", line)]
    assert [line for line in rows if "`tests/" not in line] == []
    numbers = [int(found.group(1)) for line in rows if (found := re.match(r"\| (\d+)[a-e]? \|", line))]
    assert sorted(set(numbers)) == list(range(1, 11)), "an item of the list is missing"
    # What was wrong with moving results, and with going on from checkpoints.
    others = [found.group(1) for line in rows if (found := re.match(r"\| ([MC]\d+) \|", line))]
    assert others == [*(f"M{number}" for number in range(1, 17)), *(f"C{number}" for number in range(1, 10))]
    assert len(named_tests(PAGE)) == PAGE.read_text().count("`tests/") - 1


def trap_rows(page: Path) -> list[list[str]]:
    """Of each trap: id, what it is, what happens here, and the tests."""
    lines = [line for line in page.read_text().splitlines() if re.match(r"\| [A-Z][A-Z0-9-]+ \|", line)]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def assert_every_trap_is_answered(page: Path, ids: list[str]) -> None:
    rows = trap_rows(page)
    assert [row[0] for row in rows] == ids
    for row in rows:
        assert len(row) == 4, row[0]
        assert all(row), row[0]
        assert "`tests/" in row[3] or row[3].endswith("."), row[0]
    # A name that is written in another way is a name that nobody checks.
    assert page.read_text().count("tests/") == page.read_text().count("`tests/")


def test_every_trap_of_every_platform_has_a_row_that_names_a_test_or_says_why_not() -> None:
    assert_every_trap_is_answered(OF_EVERY_PLATFORM, UNIVERSAL)


@pytest.mark.parametrize("page", sorted(TRAPS.glob("*.md")), ids=lambda page: page.stem)
def test_every_trap_of_a_platform_has_a_row_that_names_a_test_or_says_why_not(page: Path) -> None:
    profile = yaml.safe_load((ROOT / "inventories" / "profiles" / "group_vars" / f"{page.stem}.yml").read_text())
    assert_every_trap_is_answered(page, profile["platform_gotchas"])


@pytest.mark.parametrize("page", sorted(TRAPS.glob("*.md")), ids=lambda page: page.stem)
def test_a_page_of_a_platform_leads_to_the_traps_of_all_and_names_its_own_forms_of_them(page: Path) -> None:
    (said,) = re.findall(r"The traps of every platform.*?(?:\n\n)", page.read_text(), re.DOTALL)
    assert "(../traps.md)" in said
    forms = said.partition("(../traps.md)")[2]
    assert set(re.findall(r"\bU\d+\b", forms)) <= set(UNIVERSAL)
    own = {row[0] for row in trap_rows(page)}
    assert set(re.findall(r"\b[A-Z]+\d+\b", forms)) - set(UNIVERSAL) <= own
