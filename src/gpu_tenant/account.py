# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The final account of a run, from evidence that is read again now: copies re-hashed, checkpoints loaded, accuracy
computed anew from the copy at home, the bill from the provider. What cannot be verified is said, and costs exit 0."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import copies, parts, receipts, results_at_home, roster
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.box.wording import size
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.run_spec import resolve_argv
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore
from ansible_collections.tenant.gpu.plugins.module_utils.vast.api import VastClient
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from gpu_tenant import bill
from gpu_tenant.narrate import offer_text
from gpu_tenant.one_line import one_line
from gpu_tenant.playbooks import collections_folder
from gpu_tenant.workspace import History

EVALUATE_TIMEOUT_S = 600.0


@dataclass
class BoxStory:
    """One rented machine: why it was chosen, what became of it, what it cost. Money is None while unknown.

    :param gone_at: of one that nobody destroyed, when its provider had it no more.
    """

    box: str
    generation: int
    provider_id: str
    machine_id: Any = None
    price_per_hour: float | None = None
    why: str = ""
    refusals: list[str] = field(default_factory=list)
    created_at: str | None = None
    destroyed_at: str | None = None
    gone_at: str | None = None
    destroyed_by: str = ""
    rule: str = ""
    billed: dict[str, float] | None = None


@dataclass
class Account:
    """Everything that happened to a run. ``unverified`` lists, in words, what could not be shown to be true."""

    project: str
    run_id: str
    spec_sha256: str
    boxes: list[BoxStory] = field(default_factory=list)
    offers: list[dict[str, Any]] = field(default_factory=list)
    interruptions: list[dict[str, Any]] = field(default_factory=list)
    resumed_from: dict[str, int] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    receipt: dict[str, Any] = field(default_factory=dict)
    files_verified: int = 0
    bytes_verified: int = 0
    where: str = ""
    loaded: list[dict[str, Any]] = field(default_factory=list)
    evaluation: dict[str, Any] | None = None
    billed_total: float | None = None
    unverified: list[str] = field(default_factory=list)

    @property
    def verified(self) -> bool:
        return not self.unverified

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "verified": self.verified}


def draw_up(
    store: StateStore, project: str, spec: Mapping[str, Any], history: History, client: VastClient | None
) -> Account:
    """Read everything again and tell it.

    :param client: the account's API for the bill; None when the boxes have no provider API.
    """
    account = Account(project, str(spec["id"]), str(spec["spec_sha256"]))
    account.boxes = _boxes(store, project, history)
    account.offers = [line for line in history.lines("vast_offer_info") if line.get("best")]
    account.interruptions = history.lines("interruption")
    receipt = store.finished_receipt(project, account.run_id, account.spec_sha256)
    receipt = receipt or results_at_home.last_record(store, project, spec)
    if receipt is None:
        account.unverified.append(f"run {account.run_id} has no complete receipt: its results are not home")
    else:
        account.receipt = dict(receipt)
        _verify_copies(account, spec, store)
        _read_training(account)
        _evaluate(account, spec)
    if client is not None:
        _bill(account, client)
    return account


# --- boxes ----------------------------------------------------------------------------------------------------------


def _boxes(store: StateStore, project: str, history: History) -> list[BoxStory]:
    """Every generation of every box that worked, or was tried, for this run."""
    names = sorted({str(line["box"]) for line in history.lines() if line.get("box")})
    chosen = _offers_by_machine(history)
    effects = [line for line in Journal(store).lines() if line.get("kind") == "effect"]
    stories = []
    for name in names:
        for generation in range(1, store.last_generation(project, name) + 1):
            record = store.read_box(project, name, generation)
            if record is not None:
                stories.append(_story(store, name, record, chosen, effects))
    return stories


def _offers_by_machine(history: History) -> dict[str, str]:
    chosen = {}
    for line in history.lines("vast_offer_info"):
        for offer in line.get("offers") or []:
            chosen[str(offer.get("machine_id"))] = str(offer.get("why", ""))
    return chosen


