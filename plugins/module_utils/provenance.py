# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Where results come from: code, spec, seeds, platform, GPU, driver, torch and money, from what is known already.

Every field is always there. What nobody knows is the text ``unknown``, never 0 and never left out.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from typing import Any, Mapping

from .box import records, run_record
from .box.layout import Layout
from .supervisor_client import find_program

UNKNOWN = "unknown"
FIELDS = (
    "code_sha256",
    "spec_sha256",
    "seeds",
    "platform",
    "machine_id",
    "gpus",
    "driver",
    "cuda",
    "torch",
    "python",
    "packages_sha256",
    "supervisor_sha256",
    "cost",
)
_ASK_S = 20
# Packages by the names of their folders, which hold name and version: reading what lies in each takes a second.
_ASK = (
    "import hashlib, importlib.metadata as m, json, os, platform, sys\n"
    "try:\n torch = m.version('torch')\nexcept m.PackageNotFoundError:\n torch = ''\n"
    "folders = [path for path in sys.path if os.path.isdir(path)]\n"
    "names = {name for path in folders for name in os.listdir(path) if name.endswith(('.dist-info', '.egg-info'))}\n"
    "packages = hashlib.sha256('\\n'.join(sorted(names)).encode()).hexdigest()\n"
    "print(json.dumps({'python': platform.python_version(), 'torch': torch, 'packages_sha256': packages}))"
)
_VERSION = re.compile(r"[0-9A-Za-z.+_-]{1,60}\Z")


# --- on the box ---------------------------------------------------------------------------------------------------


def told_by_box(layout: Layout, run_id: str, ask_python: bool) -> dict[str, Any]:
    """What the box says of a run.

    :param ask_python: start the Python that the run's record names, for its versions; imports nothing heavy. Never
        where the record came from another box: it could name a program that came with it.
    """
    try:
        run = run_record.read_run(layout, run_id)
    except records.RecordError:
        return {}
    program = find_program(layout.root)
    return {
        "code_sha256": run["code_sha256"],
        "spec_sha256": run["spec_sha256"],
        "seeds": {cell["id"]: cell["seed"] for cell in run["cells"]},
        "supervisor_sha256": records.sha256_file(program) if program else "",
        **(_versions(run["python"], run["env"]) if ask_python else {}),
    }


def _versions(python: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The versions of the Python that trains and of its torch, in the environment that trainers get, and one hash of
    all packages with their versions: two runs that differ in it were not made with the same ones."""
    argv = [python, "-c", _ASK]
    try:
        # There is no AnsibleModule here whose run_command could be used.
        done = subprocess.run(  # pylint: disable=ansible-bad-function
            argv,
            cwd="/",
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_ASK_S,
            check=False,
        )
        found = json.loads(done.stdout.decode("utf-8"))
        return {name: str(found[name]) for name in ("python", "torch", "packages_sha256")}
    except (OSError, ValueError, KeyError, TypeError, subprocess.TimeoutExpired):
        return {}


# --- at home ------------------------------------------------------------------------------------------------------


def compose(told: Mapping[str, Any], box_record: Mapping[str, Any] | None, now: str) -> dict[str, Any]:
    """All of :data:`FIELDS`, from what the box told and from what the state store knows of it.

    What ``told`` has beyond these fields is kept: people may add their own.

    :param box_record: the state store's record of this box generation, with the admission's probe.
    """
    record = box_record or {}
    found = {**_of_admission(record), **{key: value for key, value in told.items() if value not in (None, "", {}, [])}}
    found.setdefault("platform", record.get("platform"))
    found.setdefault("machine_id", record.get("machine_id"))
    found.setdefault("cost", cost_so_far(record, now))
    named = {name: found.pop(name, None) for name in FIELDS}
    return {**found, **{name: UNKNOWN if _is_nothing(value) else value for name, value in named.items()}}


def _is_nothing(value: object) -> bool:
    return value is None or value in ("", [], {})


def _of_admission(record: Mapping[str, Any]) -> dict[str, Any]:
    """GPU, driver, CUDA and torch as the probe saw them when the box was admitted."""
    probe = _mapping(_mapping(record.get("admission")).get("probe"))
    listed = probe.get("gpus")
    gpus = [gpu for gpu in listed if isinstance(gpu, Mapping)] if isinstance(listed, list) else []
    return {
        "gpus": [{"name": _text(gpu.get("name")), "memory_mb": gpu.get("memory_mb")} for gpu in gpus],
        "driver": next((_text(gpu["driver"]) for gpu in gpus if gpu.get("driver")), None),
        "cuda": _text(_mapping(probe.get("cuda")).get("driver_max")),
        "torch": _version(_mapping(probe.get("torch")).get("version")),
        "python": _version(_mapping(probe.get("training_python")).get("version")),
    }


def cost_so_far(record: Mapping[str, Any], now: str) -> Any:
    """``{estimate, currency, how}`` from the agreed price and the time since the rental; unknown without either."""
    price, since = record.get("price_per_hour"), record.get("created_at")
    if not isinstance(price, (int, float)) or isinstance(price, bool) or not isinstance(since, str):
        return UNKNOWN
    try:
        hours = (records.parse_utc(now) - records.parse_utc(since)).total_seconds() / 3600
    except ValueError:
        return UNKNOWN
    how = f"{price:g} an hour since {since}, as if it had run all the time; traffic is not in it, the bill decides"
    return {"estimate": round(price * hours, 4), "currency": "USD", "how": how} if hours >= 0 else UNKNOWN


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: object) -> str | None:
    return value[:200] if isinstance(value, str) and value else None


def _version(value: object) -> str | None:
    return value if isinstance(value, str) and _VERSION.match(value) else None
