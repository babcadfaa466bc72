# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The supervisor program: the same sources give the same bytes, everywhere and always."""

from __future__ import annotations

import glob
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import supervisor_pyz

BUILD = "import sys, supervisor_pyz; print(supervisor_pyz.build(sys.argv[1])[1])"
MODULE_UTILS = Path(supervisor_pyz.__file__).parent


def test_other_times_another_place_and_other_line_ends_make_no_difference(tmp_path: Path) -> None:
    data, sha256 = supervisor_pyz.build()
    assert supervisor_pyz.build() == (data, sha256)
    copy = tmp_path / "box"
    shutil.copytree(MODULE_UTILS / "box", copy)
    (copy / "__pycache__").mkdir(exist_ok=True)
    (copy / "notes.txt").write_text("not part of the program")
    for number, path in enumerate(copy.glob("*.py")):
        if number % 2:
            path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
        os.utime(path, (1e9 + number, 1e9 + number))
        path.chmod(0o755)
    assert supervisor_pyz.build(str(copy)) == (data, sha256)
    (copy / "names.py").write_text((copy / "names.py").read_text() + "\n# changed\n")
    assert supervisor_pyz.build(str(copy))[1] != sha256


def pythons() -> list[str]:
    pyenv = os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv"))
    return [sys.executable, *sorted(glob.glob(os.path.join(pyenv, "versions", "3.[89]*", "bin", "python")))]


@pytest.mark.parametrize("python", pythons(), ids=lambda path: Path(path).parents[1].name)
def test_every_python_builds_the_same_bytes(python: str) -> None:
    done = subprocess.run(
        [python, "-c", BUILD, str(MODULE_UTILS / "box")],
        env={"PYTHONPATH": str(MODULE_UTILS), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == supervisor_pyz.build()[1]


def test_the_program_runs_alone(tmp_path: Path) -> None:
    """No collection, no site-packages, no writable folder around it."""
    program = tmp_path / "supervisor.pyz"
    data, sha256 = supervisor_pyz.build()
    program.write_bytes(data)
    argv = [sys.executable, "-I", "-S", str(program), "--root", str(tmp_path / "root"), "version"]
    answer = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True, env={}).stdout)
    assert (answer["sha256"], answer["schema_major"]) == (sha256, 1)
    with zipfile.ZipFile(program) as archive:
        assert all(name.startswith("tenant_box/") or name == "__main__.py" for name in archive.namelist())
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
