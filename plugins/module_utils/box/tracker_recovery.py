# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""After the end of a run: what wandb kept on this disk only is sent to its server, one by one, each within its time.

What is sent is a copy: the files of an attempt may be results that were promised already, and wandb writes beside them.
A run counts as recovered only when wandb itself has marked it as synced.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
from typing import Any

from . import attempt, calling, gates, records, run_record, tracker, tracker_environment
from .bounded import run_bounded
from .layout import Layout
from .refusal import USAGE, Refused
from .tracker_names import TENSORBOARD, WANDB

SYNCED, FAILED, LATE, UNSENT = "synced", "failed", "timeout", "unsent"
_SHOWN = 300


def recover(layout: Layout, value: object, check: bool = False) -> dict[str, Any]:
    """``{runs: [{path, state, why}], panel, changed}`` of an order ``{run_id, timeout_s, env, proxy_hook, logdir}``.

    A run that was sent before is not sent again; attempts that live are left alone. The panel, which shows ``logdir``,
    has nothing to recover, and is asked what it lists now that there are events.
    """
    order = value if isinstance(value, dict) else {}
    timeout_s = order.get("timeout_s", 300.0)
    if not isinstance(timeout_s, (int, float)) or isinstance(timeout_s, bool) or timeout_s <= 0:
        raise Refused(USAGE, "timeout_s must be a number of seconds")
    run = run_record.read_run(layout, str(order.get("run_id")))
    if run["tracker"]["name"] != WANDB:
        return {"changed": False, "runs": [], "panel": _panel(run, str(order.get("logdir") or ""))}
    found = {os.path.relpath(path, layout.root): path for path in _unsent(layout, run)}
    known = {name: told for name, told in _known(layout, run).items() if name in found}
    wanted = [name for name in found if known.get(name, {}).get("state") != SYNCED]
    if check:
        known.update({name: {"state": UNSENT, "why": ""} for name in wanted})
    elif wanted:
        secrets = run_record.read_env_file(run["env_file"]) if run["env_file"] else {}
        # wandb makes a folder for its own logs wherever it is started.
        own = {"WANDB_DIR": layout.path("trackers", "sending")}
        env = {**run["env"], **(order.get("env") or {}), **secrets, **own}
        calling.prepare(layout.root, env, str(order.get("proxy_hook") or ""))
        for name in wanted:
            known[name] = _send(layout, run, found[name], float(timeout_s))
            records.write_record(_record(layout, run), "tracker-recovery", {"runs": known})
    sent = [name for name in wanted if known[name]["state"] in (SYNCED, UNSENT)]
    told_of = [dict(told, path=name) for name, told in sorted(known.items())]
    return {"changed": bool(sent), "runs": told_of, "panel": None}


def _panel(run: dict[str, Any], logdir: str) -> dict[str, Any] | None:
    if run["tracker"]["name"] != TENSORBOARD or not logdir:
        return None
    return tracker.look_at_panel(logdir, tracker.link_name(run))


def _record(layout: Layout, run: dict[str, Any]) -> str:
    return layout.path("trackers", f"{run['run_id']}.json")


def _known(layout: Layout, run: dict[str, Any]) -> dict[str, dict[str, str]]:
    found = attempt.read(_record(layout, run), "tracker-recovery").get("runs")
    return dict(found) if isinstance(found, dict) else {}


def _unsent(layout: Layout, run: dict[str, Any]) -> list[str]:
    """Folders of runs that lie on this disk and that nobody marked as synced, oldest attempt first."""
    found = []
    for cell in run["cells"]:
        for number in layout.attempt_numbers(run["run_id"], cell["id"]):
            paths = layout.attempt(run["run_id"], cell["id"], number)
            if attempt.is_alive(paths):
                continue
            place = glob.escape(os.path.join(tracker_environment.folder(paths), "wandb"))
            for pattern in ("offline-run-*", "run-*"):
                found += [path for path in sorted(glob.glob(os.path.join(place, pattern))) if _is_unsent(path)]
    return found


def _is_unsent(path: str) -> bool:
    if os.path.islink(path) or not os.path.isdir(path):
        return False
    data = glob.glob(os.path.join(glob.escape(path), "*.wandb"))
    return bool(data) and not any(os.path.exists(f"{each}.synced") for each in data)


def _send(layout: Layout, run: dict[str, Any], path: str, timeout_s: float) -> dict[str, str]:
    """Send a copy of one run; ``{state, why, at}``."""
    copy = layout.path("trackers", "sending", os.path.basename(path))
    size = _size(path)
    room = gates.disk_of(layout.root).free_bytes - gates.DEFAULT_MIN_FREE_BYTES
    if size > room:
        return _told(FAILED, f"its copy needs {size} bytes, and {max(0, room)} may be used")
    try:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(copy)
        os.makedirs(os.path.dirname(copy), mode=0o700, exist_ok=True)
        shutil.copytree(path, copy, symlinks=True)
        outcome = run_bounded([run["python"], "-m", "wandb", "sync", copy], timeout_s)
        if outcome.rc == 0 and not _is_unsent(copy):
            return _told(SYNCED, "")
        if outcome.rc is None:
            return _told(LATE, outcome.why)
        return _told(FAILED, _end_of(outcome.out) or f"wandb ended with {outcome.rc} and did not mark it as synced")
    except OSError as error:  # shutil.Error is one too, of several files
        return _told(FAILED, f"it cannot be copied: {str(error)[:_SHOWN]}")
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def _size(path: str) -> int:
    """Bytes of a copy. Links stay links: wandb's own logs are linked, and lie elsewhere or are gone after a restart."""
    total = 0
    for folder, _folders, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total


def _told(state: str, why: str) -> dict[str, str]:
    return {"state": state, "why": why, "at": records.utc_now()}


def _end_of(output: str) -> str:
    """The last words, without any secret of the environment that they may repeat."""
    text = output.strip()[-_SHOWN:]
    for name, value in os.environ.items():
        if value and name.endswith(("KEY", "TOKEN", "SECRET", "PASSWORD")):
            text = text.replace(value, "***")
    return text
