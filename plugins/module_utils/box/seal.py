# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The seal: the promise that nothing on this box writes any more, with the digest of every run's manifest."""

from __future__ import annotations

import os
from typing import Any

from . import control, desired, fence, index, process, records, run_manifest, run_record, survey
from .control import Caller
from .layout import Layout
from .refusal import ARTIFACT_INVALID, LIVE, MISMATCH, USAGE, Refused


def seal(layout: Layout, caller: Caller, stop_live: bool, grace_s: float | None) -> dict[str, Any]:
    """Seal the box. Holds it first; refuses while a cell lives, unless told to stop it. A second seal changes nothing.

    :raises Refused: LIVE; USAGE when nothing is registered; MISMATCH when a run's record is damaged;
        ARTIFACT_INVALID when finished artifacts changed.
    """
    known = _existing(layout, caller)
    if known is not None:
        return {"changed": False, "before": {}, "after": {}, "seal": known}
    found = _prepare(layout, caller, stop_live)
    before = {"sealed": False, "desired": found.orders.desired}
    after = {"sealed": True, "desired": desired.HOLD}
    if caller.check:
        return control.outcome(before, after, seal=None)
    if stop_live:
        control.hold(layout, caller, stop_live, grace_s)
    with control.settled(layout, caller) as quiet:
        record = _write(layout, quiet)
    return control.outcome(before, after, seal=record)


def _existing(layout: Layout, caller: Caller) -> dict[str, Any] | None:
    if not os.path.lexists(layout.seal):
        return None
    with control.box(layout, caller):
        return records.read_record(layout.seal, "seal")


def _prepare(layout: Layout, caller: Caller, stop_live: bool) -> survey.Survey:
    """Everything that can refuse, before anything is changed."""
    with control.box(layout, caller):
        if index.read(layout) is None:
            raise Refused(USAGE, "nothing is registered on this box, so there is nothing to seal")
        found = survey.survey(layout)
        if found.problems:
            raise Refused(MISMATCH, f"the box cannot be sealed: {'; '.join(found.problems)}", "repair the record first")
        # The roster of a run whose cells the tasks of a job array share adds up before anything is promised.
        twice = [told for run_id in found.runs for told in found.finished_twice(run_id)]
        if twice and os.path.exists(layout.array):
            raise Refused(ARTIFACT_INVALID, f"the box cannot be sealed: {'; '.join(twice)}", "then repeat the command")
        live = [f"{cell.run_id}/{cell.cell}" for cell in found.live()]
        if live and not stop_live:
            fix = "wait for them, or stop them first"
            raise Refused(LIVE, f"the box cannot be sealed while cells live: {', '.join(live)}", fix)
        if not caller.check:
            # Under the same lock as the look: no cell can start between the two.
            desired.write(layout, dict(found.wanted, desired=desired.HOLD))
    return found


def _write(layout: Layout, found: survey.Survey) -> dict[str, Any]:
    """Manifests of every run first, the seal last: whoever sees the seal finds what it promises."""
    if found.orders.desired != desired.HOLD:
        raise Refused(LIVE, "somebody started the box again meanwhile", "agree with them, then repeat the command")
    known = found.index or {}
    runs = []
    for run_id in index.run_ids(known):
        built = run_manifest.of_run(layout, found, run_id)
        records.write_record(layout.run_manifest(run_id), "manifest", built)
        runs.append(
            {
                "run_id": run_id,
                "spec_sha256": built["spec_sha256"],
                "state": built["state"],
                "manifest_digest": built["digest"],
            }
        )
    identity = {key: known[key] for key in run_record.IDENTITY}
    record = {
        **identity,
        "epoch": fence.known_epoch(layout),
        "sealed_at": records.utc_now(),
        "boot": process.current_boot().as_dict(),
        "runs": runs,
    }
    return records.write_record(layout.seal, "seal", record)


def unseal(layout: Layout, caller: Caller) -> dict[str, Any]:
    """Take the promise back: the seal is put aside and kept. The box stays on hold until a start."""
    with control.box(layout, caller):
        if not os.path.lexists(layout.seal):
            return control.outcome({"sealed": False}, {"sealed": False})
        kept = "" if caller.check else control.put_seal_aside(layout)
        return control.outcome({"sealed": True}, {"sealed": False}, kept=kept)
