# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A second ``site.yml`` on boxes that are as declared, beside the same checks written with stock modules.

The boxes are rented on a marketplace by ``site.yml`` itself; each is a process tree behind a real sshd and trains a
run of its own. Measured twice: while the runs train (programs, code, secrets, record, life), and when all are done,
home and not parked (seal, results, hashes). Both plays ride the same ssh connections, with the same forks, and every
one of them has to change nothing. ``stock_site.yml`` is the other side.
``CONVERGED_BOXES`` and ``CONVERGED_ROUNDS`` take other numbers.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from harness import Figure, Row, compare
from remote_executions import Doors, by_task

from gpu_tenant.marketplace.testing import Handle, running_marketplace

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "integration"))

from input_server import InputServer, input_server
from mirror_box import index_probe, mirror, put_index
from team_folder import HELD_TRAINER, ROOT, TeamFolder, held_spec

TITLE = "site.yml on converged boxes"
BOXES = int(os.environ.get("CONVERGED_BOXES", "16"))
ROUNDS = int(os.environ.get("CONVERGED_ROUNDS", "3"))
MOST_EXECUTIONS, MOST_TIME, MOST_OF_MIRRORS = 8, 0.5, 2
PLAY_S, DONE_WITHIN_S = 1800.0, 300.0
ROOT_ON_BOX = "/workspace/gpu-tenant"
SECRET = "the-secret-of-a-bench"
# What a small repository has besides its trainer.
CODE_FILES = 24
# Beyond the bar, which names copy: what is left of the lead where one rsync brings all files but the secrets.
_IN_ONE = "to stock modules with one rsync for all files"
Play = Callable[..., None]
_found: list[Figure] = []
_notes: list[str] = []


def rows() -> list[Row]:
    # A short path: ssh's sockets lie below it.
    with tempfile.TemporaryDirectory(prefix="gt-", dir="/tmp") as name:
        folder = Path(name)
        # Every tenth machine has the GPU that is asked for, or so.
        options = ("--machines", str(max(10 * BOXES, 40)), "--boot-s", "0")
        with running_marketplace("process", state_dir=folder / "market", options=options) as market:
            fleet = Fleet(folder, market)
            fleet.site(changing=True)
            fleet.watch_doors()
            found = _compared(
                fleet, "while the runs train", {"to stock modules": fleet.stock, _IN_ONE: fleet.stock_in_one}
            )
            fleet.finish()
            fleet.site(changing=True)
            found += _compared(fleet, "their runs done and home", {"to stock modules": fleet.stock})
            _found.append(_of_mirrors(fleet))
            return found


def figures() -> list[Figure]:
    return _found


def details() -> str:
    return "Remote executions of the box that had most, by task:\n\n" + "\n".join(_notes) + "\n"


def _compared(fleet: Fleet, when: str, others: Mapping[str, Play]) -> list[Row]:
    # Nobody has harvested for the stock play yet: it brings home what ours brought.
    fleet.stock(changing=True)
    _count(fleet, f"site.yml, {when}", fleet.site, MOST_EXECUTIONS)
    found = []
    for name, other in others.items():
        _count(fleet, f"{name.removeprefix('to ')}, {when}", other, None)
        limit = None if name == _IN_ONE else MOST_TIME
        found.append(compare(f"second site.yml on {BOXES} boxes, {when}, {name}", fleet.site, other, limit, ROUNDS))
    return found


def _count(fleet: Fleet, name: str, play: Play, limit: float | None) -> None:
    seen = fleet.counted(play)
    most = max(map(len, seen.values()))
    _found.append(Figure(f"{name}: remote executions of a box", most, "executions", limit))
    _note(f"- {name}, {most}: {by_task(seen)}")


def _note(line: str) -> None:
    """Kept for the page, and told at once to who waits for the rest."""
    _notes.append(line)
    print(line, file=sys.stderr, flush=True)


def _of_mirrors(fleet: Fleet) -> Figure:
    """The mirrors role on one box, which has measured a mirror against a direct source that gives no file."""
    with input_server() as server:
        words = ["-l", fleet.boxes[0], "-e", json.dumps(_mirror_variables(server))]
        fleet.play("mirrors", *words, changing=True)
        if not (fleet.disk_of(fleet.boxes[0]) / "gpu-tenant/mirrors.env").exists():
            raise RuntimeError("the mirrors role wrote nothing: there is no converged box to look at")
        seen = fleet.counted(lambda **how: fleet.play("mirrors", *words, **how), fleet.boxes[:1])
    most = max(map(len, seen.values()))
    name = "mirrors, on a box that has them"
    _note(f"- {name}, {most}: {by_task(seen)}")
    return Figure(f"{name}: remote executions", most, "executions", MOST_OF_MIRRORS)


