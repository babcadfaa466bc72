# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What the role deploy installs of a run's requirements."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

TASKS = Path(__file__).resolve().parents[3] / "roles" / "deploy" / "tasks" / "requirements.yml"
REQUIREMENTS = """\
torch==2.1
Torchvision>=0.10 ; python_version > "3.8"
torchaudio
numpy
torchmetrics==1.0
pytorch-lightning
# torch is of the image
"""


@pytest.fixture
def tasks() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = DataLoader().load_from_file(str(TASKS))
    return found


@pytest.mark.parametrize(("user", "may"), [("ubuntu", True), ("root", False), ("", False), (None, False)])
def test_only_who_cannot_break_the_system_s_python_passes_its_guard(
    tasks: list[dict[str, Any]], user: str | None, may: bool
) -> None:
    (install,) = [task["tenant.gpu.requirements"] for task in tasks if "tenant.gpu.requirements" in task]
    facts = {"box_endpoint": {} if user is None else {"user": user}}
    templar = Templar(loader=DataLoader(), variables={"ansible_facts": facts})
    assert templar.template(trust_as_template(install["break_system_packages"])) is may


def test_frameworks_of_the_image_are_not_installed(tasks: list[dict[str, Any]]) -> None:
    (write,) = [task for task in tasks if "__deploy_requirements_lines" in task.get("vars", {})]
    # A play reads the file of the run; here its text is given.
    kept = str(write["vars"]["__deploy_requirements_lines"])
    kept, read = re.subn(r"lookup\('ansible\.builtin\.file', \w+\)", "text", kept)
    assert read == 1
    templar = Templar(loader=DataLoader(), variables={"text": REQUIREMENTS})
    assert templar.template(trust_as_template(kept)) == [
        "numpy",
        "torchmetrics==1.0",
        "pytorch-lightning",
        "# torch is of the image",
    ]
