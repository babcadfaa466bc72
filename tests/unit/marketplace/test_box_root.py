# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The text that makes a box of the process engine."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path, PurePosixPath

import pytest

from gpu_tenant.marketplace.engines import account, box_root, control, process
from gpu_tenant.marketplace.engines.base import BoxSpec, Card, EngineError
from gpu_tenant.marketplace.engines.none import NoEngine
from gpu_tenant.marketplace.engines.podman_image import image_name, suite

CARD = Card("NVIDIA GeForce RTX 4090", 16380, 2, "550.54.14", "12.4")


def a_machine(root: Path) -> Path:
    for name in ("usr/bin", "etc/ssl/certs", "lib32"):
        (root / name).mkdir(parents=True)
    (root / "bin").symlink_to("usr/bin")
    return root


def test_a_merged_system_is_linked_and_another_bound(tmp_path: Path) -> None:
    plan = box_root.plan_root([], a_machine(tmp_path))
    assert plan.links == (("bin", "usr/bin"),)
    assert [str(path) for path in plan.binds] == ["/usr", "/lib32", "/etc/ssl/certs"]


def test_a_python_below_usr_needs_no_bind_of_its_own(tmp_path: Path) -> None:
    plan = box_root.plan_root([Path("/usr"), Path("/usr/local"), Path("/opt/venv")], a_machine(tmp_path))
    assert [str(path) for path in plan.binds if path.is_relative_to("/opt")] == ["/opt/venv"]
    assert PurePosixPath("/usr/local") not in plan.binds


def test_a_prefix_inside_another_comes_with_it(tmp_path: Path) -> None:
    plan = box_root.plan_root([Path("/opt/conda/envs/x"), Path("/opt/conda")], a_machine(tmp_path))
    assert [str(path) for path in plan.binds][-1] == "/opt/conda"


def test_docker_flags_are_no_variables() -> None:
    given = {"A": "1", "-p 8080:8080": "1", "2B": "x", "C D": "y"}
    assert box_root.usable_environment(given) == {"A": "1"}


@pytest.mark.parametrize("value", ["plain", "a b", "it's", 'say "hi"', "$(id)", "`id`", "two\nlines", "日本"])
def test_a_variable_reaches_the_shell_as_it_is(value: str) -> None:
    text = box_root.render_environment({"GIVEN": value}, "/root", PurePosixPath("/.box"), "/bin/sh")
    shown = subprocess.run(
        ["sh", "-c", text + 'printf %s "$GIVEN"'], capture_output=True, text=True, check=True, encoding="utf-8"
    )
    assert shown.stdout == value


@pytest.mark.parametrize(
    "text",
    [
        box_root.render_inner_init(box_root.plan_root([])),
        box_root.render_outer_init(box_root.plan_root([]), Path("/a b/disk"), Path("/a b/control"), "C.1"),
        box_root.render_session(PurePosixPath("/.box"), "/usr/lib/openssh/sftp-server", own_terminals=True),
        box_root.render_session(PurePosixPath("/a b"), "/usr/lib/openssh/sftp-server", own_terminals=False),
        box_root.render_enter(Path("/a b/init.pid"), 1),
        box_root.render_fallback_onstart(PurePosixPath("/a b")),
    ],
)
def test_every_script_is_shell(text: str) -> None:
    assert subprocess.run(["sh", "-n"], input=text, text=True, check=False).returncode == 0


def a_door() -> box_root.Door:
    return box_root.Door((20001, 20002), "me", Path("/s/host_key"), Path("/s/keys"), Path("/s/home"), "exec /s/enter")


def test_sshd_lets_in_one_login_by_key_on_the_loopback_only() -> None:
    lines = box_root.render_sshd_config(a_door(), (9, 2), locked_account=False).splitlines()
    for line in ("ListenAddress 127.0.0.1", "AllowUsers me", "PasswordAuthentication no", "ForceCommand exec /s/enter"):
        assert line in lines
    assert [line for line in lines if line.startswith("Port ")] == ["Port 20001", "Port 20002"]
    assert "UsePAM no" in lines


def test_sshd_options_follow_its_release_and_the_account() -> None:
    newer = box_root.render_sshd_config(a_door(), (9, 8), locked_account=True)
    assert "PerSourcePenalties no" in newer
    assert "UsePAM yes" in newer
    assert "PerSourcePenalties" not in box_root.render_sshd_config(a_door(), (9, 7), locked_account=False)


@pytest.mark.parametrize(("text", "locked"), [("me:!:1:", True), ("me:*:1:", False), ("you:!:1:", False), ("", False)])
def test_a_locked_account_is_recognised(tmp_path: Path, text: str, locked: bool) -> None:
    (tmp_path / "shadow").write_text(text + "\n")
    assert process.account_is_locked("me", tmp_path / "shadow") is locked


