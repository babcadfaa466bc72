# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What of this machine a container sees: the Python that its image lacks, and never the machine's programs; and what
its image gives a login.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from gpu_tenant.marketplace import boxes
from gpu_tenant.marketplace.engines import podman


@pytest.mark.parametrize(
    ("found", "mounted"),
    [
        # A virtual environment of the system's Python: the image has that one.
        (["/srv/it/.venv", "/usr", "/srv/it/.venv", "/usr"], ["/srv/it/.venv"]),
        (["/srv/it/.venv", "/root/.pyenv/versions/3.11.7"], ["/root/.pyenv/versions/3.11.7", "/srv/it/.venv"]),
        (["/srv/it/.venv", "/usr/local"], ["/srv/it/.venv", "/usr/local"]),
        (["/opt/py", "/opt/py/envs/it"], ["/opt/py"]),
        (["/usr"], []),
        (["/"], []),
    ],
)
def test_a_container_has_the_programs_of_its_image(
    found: list[str], mounted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(podman, "python_prefixes", lambda: [Path(path) for path in found])
    assert [str(path) for path in podman._prefixes()] == mounted


def test_what_an_image_gives_a_login_is_there_once_however_often_it_starts(tmp_path: Path) -> None:
    """The lines of the container's init, with the market's folder here."""
    control, home = tmp_path / "box", tmp_path / "home"
    control.mkdir()
    home.mkdir()
    (control / "bashrc").write_text(boxes.AUTO_TMUX, encoding="utf-8")
    text = podman.render_container_init()
    (line,) = (line for line in text.splitlines() if "bashrc" in line)
    script = line.replace("/.box/", f"{control}/")
    for _start in range(2):
        subprocess.run(["sh", "-euc", script], cwd=home, check=True)
    assert (home / ".bashrc").read_text(encoding="utf-8") == boxes.AUTO_TMUX
    # And none where the image has none.
    (control / "bashrc").write_text("", encoding="utf-8")
    (home / ".bashrc").unlink()
    subprocess.run(["sh", "-euc", script], cwd=home, check=True)
    assert not (home / ".bashrc").exists()


@pytest.mark.parametrize(("words", "caught"), [(["-i"], True), ([], False)])
@pytest.mark.parametrize("switched_off", [True, False])
def test_only_a_person_lands_in_tmux(tmp_path: Path, words: list[str], caught: bool, switched_off: bool) -> None:
    (tmp_path / ".bashrc").write_text(boxes.AUTO_TMUX, encoding="utf-8")
    (tmp_path / "tmux").write_text("#!/bin/sh\necho caught\n", encoding="ascii")
    (tmp_path / "tmux").chmod(0o755)
    if switched_off:
        (tmp_path / ".no_auto_tmux").touch()
    environment = {"HOME": str(tmp_path), "PATH": f"{tmp_path}:{os.defpath}"}
    said = subprocess.run(
        # bash reads the file for a command of ssh too.
        ["bash", *words, "-c", ". ~/.bashrc; echo free"],
        env=environment, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert said.split()[-1] == ("caught" if caught and not switched_off else "free")