def _story(
    store: StateStore,
    name: str,
    record: Mapping[str, Any],
    chosen: Mapping[str, str],
    effects: Iterable[Mapping[str, Any]],
) -> BoxStory:
    rejection = record.get("rejection") or record.get("rejected") or {}
    refusals = rejection.get("refusals") or ([rejection["reason"]] if rejection.get("reason") else [])
    story = BoxStory(
        box=name,
        generation=int(record["generation"]),
        provider_id=str(record.get("provider_id") or ""),
        machine_id=record.get("machine_id"),
        price_per_hour=record.get("price_per_hour"),
        why=chosen.get(str(record.get("machine_id")), ""),
        refusals=[str(refusal) for refusal in refusals],
        created_at=record.get("created_at"),
        destroyed_at=None if record.get("lost") else record.get("destroyed_at"),
        gone_at=record.get("destroyed_at") if record.get("lost") else None,
    )
    for effect in effects:
        if effect.get("verb") == "destroy" and str(effect.get("provider_id")) == story.provider_id:
            story.rule = str(effect.get("rule") or "")
            story.destroyed_by = _approver(store, effect.get("approval_id"))
    return story


def _approver(store: StateStore, approval_id: Any) -> str:
    if not approval_id:
        return ""
    try:
        return str(records.read_record(store.approval_path(str(approval_id)), "approval").get("approver") or "")
    except (records.RecordError, ValueError):
        return "an approval that can no longer be read"


# --- evidence at home -----------------------------------------------------------------------------------------------


def _verify_copies(account: Account, spec: Mapping[str, Any], store: StateStore) -> None:
    """Re-read every copy where it lies, and load what has a loader from the first good one on this machine."""
    receipt = account.receipt
    place = (str(receipt["box"]), int(receipt["generation"]), str(receipt["provider_id"]))
    identity = BoxIdentity(account.project, *place)
    for copy in receipt.get("copies") or []:
        evidence = copies.reread(store, copy, identity, records.utc_now())
        if evidence.problems:
            account.unverified += [f"copy {copy.get('uri')}: {problem}" for problem in evidence.problems]
            continue
        if evidence.digest != receipt.get("manifest_digest"):
            account.unverified.append(f"copy {evidence.uri}: it is not what the receipt speaks of")
            continue
        folder = copies.folder_of(evidence.uri)
        if not folder:
            continue
        manifest = roster.read_manifest(folder)
        account.where = account.where or folder
        account.files_verified, account.bytes_verified = len(manifest.files), manifest.total_bytes
    if not account.where:
        account.unverified.append("no copy that the receipt names could be verified")
        return
    _load(account, spec, roster.read_manifest(account.where))


def _load(account: Account, spec: Mapping[str, Any], manifest: roster.Manifest) -> None:
    # A share of sharded files is loaded with the shares of the other boxes, in the whole.
    spans = account.receipt.get("whole") is not None
    verification = receipts.verify(account.where, manifest, "load", {}, spans=spans)
    checks, problems = parts.reread_whole(account.receipt)
    account.loaded = [dict(check) for check in [*verification.checks, *checks]]
    account.unverified += [*verification.problems, *problems]
    named = [entry for entry in spec["artifacts"] if entry["role"] == "checkpoint"]
    wants_tensors = any(entry.get("loader", "none") != "json" for entry in named)
    if wants_tensors and not any(check.get("tensors") for check in account.loaded):
        account.unverified.append("no checkpoint with tensors was loaded")


def _read_training(account: Account) -> None:
    """Where each cell's last attempt resumed from and how far it came, from its own metrics at home."""
    if not account.where:
        return
    root = Path(account.where)
    for done_path in sorted(root.glob("*/a*/done.json")):
        cell = done_path.parent.parent.name
        step, resumed = read_metrics(done_path.parent / "metrics.jsonl")
        if step is not None:
            account.steps[cell] = step
        if resumed is not None:
            account.resumed_from[cell] = resumed


