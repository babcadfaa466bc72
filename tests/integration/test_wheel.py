# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What ``pip install .`` gives: the command and the collection, usable from any folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as site-packages would be, made from the wheel alone."""
    folder = tmp_path_factory.mktemp("installed")
    build = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(folder), str(ROOT)]
    subprocess.run([sys.executable, *build], check=True, capture_output=True, timeout=600)
    return folder


def run(installed: Path, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE")}
    environment.update(PYTHONPATH=str(installed), HOME=str(folder), ANSIBLE_FORCE_COLOR="0")
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )


def test_nothing_but_the_wheel_is_there(installed: Path) -> None:
    collection = installed / "ansible_collections/tenant/gpu"
    names = sorted(path.name for path in collection.iterdir())
    assert {"galaxy.yml", "meta", "playbooks", "plugins", "roles", "inventories"} <= set(names)
    assert not {"collections", "tests", ".git", "src"} & set(names)
    assert (installed / "tenant_checkpoint.py").is_file()


def test_a_playbook_runs_by_its_name_from_any_folder(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "profiles.yml").write_text("plugin: tenant.gpu.profiles\n")
    (tmp_path / "hosts.yml").write_text("vast: {hosts: {box-1: {tenant_project: p}}}\n")
    sources = ["-i", "profiles.yml", "-i", "hosts.yml"]
    playbook = str(BIN / "ansible-playbook")
    done = run(installed, tmp_path, playbook, "tenant.gpu.site", *sources, "-l", "vast", "--list-tasks")
    assert done.returncode == 0, done.stderr
    for role in ("provision", "mirrors", "deploy", "train", "harvest"):
        assert f"tenant.gpu.{role}" in done.stdout
    facts = run(installed, tmp_path, str(BIN / "ansible-inventory"), *sources, "--host", "box-1")
    assert '"platform_name": "vast"' in facts.stdout


def test_the_documentation_reads_well(installed: Path, tmp_path: Path) -> None:
    done = run(installed, tmp_path, str(BIN / "ansible-doc"), "tenant.gpu.vast_instance")
    assert done.returncode == 0, done.stderr
    for word in ("OPTIONS", "price_cap", "EXAMPLES", "RETURN VALUES"):
        assert word in done.stdout


def test_the_command_runs_without_the_checkout(installed: Path, tmp_path: Path) -> None:
    done = run(installed, tmp_path, sys.executable, "-m", "gpu_tenant", "init", "team", "--project", "p")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "team").is_dir()
    where = "import gpu_tenant, ansible_collections.tenant.gpu.plugins.module_utils.gate as g; print(g.__file__)"
    found = run(installed, tmp_path, sys.executable, "-c", where)
    assert found.stdout.strip().startswith(str(installed)), found.stdout + found.stderr
