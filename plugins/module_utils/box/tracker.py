# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The experiment tracker of a run: what the trainer is told, and what is looked at before it starts."""

from __future__ import annotations

import json
import os
from typing import Any

from . import control, http_get, run_record
from .bounded import run_bounded
from .http_get import Call, HttpProblem
from .layout import Layout
from .refusal import ENVIRONMENT, USAGE, Refused
from .tracker_names import NONE, OFFLINE, TENSORBOARD, TRACKIO, WANDB

# Any one of these lets the trainer write what the tracker reads.
_PACKAGES = {WANDB: ("wandb",), TRACKIO: ("trackio",), TENSORBOARD: ("tensorboard", "tensorboardX")}
_IMPORTABLE = (
    "import importlib.util, sys\n"
    "specs = [(name, importlib.util.find_spec(name)) for name in sys.argv[1:]]\n"
    # A folder that merely bears the name is found too, without an origin; wandb itself makes such folders.
    "found = [name for name, spec in specs if spec and spec.origin]\n"
    "print(' '.join(found)); sys.exit(0 if found else 3)"
)
_LOOK_S = 60.0
# Where platforms put their panel, and where TensorBoard goes by itself.
PANEL_PORTS = (6006, 6007)
_PANEL_TIMEOUT_S = 5.0


# --- before the launch ----------------------------------------------------------------------------------------


def check(layout: Layout, caller: control.Caller, value: object) -> dict[str, Any]:
    """Have what the tracker of a run needs: its package, its key, and its place in the platform's own panel.

    :param value: ``{run, logdir}``, the run record and the folder that the platform's TensorBoard shows.
    :raises Refused: ENVIRONMENT, saying what is missing.
    """
    order = value if isinstance(value, dict) else {}
    run, logdir = run_record.check_run(order.get("run")), str(order.get("logdir") or "")
    if logdir and not os.path.isabs(logdir):
        raise Refused(USAGE, f"the panel's folder {logdir!a} is not an absolute path")
    name = run["tracker"]["name"]
    if name == NONE:
        return control.outcome({}, {}, tracker=name, package="", panel=None)
    package = _package(run)
    if name == WANDB and run["tracker"]["mode"] != OFFLINE:
        _demand_key(run)
    with control.box(layout, caller):
        before, after = _linked(layout, run, logdir, caller.check) if name == TENSORBOARD and logdir else ({}, {})
    panel = look_at_panel(logdir, link_name(run)) if name == TENSORBOARD else None
    return control.outcome(before, after, tracker=name, package=package, panel=panel)


def _package(run: dict[str, Any]) -> str:
    name = run["tracker"]["name"]
    os.environ.update(run["env"])
    outcome = run_bounded([run["python"], "-c", _IMPORTABLE, *_PACKAGES[name]], _LOOK_S)
    if outcome.rc == 0:
        return outcome.out.split()[0]
    if outcome.rc == 3:
        what = f"the tracker {name} cannot work: {run['python']} has no package {' or '.join(_PACKAGES[name])}"
        raise Refused(ENVIRONMENT, what, "add it to the run spec's requirements, or set tracker: none")
    why = outcome.why or outcome.out.strip()[-200:] or f"it ended with {outcome.rc}"
    raise Refused(ENVIRONMENT, f"{run['python']} cannot say whether it has {_PACKAGES[name][0]}: {why}")


def _demand_key(run: dict[str, Any]) -> None:
    known = run_record.read_env_file(run["env_file"]) if run["env_file"] else {}
    if not (known.get("WANDB_API_KEY") or run["env"].get("WANDB_API_KEY")):
        fix = "name WANDB_API_KEY in the run spec's secrets, or set the tracker's mode to offline"
        raise Refused(ENVIRONMENT, "the tracker wandb has no key on this box", fix)


# --- TensorBoard ----------------------------------------------------------------------------------------------


def link_name(run: dict[str, Any]) -> str:
    return f"{run['project']}-{run['run_id']}"


def _linked(
    layout: Layout, run: dict[str, Any], logdir: str, check_only: bool
) -> tuple[dict[str, str], dict[str, str]]:
    """The run's folder inside the one that the panel shows, by a link; nothing of anybody else's is replaced."""
    link, target = os.path.join(logdir, link_name(run)), layout.run_dir(run["run_id"])
    there = os.readlink(link) if os.path.islink(link) else ""
    if there != target and os.path.lexists(link):
        fix = "look at it on the box, and move it away if it is not wanted"
        raise Refused(ENVIRONMENT, f"{link} is there already and is not ours", fix)
    if not there and not check_only:
        os.makedirs(logdir, exist_ok=True)
        os.symlink(target, link)
    return {"link": there}, {"link": target}


def look_at_panel(logdir: str, name: str, ports: tuple[int, ...] = PANEL_PORTS) -> dict[str, Any]:
    """What a TensorBoard of this box says by its own API: ``{url, logdir, shown, runs, why, told}``.

    ``shown``: it reads the folder that the run is linked into; ``runs``: those of ours that it lists already; ``told``:
    all of it in one sentence.
    """
    for url in [f"http://127.0.0.1:{port}" for port in ports]:
        try:
            place = str(_api(f"{url}/data/environment").get("data_location", ""))
            listed = _api(f"{url}/data/runs")
        except HttpProblem:
            continue
        except (ValueError, AttributeError):
            continue
        shown = bool(logdir) and os.path.realpath(place) == os.path.realpath(logdir)
        runs = [str(each) for each in listed if str(each).startswith(f"{name}/")] if isinstance(listed, list) else []
        why = (
            "" if shown else f"the TensorBoard at {url} shows {place}, and the run is linked into {logdir or 'nothing'}"
        )
        told = why or _how_shown(url, runs)
        return {"url": url, "logdir": place, "shown": shown, "runs": runs, "why": why, "told": told}
    why = "no TensorBoard answers on this box"
    return {"url": "", "logdir": "", "shown": False, "runs": [], "why": why, "told": why}


def _how_shown(url: str, runs: list[str]) -> str:
    if not runs:
        return f"the TensorBoard at {url} shows the folder of this run, and lists nothing of it yet"
    return f"the TensorBoard at {url} lists {', '.join(sorted(runs))}"


def _api(url: str) -> Any:
    return json.loads(http_get.read(Call(url, {}, {}, _PANEL_TIMEOUT_S))[1].decode("utf-8"))