def read_metrics(path: Path) -> tuple[int | None, int | None]:
    """(last step, step that the attempt resumed from) of a metrics file; None for what it does not say."""
    step = resumed = None
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return None, None
    for raw in lines:
        try:
            line = json.loads(raw)
        except ValueError:
            continue
        if isinstance(line, dict):
            step = line["step"] if isinstance(line.get("step"), int) else step
            resumed = line["resumed_from"] if isinstance(line.get("resumed_from"), int) else resumed
    return step, resumed


def _evaluate(account: Account, spec: Mapping[str, Any]) -> None:
    """Run the spec's ``evaluate`` on the copy at home; the user's own code, on this machine's CPU."""
    if not spec.get("evaluate") or not account.where:
        return
    model = main_artifact(account.where, spec)
    if model is None:
        account.unverified.append("there is no model at home to evaluate")
        return
    try:
        account.evaluation = run_evaluate(spec, model)
    except TenantFailure as failure:
        account.unverified.append(str(failure))


def main_artifact(folder: str, spec: Mapping[str, Any]) -> Path | None:
    """What ``{model}`` stands for: the first artifact of role checkpoint that is not below ``checkpoints/``."""
    globs = [
        entry["glob"]
        for entry in spec["artifacts"]
        if entry["role"] == "checkpoint" and not entry["glob"].startswith("checkpoints/")
    ]
    done = sorted(Path(folder).glob("*/a*/done.json"))
    for attempt in (path.parent for path in done):
        for pattern in globs:
            for found in sorted((attempt / "out").glob(pattern)):
                return found
    return None


