# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``gpu-tenant demo``: the whole story on this machine, unattended, and 0 only if every part of it was proven.

A lying offer is refused, a box is lost in the middle of training and the run goes on, results come home and are
verified, the gate refuses to destroy without consent, then destroys with it, and the bill is read.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.rented_box import RESTING
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from ansible_collections.tenant.gpu.plugins.module_utils.vast.transformations import to_box
from rich.text import Text

from gpu_tenant import account, approve, exit_codes, go, job
from gpu_tenant.box_ssh import Endpoint, ssh_command
from gpu_tenant.interrupts import Interrupts
from gpu_tenant.marketplace.testing import Handle, MarketplaceFailed, running_marketplace
from gpu_tenant.observation import Observation
from gpu_tenant.playbooks import collections_folder
from gpu_tenant.progress import Progress, console_for

BOX = "digits-1"
DEFAULT_FOLDER = ".tenant/demo"
APPROVER = "demo operator"
# How a box of a marketplace of our own is left by whoever stops what it is for.
GONE_WITH_MARKET = "it is gone with its marketplace, and cost nothing"
PREEMPT_AT = 0.35
LEAST_ACCURACY = 0.97
PULL_EVERY_S = 10.0
POLL_S = 0.5
# A lost box that was not won back after this many looks: the market's price falls, as it would by morning.
RELEASE_AFTER_LOOKS = 6
KEPT_S = 86400.0


@dataclass(frozen=True)
class DemoOptions:
    keep: bool = False
    engine: str = "process"
    workspace: str = ""
    as_json: bool = False


@dataclass
class Proof:
    """What the demo must show. Each part starts unproven."""

    liar_refused: bool = False
    interrupted: bool = False
    resumed_from: int = 0
    account_verified: bool = False
    accuracy: float = 0.0
    refused_without_consent: str = ""
    destroyed: bool = False
    approver: str = ""
    leftovers: list[str] = field(default_factory=lambda: ["nobody has looked"])
    billed: float | None = None


def shortcomings(proof: Proof, kept: bool = False) -> list[str]:
    """What is not proven, in words; empty means that the demo succeeded. ``kept`` boxes need not be destroyed."""
    checks = [
        (proof.liar_refused, "the offer that lies about its GPU was not refused by the probe"),
        (proof.interrupted, "the box was never lost during training"),
        (proof.resumed_from > 0, "training did not resume from a checkpoint after step 0"),
        (proof.account_verified, "the account could not verify everything"),
        (proof.accuracy >= LEAST_ACCURACY, f"accuracy {proof.accuracy:.4f} is below {LEAST_ACCURACY}"),
        (bool(proof.refused_without_consent), "the gate did not refuse to destroy without consent"),
        (proof.billed is not None and proof.billed > 0, "the provider's bill is unknown"),
    ]
    if not kept:
        checks += [
            (proof.destroyed, "the box was not destroyed"),
            (proof.approver == APPROVER, "the box was not destroyed on the demo operator's approval"),
            (not proof.leftovers, f"left over: {', '.join(proof.leftovers)}"),
        ]
    return [why for shown, why in checks if not shown]


class Director:
    """Takes the GPU away once training has come far enough, by observed steps; gives it back if it is not won back."""

    def __init__(self, market: Handle, progress: Progress) -> None:
        self._market = market
        self._progress = progress
        self._lost_looks = 0
        self.preempted = ""

    def look(self, seen: Observation) -> None:
        if seen.item is None:
            return
        if not self.preempted:
            self._preempt_when_due(seen)
        elif seen.provider in (*RESTING, "scheduling"):
            self._lost_looks += 1
            if self._lost_looks == RELEASE_AFTER_LOOKS:
                self._progress.emit("note", "the market: the higher bid is gone, the price falls again", seen.box)
                self._market.release(int(self.preempted))

    def _preempt_when_due(self, seen: Observation) -> None:
        run = seen.run
        if run is None or run.state != "running" or seen.item is None or run.step is None or not run.steps:
            return
        if run.step / run.steps >= PREEMPT_AT:
            self._progress.emit(
                "warning", f"the market: a higher bid takes the GPU at step {run.step} of {run.steps}", seen.box
            )
            self._market.preempt(int(seen.item.provider_id))
            self.preempted = seen.item.provider_id


