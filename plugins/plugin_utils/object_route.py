# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every route through an object store shares: its order, the shape of its result, and patience."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import (
    object_parts,
    object_store,
    progress,
    roster,
    settling,
    stores,
)
from ansible_collections.tenant.gpu.plugins.module_utils.difference import DifferenceTracker
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.object_requests import Patience
from ansible_collections.tenant.gpu.plugins.module_utils.roster import Manifest, Mismatch, RosterFile
from ansible_collections.tenant.gpu.plugins.module_utils.stores import AnyLocation
from ansible_collections.tenant.gpu.plugins.plugin_utils.object_storing import Ask

TRANSPORT = "object_store"
_SHOWN = 10
_LISTED = 1000
_DIFFED = 200
_LONGEST_WAIT_S = 60.0


@dataclass(frozen=True)
class Order:
    """What is to be carried and how; sizes in bytes, times in seconds.

    ``folder`` is on the box for :func:`store` and on the controller for :func:`fetch`. ``manifest`` may be None for
    :func:`fetch`, which then takes the one beside the objects. An empty ``verify`` leaves the proof to the caller.
    """

    location: AnyLocation
    folder: str
    manifest: Manifest | None
    box: str = ""
    verify: str = object_store.REREAD
    folder_root: str = ""
    extra: str = "report"
    reserve_bytes: int = 0
    connections: int = object_store.CONNECTIONS
    deadline_s: float = 3600
    stall_timeout_s: float = 60
    retries: int = 5
    resends: int = 2
    first_wait_s: float = 2.0
    part_bytes: int = object_parts.PART_BYTES
    check_mode: bool = False


def manifest_of(order: Order) -> Manifest:
    if order.manifest is None:
        raise ValueError("a transfer that needs a manifest has none")
    return order.manifest


class Route:
    def __init__(self, order: Order, report: progress.Report | None) -> None:
        self.order, self.report = order, report
        self.deadline = time.monotonic() + order.deadline_s
        self.client = self._connect()
        self.attempts = 0

    def _connect(self) -> Any:
        return stores.connect(self.order.location, self.patience)

    @property
    def patience(self) -> Patience:
        return Patience(self.deadline, self.order.stall_timeout_s)

    def _result(
        self,
        manifest: Manifest,
        wanted: Sequence[RosterFile],
        extra: Sequence[str],
        difference: DifferenceTracker,
    ) -> dict[str, Any]:
        return {
            **difference.as_result(),
            "files": len(manifest.files),
            "bytes": manifest.total_bytes,
            "transferred_files": len(wanted),
            "transferred_bytes": object_parts.total_bytes(wanted),
            "transferred": [file.path for file in wanted[:_LISTED]],
            "roster_sha256": roster.files_sha256(manifest.files),
            "manifest_digest": manifest.digest,
            "extra": list(extra),
            "quarantine": "",
            "mismatches": [],
            "transport": TRANSPORT if wanted else "none",
            "attempts": 0,
            "wire_bytes": 0,
            "verified": False,
            "copies": [],
        }

    def _difference(
        self, wanted: Sequence[RosterFile], aside: Sequence[str], manifests: tuple[str, str]
    ) -> DifferenceTracker:
        difference = DifferenceTracker()
        for file in wanted[:_DIFFED]:
            difference.compare(file.path, "absent or other bytes", f"sha256:{file.sha256}")
        if len(wanted) > _DIFFED:
            difference.compare("and more", "", f"{len(wanted) - _DIFFED} files")
        for path in aside:
            difference.compare(path, "extra", "moved to quarantine")
        difference.compare(roster.MANIFEST_NAME, *manifests)
        return difference

    def _refusal(self, kind: str, what: str, fix: str) -> TenantFailure:
        return TenantFailure(kind, what, box=self.order.box, safe="Nothing was transferred or removed", fix=fix)

    def _refuse_extra(self, extra: Sequence[str], where: str) -> None:
        if extra and self.order.extra == "refuse":
            shown = ", ".join(extra[:_SHOWN])
            what = f"{where} holds {len(extra)} files that are not in the roster: {shown}"
            raise self._refusal("evidence_missing", what, "Move them away, or choose another place")

    def _again(self, failures: int) -> bool:
        """Wait before another attempt; False when patience or time is at its end."""
        wait = min(_LONGEST_WAIT_S, self.order.first_wait_s * 2 ** max(0, failures - 1))
        if failures > self.order.retries or time.monotonic() + wait > self.deadline:
            return False
        time.sleep(wait)
        return True

    def _failed(self, missing: Sequence[Mismatch], total: int, reason: str, changed: bool, fix: str) -> dict[str, Any]:
        shown = "; ".join(str(mismatch) for mismatch in missing[:_SHOWN])
        why = f"; the last one ended because {reason}" if reason else ""
        failure = TenantFailure(
            "unreachable" if reason else "evidence_missing",
            f"{len(missing)} of {total} files did not arrive whole after {self.attempts} attempts{why}: {shown}",
            box=self.order.box,
            safe="Nothing was removed at the source, and what arrived is kept",
            fix=fix,
        )
        return {
            **failure.as_result(),
            "failed": True,
            "changed": changed,
            "attempts": self.attempts,
            "mismatches": settling.as_dicts(missing),
        }


class StoringRoute(Route):
    """From the box into a store. Files that are ``distrusted`` count as not there, whatever the store says of them."""

    def __init__(
        self, order: Order, ask: Ask, report: progress.Report | None, distrusted: frozenset[str] = frozenset()
    ) -> None:
        super().__init__(order, report)
        self.manifest, self.ask = manifest_of(order), ask
        self.distrusted = distrusted
        self.manifest_version = ""

    def _saved_manifest(self) -> str:
        """The digest of the manifest that is there; refuses to write over another run's results."""
        try:
            saved, self.manifest_version = object_store.read_manifest(self.client)
        except roster.BadManifest as error:
            if "there is no" in str(error):
                return ""
            raise self._refusal("config", str(error), "Choose a prefix of its own for this run") from error
        ours = self.manifest
        if (saved.project, saved.run_id, saved.box, saved.generation) != (
            ours.project,
            ours.run_id,
            ours.box,
            ours.generation,
        ):
            what = f"{self.order.location.uri} holds {saved.project}/{saved.run_id} of {saved.box} g{saved.generation}"
            raise self._refusal("config", what, "Choose a prefix of its own for each run, box and generation")
        same = saved.digest if saved.record == ours.record else "another manifest of these files"
        return same if saved.digest == ours.digest else saved.digest