def run_evaluate(spec: Mapping[str, Any], model: Path) -> dict[str, Any]:
    """What ``evaluate`` printed last as a JSON object. TenantFailure (``evidence_missing``) when it failed."""
    argv = resolve_argv(list(spec["evaluate"]), sys.executable, model=str(model), out=str(model.parent))
    helper = Path(collections_folder(), "ansible_collections/tenant/gpu/roles/deploy/files").resolve()
    environment = {**os.environ, **spec["env"], "CUDA_VISIBLE_DEVICES": "", "PYTHONDONTWRITEBYTECODE": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(helper), environment.get("PYTHONPATH", "")]))
    environment.pop("VAST_API_KEY", None)
    try:
        done = subprocess.run(
            argv,
            cwd=Path(spec["code_dir"], spec["workdir"]),
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=EVALUATE_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _evaluation_failed(str(error)) from error
    if done.returncode != 0:
        raise _evaluation_failed(f"it ended with {done.returncode}: {one_line(done.stderr[-400:])}")
    for line in reversed(done.stdout.splitlines()):
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            return found
    raise _evaluation_failed("it printed no JSON object")


def _evaluation_failed(why: str) -> TenantFailure:
    fix = "run the spec's evaluate command by hand on the copy at home"
    return TenantFailure("evidence_missing", f"the evaluation of the copy at home failed: {why}", fix=fix)


# --- money ----------------------------------------------------------------------------------------------------------


def _bill(account: Account, client: VastClient) -> None:
    """What the provider charged for every box of this run. Unknown is said, never taken for 0."""
    starts = [story.created_at for story in account.boxes if story.created_at]
    if not starts:
        return
    try:
        billed = bill.billed(client, starts)
    except TenantFailure as failure:
        account.unverified.append(f"the bill is unknown: {failure}")
        return
    for story in account.boxes:
        story.billed = billed.get(story.provider_id)
    known = [story.billed["total"] for story in account.boxes if story.billed]
    account.billed_total = sum(known) if known else None
    if account.billed_total is None:
        account.unverified.append("the provider has not billed these boxes yet")


# --- telling it -----------------------------------------------------------------------------------------------------


def render(account: Account) -> RenderableType:
    """The account as text for a terminal."""
    parts: list[RenderableType] = [Text(f"Account of run {account.run_id} (project {account.project})", style="bold")]
    parts += [Text(""), _box_table(account.boxes)]
    for heading, tell in _SECTIONS:
        lines = tell(account)
        if lines:
            parts += [Text(""), Text(heading, style="bold"), *[Text(f"  {line}") for line in lines]]
    verdict = "everything above was verified just now" if account.verified else "NOT everything could be verified"
    style = "bold green" if account.verified else "bold red"
    return Group(*parts, Text(""), Text(verdict, style=style), *[Text(f"  - {gap}") for gap in account.unverified])


def _box_table(stories: Sequence[BoxStory]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("box", "instance", "$/hour", "billed $", "what became of it"):
        table.add_column(column, overflow="fold")
    for story in stories:
        billed = f"{story.billed['total']:.4f}" if story.billed else "unknown"
        price = f"{story.price_per_hour:.4f}" if story.price_per_hour is not None else "unknown"
        table.add_row(f"{story.box} g{story.generation}", story.provider_id, price, billed, fate(story))
    return table


def fate(story: BoxStory) -> str:
    """What became of a box, in a sentence."""
    if story.refusals:
        end = f"; destroyed at {story.destroyed_at} before anything was deployed" if story.destroyed_at else ""
        return f"refused by the probe: {'; '.join(story.refusals)}{end}"
    if story.gone_at:
        return f"gone since {story.gone_at}: its provider has it no more, and nobody here destroyed it"
    if not story.destroyed_at:
        return "still there, and its disk bills until it is destroyed"
    consent = f", approved by {story.destroyed_by}" if story.destroyed_by else ""
    rule = f" (rule: {story.rule})" if story.rule else ""
    return f"destroyed at {story.destroyed_at}{consent}{rule}"


def _tell_offers(account: Account) -> list[str]:
    told = [f"chosen: {offer_text(line['best'])}: {line['best'].get('why', '')}" for line in account.offers]
    return told + [f"{story.box} g{story.generation}: {fate(story)}" for story in account.boxes if story.refusals]


def _tell_training(account: Account) -> list[str]:
    told = [_tell_interruption(line) for line in account.interruptions]
    for cell in sorted(set(account.steps) | set(account.resumed_from)):
        start = account.resumed_from.get(cell)
        how = f"resumed from step {start}, " if start is not None else ""
        told.append(f"cell {cell}: {how}finished at step {account.steps.get(cell, 'unknown')}")
    return told


def _tell_interruption(line: Mapping[str, Any]) -> str:
    step = f" around step {line['step']}" if line.get("step") is not None else ""
    return f"interrupted at {line.get('at')}{step}: {line.get('why')}"


def _tell_evidence(account: Account) -> list[str]:
    if not account.where:
        return []
    told = [f"{account.files_verified} files, {size(account.bytes_verified)}, every SHA-256 right, in {account.where}"]
    if account.receipt.get("rebuilt"):
        told.append(f"no receipt: {account.receipt['rebuilt']['why']}; it opens no gate")
    for check in account.loaded:
        if check.get("ok") and check.get("tensors"):
            step = f", step {check['step']}" if check.get("step") is not None else ""
            told.append(f"loaded {check['path']}: {check['tensors']} tensors{step}")
    if account.evaluation is not None:
        numbers = ", ".join(f"{key} {value}" for key, value in account.evaluation.items())
        told.append(f"evaluated from the copy at home: {numbers}")
    return told


def _tell_money(account: Account) -> list[str]:
    if account.billed_total is None:
        return ["billed: unknown"]
    kinds: dict[str, float] = {}
    for story in account.boxes:
        for kind, amount in (story.billed or {}).items():
            if kind != "total":
                kinds[kind] = kinds.get(kind, 0.0) + amount
    parts = ", ".join(f"{kind} ${amount:.4f}" for kind, amount in sorted(kinds.items()))
    return [f"billed by the provider: ${account.billed_total:.4f}" + (f" ({parts})" if parts else "")]


_SECTIONS: tuple[tuple[str, Callable[[Account], list[str]]], ...] = (
    ("Offers", _tell_offers),
    ("Training", _tell_training),
    ("Evidence", _tell_evidence),
    ("Money", _tell_money),
)


def show(account: Account, console: Console) -> None:
    console.print(render(account), soft_wrap=True)
