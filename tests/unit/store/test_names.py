# SPDX-License-Identifier: MIT
"""Law 8: no name and no path from outside leads anywhere else."""

from __future__ import annotations

import os
import re

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import names
from ansible_collections.tenant.gpu.plugins.module_utils.box.names import (
    UnsafeName,
    check_name,
    check_relative_path,
    inside,
)
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize("name", ["a", "digits-1", "seed_0", "A.b", "x" * 63])
def test_usable_names(name: str) -> None:
    assert check_name("box", name) == name


@pytest.mark.parametrize("name", ["", "-x", ".", "..", "a..b", "a/b", "a b", "x" * 64, "é", "a\n", None, 3])
def test_unusable_names(name: object) -> None:
    with pytest.raises(UnsafeName, match="box"):
        check_name("box", name)


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "..", "a/../b", "a//b", "./a", "a/-rf", "a\\b", "a\x00b", "a/b\n", "x" * 256, None]
)
def test_unsafe_paths(path: object) -> None:
    with pytest.raises(UnsafeName):
        check_relative_path(path)


@given(st.text())
def test_a_path_that_passes_stays_inside(path: str) -> None:
    try:
        check_relative_path(path)
    except UnsafeName:
        return
    assert os.path.normpath(os.path.join("/root", path)).startswith("/root/")


@given(st.text(alphabet="ab./-_= 0"))
def test_a_path_that_passes_at_one_look_would_pass_all_others(path: str) -> None:
    told = names._path_problem(path)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(names, "_PLAIN_PATH", re.compile(r"(?!)"))
        assert names._path_problem(path) == told


def test_inside_follows_symlinks(tmp_path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path)
    assert inside(str(tmp_path / "root"), "plain/file").endswith("root/plain/file")
    with pytest.raises(UnsafeName, match="leads out"):
        inside(str(tmp_path / "root"), "link/secret")
