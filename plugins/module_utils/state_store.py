# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Where the controller keeps what it knows (``tenant_state_dir``): one path per kind of record.

journal.jsonl                                    intents and effects, appended by the process that acts
boxes/<project>/<box>/g<generation>.json         box record: what we rented, admitted, deployed
seals/<project>/<box>/g<generation>.json         the last seal read from the box
contacts/<project>/<box>/g<generation>.json      how far its runs were last known to be
receipts/<project>/<run>/<box>.g<generation>.json
results-at-home/<project>/<run>/<box>.g<generation>.json  made again from the results, where the receipt is lost
copy-readings/<project>/<sha256 of the URI>.json a durable mount, as another box read it
approvals/<id>.json
drills/<project>/<run>/<box>.g<generation>.json  verdict of the last resume drill of a run on a box
leases/<project>/<box>.json                      who works on a box now, and the epoch of the last grant
smoke/<spec_sha256>.json                         the CPU smoke of a run spec passed here
known_hosts/<box>                                pinned host keys, one file per box
cache/                                           provider lists, shared under a lock; may be deleted any time
"""

from __future__ import annotations

import glob
import hashlib
import os
from dataclasses import dataclass
from typing import Any

from .box import records
from .box.names import check_name


def _generation(record: dict[str, Any]) -> int:
    generation = record.get("generation")
    return generation if records.is_count(generation) else 0


@dataclass(frozen=True)
class BoxIdentity:
    """One rented machine: ``provider_id`` is the provider's own id, as text."""

    project: str
    box: str
    generation: int
    provider_id: str

    def as_dict(self) -> dict[str, Any]:
        return {
            "project": self.project,
            "box": self.box,
            "generation": self.generation,
            "provider_id": self.provider_id,
        }


class StateStore:
    """Paths and plain reads of ``tenant_state_dir``. Folders are made 0700."""

    def __init__(self, state_dir: str) -> None:
        if not state_dir:
            raise ValueError("tenant_state_dir is empty: set it to a folder that outlives this job")
        self.root = os.path.abspath(os.path.expanduser(state_dir))

    def path(self, *parts: str) -> str:
        return os.path.join(self.root, *parts)

    @property
    def journal_path(self) -> str:
        return self.path("journal.jsonl")

    def box_record_path(self, project: str, box: str, generation: int) -> str:
        return self.path("boxes", check_name("project", project), check_name("box", box), f"g{generation}.json")

    def seal_path(self, project: str, box: str, generation: int) -> str:
        return self.path("seals", check_name("project", project), check_name("box", box), f"g{generation}.json")

    def contact_path(self, project: str, box: str, generation: int) -> str:
        return self.path("contacts", check_name("project", project), check_name("box", box), f"g{generation}.json")

    def lease_path(self, project: str, box: str) -> str:
        return self.path("leases", check_name("project", project), check_name("box", box) + ".json")

    def copy_reading_path(self, project: str, uri: str) -> str:
        name = hashlib.sha256(uri.encode("utf-8", "surrogatepass")).hexdigest()[:32] + ".json"
        return self.path("copy-readings", check_name("project", project), name)

    def receipt_path(self, project: str, run_id: str, box: str, generation: int) -> str:
        name = f"{check_name('box', box)}.g{generation}.json"
        return self.path("receipts", check_name("project", project), check_name("run", run_id), name)

    def at_home_path(self, project: str, run_id: str, box: str, generation: int) -> str:
        """Apart from the receipts, so that the gate never reads it."""
        name = f"{check_name('box', box)}.g{generation}.json"
        return self.path("results-at-home", check_name("project", project), check_name("run", run_id), name)

    def drill_path(self, project: str, run_id: str, box: str, generation: int) -> str:
        name = f"{check_name('box', box)}.g{generation}.json"
        return self.path("drills", check_name("project", project), check_name("run", run_id), name)

    def approval_path(self, approval_id: str) -> str:
        return self.path("approvals", check_name("approval", approval_id) + ".json")

    def smoke_path(self, spec_sha256: str) -> str:
        return self.path("smoke", check_name("spec_sha256", spec_sha256[:32]) + ".json")

    def known_hosts_path(self, box: str) -> str:
        return self.path("known_hosts", check_name("box", box))

    def read_box(self, project: str, box: str, generation: int) -> dict[str, Any] | None:
        return records.read_record_or_none(self.box_record_path(project, box, generation), "box")

    def update_box(self, project: str, box: str, generation: int, **changes: Any) -> dict[str, Any]:
        """Merge ``changes`` into the box record (made if absent) and write it whole."""
        known = self.read_box(project, box, generation) or {"project": project, "box": box, "generation": generation}
        return records.write_record(self.box_record_path(project, box, generation), "box", {**known, **changes})

    def last_generation(self, project: str, box: str) -> int:
        """The highest generation that this store has a box record of; 0 when it has none."""
        found = self._listed("boxes", check_name("project", project), check_name("box", box), "g*.json")
        generations = [os.path.basename(name)[1:-5] for name in found]
        return max([int(text) for text in generations if text.isdigit()], default=0)

    def rented_box(self, project: str, box: str) -> dict[str, Any]:
        """The record of the newest machine of a box, unless it is known to be gone; empty when there is none."""
        generation = self.last_generation(project, box)
        record = (self.read_box(project, box, generation) if generation else None) or {}
        return {} if record.get("destroyed_at") or not record.get("provider_id") else record

    def receipts(self, project: str, run_id: str) -> list[str]:
        """Paths of every receipt of a run, over all boxes and generations."""
        return self._listed("receipts", check_name("project", project), check_name("run", run_id), "*.json")

    def records_at_home(self, project: str, run_id: str) -> list[str]:
        return self._listed("results-at-home", check_name("project", project), check_name("run", run_id), "*.json")

    def receipts_of_box(self, project: str, box: str, generation: int) -> list[str]:
        """Paths of the receipts of whatever run for this box generation: proof that it was used."""
        name = f"{check_name('box', box)}.g{generation}.json"
        return self._listed("receipts", check_name("project", project), "*", name)

    def finished_receipt(self, project: str, run_id: str, spec_sha256: str) -> dict[str, Any] | None:
        """The complete receipt of this very spec and code, from whichever box; None while the run is not home. Of one
        box the machine that was rented last counts: what it replaced may finish too, and comes home later."""
        found = [records.read_record(path, "receipt") for path in self.receipts(project, run_id)]
        complete = [one for one in found if one.get("complete") is True and one.get("spec_sha256") == spec_sha256]
        last: dict[str, dict[str, Any]] = {}
        for one in sorted(complete, key=_generation):
            last[str(one.get("box"))] = one
        return max(last.values(), key=lambda one: str(one.get("verified_at")), default=None)

    def approvals(self) -> list[str]:
        return self._listed("approvals", "*.json")

    def _listed(self, *parts: str) -> list[str]:
        """The paths that are there, sorted. ``parts`` are checked names or patterns, the store's folder neither."""
        return sorted(glob.glob(os.path.join(glob.escape(self.root), *parts)))
