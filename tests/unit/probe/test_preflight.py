# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import preflight_script
from hypothesis import given
from hypothesis import strategies as st

NONCE = "tenant-0123456789abcdef"
SHELLS = [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)]


def ask(
    shell: str, home: Path, preferred: str = "", path: str = "/usr/bin:/bin", floor: preflight_script.Version = (3, 8)
) -> preflight_script.Preflight:
    interpreter = ["busybox", "sh"] if shell == "busybox" else [shell]
    script = preflight_script.script(NONCE, preferred, floor)
    done = subprocess.run(
        [str(shutil.which(interpreter[0])), *interpreter[1:], "-c", script],
        env={"HOME": str(home), "PATH": path},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.stderr == ""
    return preflight_script.parse(done.stdout, NONCE)


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("shell", SHELLS)
def test_the_wanted_python_comes_first(shell: str, tmp_path: Path) -> None:
    found = ask(shell, tmp_path, preferred=sys.executable)
    assert found.pythons[0] == (sys.executable, tuple(sys.version_info[:3]))
    assert found.box_now is not None
    assert found.auto_tmux == "absent"
    assert found.noise == ""


def test_a_missing_python_is_passed_over(tmp_path: Path) -> None:
    conda = program(tmp_path / "miniconda3" / "bin" / "python", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    found = ask("sh", tmp_path, preferred="/nowhere/bin/python", path=str(tmp_path), floor=(99, 0))
    assert str(conda) in [path for path, _version in found.pythons]
    assert all("nowhere" not in path for path, _version in found.pythons)


def test_pythons_that_are_none_are_passed_over(tmp_path: Path) -> None:
    broken = program(tmp_path / "bin" / "python3", "#!/bin/sh\necho 'not a version; rm -rf /'\n")
    failing = program(tmp_path / "bin" / "python", "#!/bin/sh\nexit 1\n")
    found = ask("sh", tmp_path, path=f"{tmp_path}/bin:/usr/bin:/bin")
    assert str(broken) not in [path for path, _version in found.pythons]
    assert str(failing) not in [path for path, _version in found.pythons]


@pytest.mark.parametrize("shell", SHELLS)
def test_nobody_asks_another_once_one_is_new_enough(shell: str, tmp_path: Path) -> None:
    """Each start of a Python takes its time on a box, and a conda image has many of them."""
    for name, version in (("python3", "3.7.9"), ("python", "3.9.2"), ("python3.12", "3.12.1")):
        says = f"echo {version}; exit {3 if version == '3.7.9' else 0}"
        program(tmp_path / "bin" / name, f"#!/bin/sh\necho {name} >>{tmp_path}/asked\n{says}\n")
    found = ask(shell, tmp_path, path=f"{tmp_path}/bin:/usr/bin:/bin")
    assert [version for _path, version in found.pythons] == [(3, 7, 9), (3, 9, 2)]
    assert (tmp_path / "asked").read_text().split() == ["python3", "python"]


def test_a_path_that_cannot_be_an_interpreter_ends_no_search(tmp_path: Path) -> None:
    odd = program(tmp_path / "b n" / "python3", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    conda = program(tmp_path / "miniconda3" / "bin" / "python", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    found = ask("sh", tmp_path, path=f"{odd.parent}:{tmp_path}/none")
    assert conda.exists()
    assert preflight_script.choose(found.pythons, (3, 8)) is not None
    assert str(odd) not in [path for path, _version in found.pythons]


def test_the_floor_is_judged_by_the_python_itself(tmp_path: Path) -> None:
    found = ask("sh", tmp_path, preferred=sys.executable, floor=(99, 0))
    assert found.pythons[0][0] == sys.executable
    assert preflight_script.choose(found.pythons, (99, 0)) is None


def test_a_path_with_an_apostrophe_stays_an_argument(tmp_path: Path) -> None:
    found = ask("sh", tmp_path, preferred=f"/x'; touch {tmp_path}/ran; '")
    assert not (tmp_path / "ran").exists()
    assert found.box_now is not None


def test_auto_tmux_is_seen_and_its_switch_too(tmp_path: Path) -> None:
    (tmp_path / ".bashrc").write_text('[ -z "$TMUX" ] && tmux attach\n', encoding="utf-8")
    assert ask("sh", tmp_path).auto_tmux == "on"
    (tmp_path / ".no_auto_tmux").touch()
    assert ask("sh", tmp_path).auto_tmux == "off"


def test_noise_before_between_and_glued_to_a_line() -> None:
    output = (
        f"Welcome!\n{NONCE} begin\nDisk 90% full\n\x1b[?25hmotd {NONCE} python 3.11.4 /usr/bin/python3\r\n{NONCE} end\n"
    )
    found = preflight_script.parse(output, NONCE)
    assert found.pythons == [("/usr/bin/python3", (3, 11, 4))]
    for part in ("Welcome!", "Disk 90% full", "motd"):
        assert part in found.noise


@pytest.mark.parametrize(
    "output",
    ["", "open terminal failed: not a terminal", f"{NONCE} begin\n", "tenant-ffffffffffffffff begin\n"],
)
def test_no_answer_is_no_answer(output: str) -> None:
    with pytest.raises(preflight_script.NoAnswer):
        preflight_script.parse(output, NONCE)


@pytest.mark.parametrize(
    "line",
    [
        "python 3.11.4 -oProxyCommand=x",
        "python 3.11.4 /bin/sh;reboot",
        "python 3.11.4 relative/python",
        "python 3.11 /usr/bin/python3",
        "python 3.11.4 /usr/bin/my python",
        "python 9999.1.1 /usr/bin/python3",
    ],
)
def test_a_hostile_interpreter_is_none(line: str) -> None:
    found = preflight_script.parse(f"{NONCE} begin\n{NONCE} {line}\n{NONCE} end\n", NONCE)
    assert found.pythons == []


@given(st.text(max_size=300))
def test_any_output_is_parsed_or_refused(text: str) -> None:
    framed = f"{NONCE} begin\n{NONCE} {text}\n{NONCE} end\n"
    found = preflight_script.parse(framed, NONCE)
    assert len(found.noise) <= 400
    for path, _version in found.pythons:
        assert path.startswith("/")


def test_the_first_that_is_new_enough_is_chosen() -> None:
    pythons = [("/a", (3, 7, 9)), ("/b", (3, 8, 1)), ("/c", (3, 12, 0))]
    assert preflight_script.choose(pythons, (3, 8)) == ("/b", (3, 8, 1))
    assert preflight_script.choose(pythons, (3, 9)) == ("/c", (3, 12, 0))
    assert preflight_script.choose(pythons[:1], (3, 8)) is None
