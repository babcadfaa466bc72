# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A machine goes on with its run after a reboot: by a unit or by a line of cron, set once and taken back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import reboot_hook
from ansible_collections.tenant.gpu.plugins.module_utils.box.bounded import Apart, run_apart
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.reboot_hook import Machine

NO_CRONTAB = Apart(1, b"", "no crontab for root\n", False, "")


def ended(rc: int | None, out: bytes = b"", said: str = "", cut: bool = False, why: str = "") -> Apart:
    return Apart(rc, out, said, cut, why)


class Fake:
    """systemctl and crontab of a machine, as far as they are asked."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.crontab, self.enabled, self.asked = "", set(), []  # type: ignore[var-annotated]
        self.listing: Apart | None = None
        known = {"root": True, "systemd": True, "lingers": False, "cron": True, "units": str(folder / "units")}
        self.machine = Machine(**{**known, **changes})

    def __call__(self, words: list[str]) -> Apart:
        self.asked.append(words)
        verb = [word for word in words[1:] if word != "--user"]
        if words[0] == "crontab":
            if verb == ["-l"]:
                known = ended(0, self.crontab.encode("utf-8", "surrogateescape")) if self.crontab else NO_CRONTAB
                return self.listing or known
            self.crontab = Path(verb[0]).read_bytes().decode("utf-8", "surrogateescape")
            return ended(0)
        if verb[0] == "is-enabled":
            return ended(0 if verb[1] in self.enabled else 1)
        if verb[0] == "enable":
            self.enabled.add(verb[1])
        if verb[0] == "disable":
            self.enabled.discard(verb[1])
        return ended(0)

    def act(self, root: str = "/root/gpu-tenant", check: bool = False, **params: Any) -> dict[str, Any]:
        known = {"tenant_root": root, "state": "present", "hook": "auto"}
        return reboot_hook.act({**known, **params}, check, self.machine, self)


def test_systemd_is_taken_where_it_is_the_init(tmp_path: Path) -> None:
    machine = Fake(tmp_path)
    assert machine.act(check=True)["changed"] is True
    assert not (tmp_path / "units").exists()
    found = machine.act()
    assert (found["changed"], found["hook"]) == (True, "systemd")
    (unit,) = (tmp_path / "units").iterdir()
    assert 'ExecStart="/root/gpu-tenant/bin/resume-all"' in unit.read_text()
    assert "WantedBy=multi-user.target" in unit.read_text()
    assert machine.enabled == {unit.name}
    assert machine.crontab == ""
    assert machine.act()["changed"] is False
    machine.enabled.clear()
    assert machine.act()["changed"] is True, "a unit that somebody disabled is enabled again"
    assert machine.act(state="absent")["changed"] is True
    assert (list((tmp_path / "units").iterdir()), machine.enabled) == ([], set())
    assert machine.act(state="absent")["changed"] is False


def test_what_the_unit_started_outlives_it() -> None:
    """The supervisor and its trainers are children of a unit that ends at once."""
    text = reboot_hook.unit_text("/data/gpu-tenant/bin/resume-all", True)
    assert "KillMode=process" in text
    assert "OOMPolicy=continue" in text, "by itself systemd stops a unit of which the kernel killed one process"
    assert "RemainAfterExit=yes" in text


def test_a_user_without_lingering_gets_cron(tmp_path: Path) -> None:
    machine = Fake(tmp_path, root=False)
    machine.crontab = "5 4 * * * /home/kim/backup # mine\n"
    assert machine.act()["hook"] == "cron"
    first, second = machine.crontab.splitlines()
    assert first == "5 4 * * * /home/kim/backup # mine"
    assert second.startswith("@reboot /root/gpu-tenant/bin/resume-all ")
    assert machine.act()["changed"] is False
    assert machine.act(root="/data/gpu-tenant")["changed"] is True
    assert len(machine.crontab.splitlines()) == 3, "two roots on one machine have two lines"
    machine.act(state="absent")
    machine.act(root="/data/gpu-tenant", state="absent")
    assert machine.crontab == "5 4 * * * /home/kim/backup # mine\n"


def test_a_user_who_lingers_has_a_unit_of_its_own(tmp_path: Path) -> None:
    machine = Fake(tmp_path, root=False, lingers=True)
    assert machine.act()["hook"] == "systemd"
    assert "WantedBy=default.target" in next((tmp_path / "units").iterdir()).read_text()
    assert all("--user" in words for words in machine.asked if words[0] == "systemctl")


def test_a_change_of_mind_leaves_one_hook(tmp_path: Path) -> None:
    machine = Fake(tmp_path)
    machine.act(hook="cron")
    assert machine.crontab
    machine.act(hook="systemd")
    assert machine.crontab == ""
    assert len(machine.enabled) == 1


def test_a_container_has_nothing_and_says_so(tmp_path: Path) -> None:
    found = Fake(tmp_path, systemd=False, cron=False).act()
    assert (found["changed"], found["hook"]) == (False, "")
    assert "neither systemd nor cron" in found["why"]


@pytest.mark.parametrize(
    ("hook", "machine", "said"),
    [
        ("systemd", {"systemd": False}, "systemd is not its init"),
        ("systemd", {"root": False}, "end with its last login"),
        ("cron", {"cron": False}, "there is no crontab"),
    ],
)
def test_what_was_asked_for_and_cannot_be_is_refused(
    hook: str, machine: dict[str, bool], said: str, tmp_path: Path
) -> None:
    with pytest.raises(TenantFailure, match=said):
        Fake(tmp_path, **machine).act(hook=hook)
    assert not (tmp_path / "units").exists()


@pytest.mark.parametrize(
    ("program", "line"),
    [
        ("/a b/resume-all", "@reboot '/a b/resume-all' "),
        ("/100%/resume-all", r"@reboot /100\%/resume-all "),
        ("/x;rm/resume-all", "@reboot '/x;rm/resume-all' "),
    ],
)
def test_odd_paths_stay_one_word_for_cron(program: str, line: str) -> None:
    assert reboot_hook.cron_line(program, "n").startswith(line)


def test_odd_paths_stay_one_word_for_systemd() -> None:
    assert 'ExecStart="/100%%/a \\"b\\"/$$x"' in reboot_hook.unit_text('/100%/a "b"/$x', True)


def test_a_tool_that_fails_is_quoted(tmp_path: Path) -> None:
    machine = Fake(tmp_path)

    def failing(words: list[str]) -> Apart:
        return ended(1, said="Failed to connect to bus") if words[1:2] == ["enable"] else machine(words)

    with pytest.raises(TenantFailure, match="Failed to connect to bus"):
        reboot_hook.act({"tenant_root": "/r", "state": "present", "hook": "auto"}, False, machine.machine, failing)


# --- a crontab that is somebody's ----------------------------------------------------------------------------------

MINE = "5 4 * * * /home/kim/backup\n"


@pytest.mark.parametrize(
    ("listing", "said"),
    [
        (ended(None, why="no answer within 30 s"), "no answer within 30 s"),
        (ended(1, said="crontab: your UID isn't in the passwd file"), "your UID"),
        (ended(1, said="You (kim) are not allowed to use this program (crontab)"), "not allowed"),
        (ended(2, said="no crontab for root"), "ended with 2"),
        (ended(127, said=""), "ended with 127"),
        (ended(0, MINE.encode(), cut=True), "longer than 256 KiB"),
    ],
)
@pytest.mark.parametrize("params", [{"hook": "cron"}, {"state": "absent"}])
def test_a_crontab_that_cannot_be_read_is_not_replaced(
    listing: Apart, said: str, params: dict[str, Any], tmp_path: Path
) -> None:
    machine = Fake(tmp_path)
    machine.crontab, machine.listing = MINE, listing
    with pytest.raises(TenantFailure, match=said) as caught:
        machine.act(**params)
    assert caught.value.safe == "it was not touched"
    assert machine.crontab == MINE
    assert not (tmp_path / "units").exists()


def test_a_unit_is_set_where_the_crontab_cannot_be_read_and_it_is_told(tmp_path: Path) -> None:
    machine = Fake(tmp_path)
    machine.crontab, machine.listing = MINE, ended(None, why="no answer within 30 s")
    found = machine.act(hook="systemd")
    assert (found["hook"], machine.crontab) == ("systemd", MINE)
    assert "no answer within 30 s; it was left as it is" in found["warnings"][0]


def test_a_user_of_busybox_without_a_crontab_gets_one(tmp_path: Path) -> None:
    machine = Fake(tmp_path, systemd=False)
    machine.listing = ended(1, said="crontab: can't open 'root': No such file or directory\n")
    assert machine.act()["hook"] == "cron"
    assert machine.crontab.startswith("@reboot ")


def test_every_byte_of_the_others_lines_stays(tmp_path: Path) -> None:
    """Bytes that are no UTF-8, and letters at which Python alone ends a line."""
    machine = Fake(tmp_path, systemd=False)
    theirs = b"1 * * * * echo caf\xe9 \xff\n2 * * * * printf 'a\x0cb\xe2\x80\xa8c\r'\n# no end".decode(
        "utf-8", "surrogateescape"
    )
    machine.crontab = theirs
    found = machine.act()
    assert machine.crontab.startswith(theirs + "\n@reboot ")
    found["diff"][0]["after"].encode()
    machine.act(state="absent")
    assert machine.crontab == theirs + "\n"


def test_what_a_command_complains_of_is_no_part_of_what_it_says() -> None:
    found = run_apart(["/bin/sh", "-c", r"printf 'a\377'; echo careful >&2"], 60.0)
    assert found == Apart(0, b"a\xff", "careful\n", False, "")


def test_output_that_is_longer_than_is_kept_says_so() -> None:
    found = run_apart(["/bin/sh", "-c", "head -c 300000 /dev/zero"], 60.0)
    assert (found.rc, found.is_cut) == (0, True)