def _mirror_variables(server: InputServer) -> dict[str, Any]:
    return {
        "mirrors_candidates": [mirror("near", put_index(server, "/near"))],
        "mirrors_classes": {"pip": {"direct": f"{server.url}/none", "probe": index_probe()}},
    }


# --- the boxes ------------------------------------------------------------------------------------------------------


class Fleet(TeamFolder):
    """Boxes with a run each, the playbooks of both sides on them, and what is noted at their doors."""

    def __init__(self, folder: Path, market: Handle) -> None:
        self.boxes = [f"box-{number}" for number in range(BOXES)]
        spec = dict(held_spec("converged"), secrets=["TRACKER_KEY"])
        super().__init__(folder, market, self.boxes, spec, HELD_TRAINER, SECRET)
        for box in self.boxes:
            self._write_job(f"jobs/{box}", dict(spec, id=box))
        self.write("inventory/group_vars/all.yml", yaml.safe_dump(self._team_variables()))
        self.doors = Doors(folder / "doors")
        self._sockets = folder / "cp"

    def _write_job(self, name: str, spec: Mapping[str, Any]) -> None:
        self.write(f"{name}/train.py", HELD_TRAINER)
        self.write(f"{name}/run.yml", yaml.safe_dump(dict(spec)))
        for number in range(CODE_FILES):
            self.write(f"{name}/model/part_{number}.py", f"NUMBER = {number}\n" * 100)

    def _team_variables(self) -> dict[str, Any]:
        return {
            **self._variables(),
            "tenant_run": str(self.folder / "jobs") + "/{{ inventory_hostname }}/run.yml",
            # Else there would be nothing that runs to look at once a run is home.
            "harvest_park": False,
        }

    # --- plays ---

    def site(self, **how: Any) -> None:
        self.play("site", **how)

    def stock(self, *words: str, **how: Any) -> None:
        self._write_stock_inventory()
        playbook = str(Path(__file__).with_name("stock_site.yml"))
        self._run([playbook, "-i", str(self.folder / "stock/hosts.json"), *words], self.boxes, **how)

    def stock_in_one(self, **how: Any) -> None:
        self.stock("-e", '{"stock_in_one": true}', **how)

    def play(self, name: str, *words: str, **how: Any) -> None:
        boxes = [words[1]] if words[:1] == ("-l",) else self.boxes
        self._run([f"playbooks/{name}.yml", *self.sources(), *words], boxes, **how)

    def _run(
        self, words: list[str], boxes: list[str], changing: bool = False, more: Mapping[str, str] | None = None
    ) -> None:
        environment = {
            **os.environ,
            "TRACKER_KEY": self.secret,
            "VAST_API_KEY": "",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_FORCE_COLOR": "0",
            "ANSIBLE_FORKS": "25",
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self._sockets),
            "ANSIBLE_SSH_CONTROL_PATH": "%(directory)s/%%C",
            **(more or {}),
        }
        program = str(Path(sys.executable).parent / "ansible-playbook")
        done = subprocess.run(
            [program, *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PLAY_S, check=False
        )
        told = done.stdout[-6000:] + done.stderr[-2000:]
        if done.returncode:
            raise RuntimeError(f"{words[0]} ended with {done.returncode}: {told}")
        for box in boxes:
            recap = re.search(rf"^{box} .*changed=(\d+) .*unreachable=0 .*failed=0 ", done.stdout, re.MULTILINE)
            if recap is None or (not changing and recap[1] != "0"):
                raise RuntimeError(f"{words[0]} was to leave {box} as it was: {told}")

    # --- what is counted ---

    def watch_doors(self) -> None:
        for box, row in self.rows().items():
            self.doors.watch(box, self.market.state_dir / "boxes" / str(row["id"]) / "enter")

    def counted(self, play: Play, boxes: list[str] | None = None) -> dict[str, list[str]]:
        """The sessions that one play made, by box; none at all would mean that nothing was counted."""
        self.doors.clear()
        play(more=self.doors.environment)
        seen = self.doors.seen(boxes or self.boxes)
        if not all(seen.values()):
            raise RuntimeError(f"no session was noted at the door of a box that a play was at: {seen}")
        return seen

    # --- the boxes as they are ---

    def rows(self) -> dict[str, dict[str, Any]]:
        """The instance of each box, as the marketplace knows it."""
        found = {row["label"].split("/")[2]: row for row in self.market.state()["instances"]}
        return {box: found[box] for box in self.boxes}

    def disk_of(self, box: str) -> Path:
        return self.disk(self.rows()[box]["id"])

    def finish(self) -> None:
        """Let every trainer go, and wait until every run is done."""
        disks = {box: self.disk(row["id"]) for box, row in self.rows().items()}
        for disk in disks.values():
            (disk / "let-it-finish").touch()
        deadline = time.monotonic() + DONE_WITHIN_S
        for box, disk in disks.items():
            while not (disk / f"gpu-tenant/runs/{box}/main/a1/done.json").exists():
                if time.monotonic() > deadline:
                    raise RuntimeError(f"the run of {box} did not end within {DONE_WITHIN_S:.0f} s")
                time.sleep(0.1)

    # --- the stock side ---

    def _write_stock_inventory(self) -> None:
        """The boxes where they are, and copies of what site.yml brought: the stock play has to find it unchanged."""
        path = self.folder / "stock/hosts.json"
        if path.exists():
            return
        home = self.folder / "stock/home"
        home.mkdir(parents=True)
        hosts = {box: self._stock_host(box, row) for box, row in self.rows().items()}
        common = {
            "ansible_user": self.market.login,
            "ansible_host": "127.0.0.1",
            "ansible_ssh_private_key_file": str(self.folder / "id"),
            "ansible_python_interpreter": "/.box/bin/python3",
            "stock_api_url": self.market.url,
            "stock_api_key_file": str(self.folder / "key"),
            "stock_control_path": f"{self._sockets}/%C",
            "stock_home": str(home),
            "stock_root": ROOT_ON_BOX,
        }
        self.write("stock/hosts.json", json.dumps({"all": {"hosts": hosts, "vars": common}}))

    def _stock_host(self, box: str, row: Mapping[str, Any]) -> dict[str, Any]:
        root = self.disk(row["id"]) / "gpu-tenant"
        tree = self.folder / "stock" / box
        known_hosts = f"{self.state_dir}/known_hosts/{box}"
        run = f"runs/{box}"
        (code,) = (root / "code").iterdir()
        (pyz,) = (root / "bin").glob("supervisor-*.pyz")
        (helper,) = (root / "lib").glob("*/tenant_checkpoint.py")
        programs = [pyz, helper, root / "bin/resume-all", root / "bin/stay"]
        items = [_staged(path, root, tree) for path in [*programs, root / run / "run.json"]]
        shutil.copytree(code, tree / "code" / code.name)
        shutil.copymode(root / "code", tree / "code")
        secrets = self.folder / "stock" / f"{box}.env"
        shutil.copy2(root / run / "secrets.env", secrets)
        return {
            "ansible_port": row["ports"][0],
            "ansible_ssh_common_args": (
                f"-o HostKeyAlias={box}.{row['label'].split('/')[3]} -o UserKnownHostsFile={known_hosts}"
                " -o GlobalKnownHostsFile=/dev/null -o StrictHostKeyChecking=yes"
                " -o ServerAliveInterval=60 -o ServerAliveCountMax=120 -o TCPKeepAlive=yes"
            ),
            "stock_label": row["label"],
            "stock_run_id": box,
            "stock_folders": [f"{ROOT_ON_BOX}/{name}" for name in ("bin", f"lib/{helper.parent.name}", run)],
            "stock_programs": items[:-1],
            "stock_record": items[-1],
            "stock_pyz": items[0]["dest"],
            "stock_tree": str(tree),
            "stock_code_name": code.name,
            "stock_secrets": str(secrets),
        }


def _staged(path: Path, root: Path, staged: Path) -> dict[str, str]:
    """A copy of a box's file, as the item of a task that brings it there."""
    name = path.relative_to(root)
    target = staged / name
    target.parent.mkdir(parents=True, exist_ok=True)
    for folder in name.parents:
        (staged / folder).chmod((root / folder).stat().st_mode & 0o777)
    shutil.copy2(path, target)
    return {
        "src": str(target),
        "dest": f"{ROOT_ON_BOX}/{name}",
        "mode": f"{path.stat().st_mode & 0o777:04o}",
    }