def run(options: DemoOptions) -> int:
    """Run the demo; its exit code."""
    job.require_programs((*job.PROGRAMS, "ssh-keygen"))
    started = time.monotonic()
    folder = _new_folder(options)
    try:
        with running_marketplace(options.engine, state_dir=folder / "marketplace") as market:
            check_engine(market)
            with job.opened(
                _job_options(folder, market, options), spec_required=True, purpose="gpu-tenant demo"
            ) as work:
                work.leaving = lambda: [(BOX, GONE_WITH_MARKET)]
                work.progress.emit("note", f"a marketplace answers at {market.url}; this demo's files: {folder}")
                proof, drawn = _play(work, market, options)
                how = how_to_look(work, folder) if options.keep else ""
            _show(proof, drawn, options, time.monotonic() - started)
            if options.keep:
                _wait_for_end(how)
    except MarketplaceFailed as error:
        fix = "see that sshd is installed and the engine can run here; --engine chooses another"
        raise TenantFailure("provider", str(error), safe="it cost nothing", fix=fix) from error
    return exit_codes.of_kind("evidence_missing") if shortcomings(proof, options.keep) else exit_codes.DONE


def check_engine(market: Handle) -> None:
    if market.engine.get("isolated") is False:
        raise TenantFailure(
            "config",
            f"boxes cannot have a root of their own here: {market.engine.get('isolation')}",
            safe="nothing was started",
            fix="run the demo as root, or with --engine podman",
        )


def _new_folder(options: DemoOptions) -> Path:
    base = Path(options.workspace or Path.cwd() / DEFAULT_FOLDER).expanduser().resolve()
    try:
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=time.strftime("%Y%m%dT%H%M%S-", time.gmtime()), dir=base))
    except OSError as error:
        raise TenantFailure(
            "config", f"cannot use {base}: {error.strerror}", fix="give another folder with --workspace"
        ) from error


def collection_root() -> Path:
    return Path(collections_folder(), "ansible_collections/tenant/gpu").resolve()


def _job_options(folder: Path, market: Handle, options: DemoOptions) -> job.JobOptions:
    root = collection_root()
    overrides = folder / "inventory" / "demo.yml"
    overrides.parent.mkdir(mode=0o700)
    variables = overrides_of(folder, market, make_key(folder), options.keep)
    overrides.write_text(yaml.safe_dump(variables, sort_keys=True), encoding="utf-8")
    records.write_bytes(str(folder / "api-key"), market.api_key.encode() + b"\n")
    profiles = folder / "inventory" / "profiles.yml"
    profiles.write_text("plugin: tenant.gpu.profiles\n", encoding="utf-8")
    return job.JobOptions(
        limit=BOX,
        inventories=[str(profiles), str(root / "inventories/demo/hosts.yml"), str(overrides)],
        run=str(root / "examples/digits/run.yml"),
        workspace=str(folder / "runner"),
        as_json=options.as_json,
    )


def make_key(folder: Path) -> Path:
    """A key pair of the demo's own; the private key never leaves ``folder``."""
    path = folder / "keys" / "id_ed25519"
    path.parent.mkdir(mode=0o700)
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "gpu-tenant demo", "-f", str(path)]
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=30)
    return path


