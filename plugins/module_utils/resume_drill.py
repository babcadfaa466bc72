# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The resume drill as modules and controller see it: asked of the supervisor on the box, its verdict kept at home."""

from __future__ import annotations

import os
from typing import Any, Callable, Mapping

from .box import records
from .failures import TenantFailure
from .journal import Journal
from .state_store import BoxIdentity, StateStore
from .supervisor_client import SupervisorClient, find_program, program_argv

VERB = "resume-drill"
_SHOWN_LOG = 5
# Verdicts on what could be seen, and not on what the run did.
_NOTHING_SEEN = ("no_losses", "no_metrics", "ended_early", "unclear")
_SAVE = "make the script save into TENANT_CHECKPOINT_DIR and go on from there"
_TELL = (
    "have each step and its loss told, in TENANT_METRICS or where `progress` of the run spec says they can be read, "
    "and name each checkpoint by its step, counted as these are"
)
_LAST_LONGER = (
    "have several steps and their losses told in each epoch (TENANT_METRICS), or give the drilled cell more steps"
)
_FIXES = {**dict.fromkeys(_NOTHING_SEEN, _TELL), "ended_early": _LAST_LONGER}


def drill_here(
    params: Mapping[str, Any], run_command: Callable[[list[str], str], tuple[int, str, str]], python: str, check: bool
) -> dict[str, Any]:
    """On the box: ``{changed, drill}``, whatever the verdict.

    :raises TenantFailure: the supervisor refused, or is not there.
    """
    program = params["pyz"] or find_program(params["tenant_root"])
    if not program or not os.path.isfile(program):
        if check:
            return {"changed": True, "drill": None}
        what = f"there is no supervisor in {params['tenant_root']}/bin"
        raise TenantFailure(
            "config", what, box=params["box"], safe="nothing was started", fix="run the deploy playbook first"
        )
    options = ["--run", params["run_id"], "--deadline-s", str(params["deadline_s"])]
    options += ["--tolerance", str(params["tolerance"])]
    options += ["--cell", params["cell"]] if params["cell"] else []
    options += ["--again"] if params["again"] else []
    return SupervisorClient(run_command, program_argv(python, program, params["tenant_root"])).call(
        "drill", *options, check=check
    )


def keep(store: StateStore, identity: BoxIdentity, run_id: str, verdict: Mapping[str, Any]) -> None:
    """Keep a verdict in the state store and say so in the journal, unless it is there already.

    :raises TenantFailure: it is of another box or run than was asked.
    """
    wanted = dict(identity.as_dict(), run_id=run_id)
    wrong = [key for key, value in wanted.items() if verdict.get(key) != value]
    if wrong:
        what = f"the box answered with a drill of another {wrong[0]}: {ascii(verdict.get(wrong[0]))[:80]}"
        raise TenantFailure("provider", what, box=identity.box, safe="nothing was kept", fix="locate the box again")
    path = store.drill_path(identity.project, run_id, identity.box, identity.generation)
    record = dict(verdict, schema=records.schema("drill"))
    try:
        if records.read_record_or_none(path, "drill") == record:
            return
    except records.RecordError:
        # A damaged one is replaced by what the box says now.
        pass
    records.write_record(path, "drill", record)
    Journal(store).append(
        "effect", VERB, **wanted, passed=verdict.get("passed") is True, reason=str(verdict.get("reason"))
    )


def failure_of(identity: BoxIdentity, run_id: str, verdict: Mapping[str, Any]) -> TenantFailure | None:
    """Why the training must not begin; None after a drill that passed."""
    if verdict.get("passed") is True:
        return None
    unseen = verdict.get("reason") in _NOTHING_SEEN
    claim = f"nothing shows that run {run_id} survives" if unseen else f"run {run_id} does not survive"
    fix = _FIXES.get(str(verdict.get("reason")), _SAVE)
    lines = [str(line) for line in verdict.get("log_tail") or []][-_SHOWN_LOG:]
    said = f" (the trainer's last lines: {' | '.join(lines)})" if lines else ""
    return TenantFailure(
        "training_failed",
        f"{claim} a kill: {verdict.get('why')}{said}",
        box=identity.box,
        safe="the run itself was not started, and what the drill left is in "
        f"{verdict.get('kept') or 'its folder on the box'}",
        fix=f"{fix} (docs/checkpoints.md), deploy again, and repeat the drill",
    )
