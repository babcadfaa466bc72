# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The supervisor program: the same sources give the same bytes, everywhere and always."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import supervisor_pyz
from ansible_collections.tenant.gpu.plugins.module_utils.box import unpack
from box_pythons import pythons

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


class Program:
    """The program in a folder, and the copy of its sources beside it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "supervisor.pyz"
        self.path.write_bytes(supervisor_pyz.build()[0])
        self.unpacked = Path(self.version()["unpacked"])

    def version(self) -> dict[str, Any]:
        argv = [sys.executable, "-I", "-S", str(self.path), "--root", str(self.path.parent / "root"), "version"]
        found: dict[str, Any] = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
        return found

    def keep_only_main(self) -> None:
        with zipfile.ZipFile(self.path) as archive:
            main = archive.read("__main__.py")
        with zipfile.ZipFile(self.path, "w") as archive:
            archive.writestr("__main__.py", main)


def test_once_unpacked_it_starts_from_there_and_keeps_bytecode(tmp_path: Path) -> None:
    program = Program(tmp_path)
    assert unpack.unpack(str(program.path), str(program.unpacked))
    program.keep_only_main()
    program.version()
    assert list(program.unpacked.glob("tenant_box/__pycache__/cli.*.pyc"))
    assert not unpack.unpack(str(program.path), str(program.unpacked)), "once is enough"


def test_the_copy_of_other_sources_is_not_looked_at(tmp_path: Path) -> None:
    program = Program(tmp_path)
    changed = tmp_path / "box"
    shutil.copytree(MODULE_UTILS / "box", changed)
    with (changed / "cli.py").open("a") as stream:
        stream.write("# another\n")
    program.path.write_bytes(supervisor_pyz.build(str(changed))[0])
    assert program.version()["unpacked"] != str(program.unpacked)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_copy_that_another_user_put_there_is_not_run(tmp_path: Path) -> None:
    program = Program(tmp_path)
    (program.unpacked / "tenant_box").mkdir(parents=True)
    (program.unpacked / "tenant_box" / "__init__.py").write_text("raise SystemExit(99)\n")
    os.chown(program.unpacked, 12345, 12345)
    assert program.version()["schema_major"] == 1


def test_what_cannot_be_unpacked_leaves_nothing(tmp_path: Path) -> None:
    program = Program(tmp_path)
    program.path.write_bytes(program.path.read_bytes()[:-100])
    assert not unpack.unpack(str(program.path), str(program.unpacked))
    assert [path.name for path in tmp_path.iterdir()] == ["supervisor.pyz"]
