# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What the smoke command of a run is started with: the code of a job sees no key that rents or consents."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.action import smoke
from ansible_collections.tenant.gpu.plugins.modules import smoke as documented

# By the documentation of each, and not by what the action takes them from.
TAKEN = [
    "VAST_API_KEY", "RUNPOD_API_KEY", "LAMBDA_API_KEY", "PAPERSPACE_API_KEY", "KUBERNETES_TOKEN",
    "CONTROLLER_OAUTH_TOKEN", "CONTROLLER_PASSWORD", "TENANT_PASSWORD_BOX_1",
]  # fmt: skip
SHOW = "import json, os; print(json.dumps(dict(os.environ)))"


def seen(folder: Path, **env: str) -> dict[str, str]:
    spec: dict[str, Any] = {"id": "digits", "smoke": ["python", "-c", SHOW], "env": env, "workdir": "."}
    found: dict[str, str] = json.loads(smoke.run_smoke({**spec, "code_dir": str(folder)}, sys.executable, 600))
    return found


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that is shown whole in the tail of an output."""
    monkeypatch.setattr("os.environ", {"HF_TOKEN": "theirs", "VASTLY": "other", "TENANT_PASSWORD": "other"})


@pytest.mark.parametrize("name", TAKEN)
@pytest.mark.usefixtures("bare")
def test_no_key_of_an_account_reaches_it(name: str, tmp_path: Path) -> None:
    smoke.os.environ[name] = "planted"
    found = seen(tmp_path)
    assert name not in found
    assert found["HF_TOKEN"] == "theirs", "what a job logs in with is its own affair"
    assert {"VASTLY", "TENANT_PASSWORD"} <= found.keys()
    assert (found["CUDA_VISIBLE_DEVICES"], found["PYTHONDONTWRITEBYTECODE"]) == ("", "1")


@pytest.mark.usefixtures("bare")
def test_what_the_run_itself_sets_is_there_as_it_will_be_on_the_box(tmp_path: Path) -> None:
    assert seen(tmp_path, RUNPOD_API_KEY="of the job")["RUNPOD_API_KEY"] == "of the job"


def test_the_options_are_as_they_are_documented() -> None:
    options = yaml.safe_load(documented.DOCUMENTATION)["options"]
    spec = smoke.ActionModule.ARGUMENT_SPEC
    assert spec.keys() == options.keys()
    for name, option in options.items():
        told = (option["type"], option.get("required", False), option.get("default"))
        assert told == (spec[name]["type"], spec[name].get("required", False), spec[name].get("default")), name