def test_an_unreadable_shadow_file_means_not_locked(tmp_path: Path) -> None:
    assert process.account_is_locked("me", tmp_path / "missing") is False


def test_a_mount_point_is_never_made_through_a_link_that_a_box_left(tmp_path: Path) -> None:
    disk, elsewhere = tmp_path / "disk", tmp_path / "developer"
    disk.mkdir()
    elsewhere.mkdir()
    (disk / "root").symlink_to(elsewhere)
    with pytest.raises(EngineError, match="/root/python of the box is no directory"):
        process.make_directory_inside(disk, PurePosixPath("root/python"))
    assert list(elsewhere.iterdir()) == []


def test_a_box_without_permissions_can_be_deleted(tmp_path: Path) -> None:
    box = tmp_path / "box"
    (box / "a/b").mkdir(parents=True)
    (box / "a/b/file").write_text("x")
    (box / "a/b").chmod(0)
    (box / "a").chmod(0)
    control.delete_tree(box)
    assert not box.exists()
    control.delete_tree(box)


def test_a_user_of_a_box_is_root_to_the_sshd_outside_and_nobody_else_inside() -> None:
    ubuntu = account.account_of("ubuntu")
    passwd = account.with_account("root:x:0:0::/root:/bin/sh\nubuntu:x:1000:1000::/home/u:/bin/sh\n", ubuntu)
    assert passwd.splitlines() == ["root:x:0:0::/root:/bin/sh", "ubuntu:*:0:0::/:/bin/sh"]
    assert "ubuntu:*:1000:1000::/home/ubuntu:/bin/bash\n" in box_root.render_etc(ubuntu)["passwd"]
    assert "setpriv --reuid 1000 --regid 1000" in box_root.render_enter(Path("/init.pid"), 1, ubuntu)
    assert "setpriv" not in box_root.render_enter(Path("/init.pid"), 1)
    assert account.account_of("") is account.ROOT


def test_an_engine_without_users_says_whom_it_lets_in() -> None:
    engine = process.ProcessEngine(refusal="the kernel says no")
    assert engine.login_of("ubuntu") == engine.describe()["login"]
    assert NoEngine().login_of("ubuntu") == "ubuntu"


def stand_in(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    spec = BoxSpec(7, tmp_path, (20001,), CARD)
    control.write_control(tmp_path, spec, {}, control=PurePosixPath(tmp_path))
    return subprocess.run(
        [str(tmp_path / "bin/nvidia-smi"), *words], capture_output=True, text=True, check=False, env=dict(os.environ)
    )


def test_nvidia_smi_lists_the_cards(tmp_path: Path) -> None:
    lines = stand_in(tmp_path, "-L").stdout.splitlines()
    assert [line.split(" (UUID: GPU-")[0] for line in lines] == [f"GPU {n}: {CARD.name}" for n in (0, 1)]
    assert lines[0] != lines[1]


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ("csv", ["index, name, memory.total [MiB]", f"0, {CARD.name}, 16380 MiB", f"1, {CARD.name}, 16380 MiB"]),
        ("csv,noheader", [f"0, {CARD.name}, 16380 MiB", f"1, {CARD.name}, 16380 MiB"]),
        ("csv,noheader,nounits", [f"0, {CARD.name}, 16380", f"1, {CARD.name}, 16380"]),
    ],
)
def test_nvidia_smi_answers_queries(tmp_path: Path, layout: str, expected: list[str]) -> None:
    asked = stand_in(tmp_path, "--query-gpu=index,name,memory.total", f"--format={layout}")
    assert asked.stdout.splitlines() == expected


def test_nvidia_smi_takes_one_card_and_words_apart(tmp_path: Path) -> None:
    asked = stand_in(tmp_path, "-i", "1", "--query-gpu", "index,driver_version", "--format", "csv,noheader")
    assert asked.stdout == "1, 550.54.14\n"


def test_nvidia_smi_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    assert "not a valid field" in stand_in(tmp_path, "--query-gpu=colour", "--format=csv").stdout
    assert stand_in(tmp_path, "--reset").returncode == 1


@pytest.mark.parametrize("words", [(), ("-q",)])
def test_nvidia_smi_names_driver_and_cuda(tmp_path: Path, words: tuple[str, ...]) -> None:
    said = stand_in(tmp_path, *words).stdout
    assert "550.54.14" in said
    assert "12.4" in said


def test_the_image_follows_the_machines_debian(tmp_path: Path) -> None:
    (tmp_path / "debian").write_text('ID=debian\nVERSION_CODENAME="trixie"\n')
    (tmp_path / "other").write_text("ID=fedora\nVERSION_CODENAME=40\n")
    assert suite(tmp_path / "debian") == "trixie"
    assert suite(tmp_path / "other") == "bookworm"
    assert image_name("trixie") != image_name("bookworm")