def bindings_of(folder: Path, market: Handle, key: Path) -> dict[str, Any]:
    """Variables that bind boxes to this marketplace and this folder, and to no real account or state store."""
    variables: dict[str, Any] = {
        "vast_api_url": market.url,
        "vast_api_key_file": str(folder / "api-key"),
        "tenant_state_dir": str(folder / "state"),
        "tenant_results_dir": str(folder / "results"),
        "provision_ssh_public_key_file": f"{key}.pub",
        "ansible_ssh_private_key_file": str(key),
        # The box shares this machine's cores with everything else; threads that spin while they wait would starve it.
        "deploy_env": {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"},
    }
    if market.engine.get("name") == "process":
        variables["platform_python"] = sys.executable
    return variables


def overrides_of(folder: Path, market: Handle, key: Path, keep: bool = False) -> dict[str, Any]:
    """The bindings as an inventory source, for the demo's box."""
    variables = bindings_of(folder, market, key)
    if keep:
        variables["harvest_park"] = False
    return {"vast": {"hosts": {BOX: variables}}}


# --- the play -------------------------------------------------------------------------------------------------------


def _play(work: job.Job, market: Handle, options: DemoOptions) -> tuple[Proof, account.Account]:
    proof = Proof()
    settings = go.GoOptions(
        pull_every_s=PULL_EVERY_S, poll_s=POLL_S, poll_most_s=2.0, deadline_s=float(work.spec["deadline_s"])
    )
    driver = go.Go(work.runner, work.observer, work.spec, settings, work.progress, work.history)
    director = Director(market, work.progress)
    driver.on_look = director.look
    driver.run()
    proof.refused_without_consent = _try_without_consent(work)
    if not options.keep:
        _consent(work)
        work.run_playbook("teardown").raise_for_failure()
        proof.leftovers = _leftovers(work, market)
    host = work.inventory.boxes[0]
    store = StateStore(host.required("tenant_state_dir"))
    drawn = account.draw_up(store, work.project, work.spec, work.history, work.observer.client(BOX))
    _fill(proof, drawn)
    return proof, drawn


def _try_without_consent(work: job.Job) -> str:
    """A teardown that nobody approved; the gate's reason, empty if it did not refuse."""
    work.progress.emit("note", "a teardown that nobody approved is tried:", BOX)
    outcome = work.run_playbook("teardown")
    failure = outcome.failure(BOX)
    if failure is None or failure.kind != "gate_refused":
        return ""
    work.progress.emit("note", "refused, as it must be", BOX)
    return failure.what


def _consent(work: job.Job) -> None:
    host = work.inventory.boxes[0]
    store = StateStore(host.required("tenant_state_dir"))
    identity = approve.identity_of(store, work.project, BOX)
    consent = approve.Consent(APPROVER, "the demo's results are home and verified", ttl_s=900)
    work.progress.emit("note", approve.describe(approve.consent_to(store, identity, "destroy", consent)), BOX)


def _leftovers(work: job.Job, market: Handle) -> list[str]:
    """Instances with our stamp and volumes that the provider still lists: each of them would bill."""
    rows = work.observer.client(BOX).list_instances()
    boxes = [to_box(row) for row in rows]
    left = [f"instance {box.provider_id}" for box in boxes if box.stamp and box.stamp.project == work.project]
    return left + [f"volume {volume.get('id')}" for volume in market.state().get("volumes") or []]


def _fill(proof: Proof, drawn: account.Account) -> None:
    """Read the proof from the account, which has read everything again."""
    proof.account_verified = drawn.verified
    proof.liar_refused = any(story.refusals and story.destroyed_at for story in drawn.boxes)
    proof.interrupted = bool(drawn.interruptions)
    proof.resumed_from = max(drawn.resumed_from.values(), default=0)
    proof.accuracy = records.finite((drawn.evaluation or {}).get("accuracy")) or 0.0
    proof.billed = drawn.billed_total
    last = drawn.boxes[-1] if drawn.boxes else None
    if last is not None:
        proof.destroyed, proof.approver = bool(last.destroyed_at), last.destroyed_by


# --- telling it -----------------------------------------------------------------------------------------------------


def _show(proof: Proof, drawn: account.Account, options: DemoOptions, wall_s: float) -> None:
    missing = shortcomings(proof, options.keep)
    if options.as_json:
        click.echo(json.dumps({"event": "account", **drawn.as_dict()}, sort_keys=True, default=str))
        told: Mapping[str, Any] = {**vars(proof), "shortcomings": missing, "wall_s": round(wall_s, 1)}
        click.echo(json.dumps({"event": "demo", **told}, sort_keys=True, default=str))
        return
    console = console_for(sys.stdout)
    account.show(drawn, console)
    verdict = "the demo proved all it set out to" if not missing else "the demo FAILED"
    console.print(Text(f"\n{verdict} ({wall_s:.0f} s)", style="bold green" if not missing else "bold red"))
    for gap in missing:
        console.print(f"  - {gap}")


def how_to_look(work: job.Job, folder: Path) -> str:
    """How to look at what ``--keep`` left, and how to end it."""
    host = work.inventory.boxes[0]
    seen = work.observer.observe(names=[BOX])[BOX]
    program = shutil.which("gpu-tenant") or f"{sys.executable} -m gpu_tenant"
    inventories = " ".join(f"-i {path}" for path in work.options.inventories)
    told = ["", f"Kept for a look: {BOX} is {seen.provider}.", f"  {program} status -l {BOX} {inventories}"]
    if seen.item is not None and seen.item.host:
        endpoint = Endpoint(seen.item.host, seen.item.port, seen.item.user, f"{BOX}.g{seen.generation}")
        known_hosts = StateStore(host.required("tenant_state_dir")).known_hosts_path(BOX)
        told.append(f"  {shlex.join(ssh_command(host, endpoint, known_hosts, ''))}")
    return "\n".join([*told, f"Ctrl-C ends the marketplace and the box; then delete {folder}."])


def _wait_for_end(how: str) -> None:
    """Until Ctrl-C, at most a day: a kept demo must not live for ever."""
    click.echo(how, err=True)
    interrupts = Interrupts()
    with interrupts.installed(), contextlib.suppress(TenantFailure):
        interrupts.wait(KEPT_S)
