# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Where results come from: everything that is known, and the word unknown for the rest."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import provenance
from ansible_collections.tenant.gpu.plugins.module_utils.box import control, records
from ansible_collections.tenant.gpu.plugins.module_utils.box.layout import Layout

NOW = "2026-11-21T05:00:00Z"
RECORD = {
    "platform": "vast",
    "machine_id": 7,
    "price_per_hour": 0.25,
    "created_at": "2026-11-21T01:00:00Z",
    "admission": {
        "probe": {
            "gpus": [{"name": "RTX 4090", "memory_mb": 24564, "driver": "550.54.15", "uuid": "GPU-1"}] * 2,
            "cuda": {"driver_max": "12.4"},
            "torch": {"version": "2.5.1"},
            "training_python": {"version": "3.11.9"},
        }
    },
}
TOLD = {"code_sha256": "c" * 64, "spec_sha256": "5" * 64, "seeds": {"main": 5}, "torch": "2.13.0+cu126", "python": ""}


def test_what_is_known_is_put_together() -> None:
    found = provenance.compose(TOLD, RECORD, NOW)
    assert set(found) == set(provenance.FIELDS)
    assert found["seeds"] == {"main": 5}
    assert (found["platform"], found["machine_id"], found["driver"], found["cuda"]) == ("vast", 7, "550.54.15", "12.4")
    assert found["gpus"] == [{"name": "RTX 4090", "memory_mb": 24564}] * 2
    assert found["torch"] == "2.13.0+cu126", "what the box has now, not what it had when it was admitted"
    assert found["python"] == "3.11.9"
    assert found["cost"]["estimate"] == 1.0
    assert "the bill decides" in found["cost"]["how"]
    assert found["supervisor_sha256"] == "unknown"


def test_what_nobody_knows_is_unknown_and_never_zero() -> None:
    assert provenance.compose({}, None, NOW) == dict.fromkeys(provenance.FIELDS, "unknown")


@pytest.mark.parametrize(
    "changes",
    [
        {"price_per_hour": None},
        {"price_per_hour": "0.25"},
        {"price_per_hour": True},
        {"created_at": None},
        {"created_at": "yesterday"},
        {"created_at": "2026-11-22T00:00:00Z"},
    ],
)
def test_the_cost_is_unknown_without_a_price_and_a_start_in_the_past(changes: dict[str, Any]) -> None:
    assert provenance.compose({}, {**RECORD, **changes}, NOW)["cost"] == "unknown"


@pytest.mark.parametrize("admission", [None, [], {"probe": "x"}, {"probe": {"gpus": "x", "cuda": [], "torch": 1}}])
def test_a_strange_probe_is_no_traceback(admission: object) -> None:
    found = provenance.compose({}, {**RECORD, "admission": admission}, NOW)
    assert (found["gpus"], found["driver"], found["torch"]) == ("unknown", "unknown", "unknown")


def test_people_may_add_their_own() -> None:
    assert provenance.compose({"dataset": "digits v2"}, RECORD, NOW)["dataset"] == "digits v2"


def test_the_box_tells_of_its_run_and_of_the_python_that_trains(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    assert provenance.told_by_box(layout, "r", True) == {}
    run = {
        "project": "p", "box": "b1", "generation": 1, "provider_id": "7", "run_id": "r", "spec_sha256": "a" * 64,
        "code_sha256": "b" * 64, "python": sys.executable, "command": ["python"], "workdir": "/",
        "cells": [{"id": "c1", "seed": 5}, {"id": "c2", "seed": 6}], "artifacts": [],
    }  # fmt: skip
    control.register(layout, control.Caller(()), run)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "supervisor-0123456789ab.pyz").write_bytes(b"program")
    told = provenance.told_by_box(layout, "r", True)
    assert told["seeds"] == {"c1": 5, "c2": 6}
    assert told["supervisor_sha256"] == records.sha256_file(str(tmp_path / "bin" / "supervisor-0123456789ab.pyz"))
    assert told["python"] == sys.version.split()[0]
    torch = pytest.importorskip("torch")
    assert told["torch"] == torch.__version__
    control.register(layout, control.Caller(()), {**run, "python": "/nowhere/python", "spec_sha256": "c" * 64})
    assert "torch" not in provenance.told_by_box(layout, "r", True)


def test_a_package_of_another_version_is_another_hash_and_the_same_ones_are_the_same(tmp_path: Path) -> None:
    run: dict[str, Any] = {
        "project": "p", "box": "b1", "generation": 1, "provider_id": "7", "run_id": "r", "spec_sha256": "a" * 64,
        "code_sha256": "b" * 64, "python": sys.executable, "command": ["python"], "workdir": "/",
        "cells": [{"id": "c1"}], "artifacts": [],
    }  # fmt: skip
    beside = tmp_path / "packages"
    (beside / "numbers-1.0.dist-info").mkdir(parents=True)
    (beside / "loose.txt").touch()
    layout = Layout(str(tmp_path / "box"))
    control.register(layout, control.Caller(()), {**run, "env": {"PYTHONPATH": str(beside)}})

    def told() -> Any:
        return provenance.told_by_box(layout, "r", True)["packages_sha256"]

    first = told()
    assert len(first) == 64
    assert told() == first
    (beside / "loose.txt").unlink()
    assert told() == first, "what is no package counts for nothing"
    (beside / "numbers-1.0.dist-info").rename(beside / "numbers-1.1.dist-info")
    assert told() != first


def test_law_8_a_program_that_a_copied_record_names_is_not_started(tmp_path: Path) -> None:
    program, proof = tmp_path / "python", tmp_path / "it-ran"
    program.write_text(f"#!/bin/sh\ntouch {proof}\n")
    program.chmod(0o755)
    run = {
        "project": "p", "box": "b1", "generation": 1, "provider_id": "7", "run_id": "r", "spec_sha256": "a" * 64,
        "code_sha256": "b" * 64, "python": str(program), "command": ["python"], "workdir": "/",
        "cells": [{"id": "c1"}], "artifacts": [],
    }  # fmt: skip
    layout = Layout(str(tmp_path / "copy"))
    control.register(layout, control.Caller(()), run)
    assert provenance.told_by_box(layout, "r", False)["code_sha256"] == "b" * 64
    assert not proof.exists()
    provenance.told_by_box(layout, "r", True)
    assert proof.exists(), "or this test proves nothing"
