# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Box to the Hugging Face Hub: the box sends the objects, one commit names them all, and then they are proven."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import (
    hub_client,
    hub_location,
    hub_store,
    object_parts,
    object_store,
    object_upload,
    progress,
    roster,
)
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.hub_client import Conflict, HubClient
from ansible_collections.tenant.gpu.plugins.module_utils.object_client import Listed
from ansible_collections.tenant.gpu.plugins.module_utils.roster import Mismatch, RosterFile
from ansible_collections.tenant.gpu.plugins.plugin_utils.hub_storing import HubSender, HubStanding
from ansible_collections.tenant.gpu.plugins.plugin_utils.object_route import Order, StoringRoute
from ansible_collections.tenant.gpu.plugins.plugin_utils.object_storing import Ask, Cut, Means


class HubStore(StoringRoute):
    def __init__(
        self, order: Order, ask: Ask, report: progress.Report | None, distrusted: frozenset[str] = frozenset()
    ) -> None:
        super().__init__(order, ask, report, distrusted)
        self.standing = HubStanding()
        self.wanted: list[RosterFile] = []
        self.reported = (0, 0)

    def _connect(self) -> HubClient:
        location = self.order.location
        if not isinstance(location, hub_location.HubLocation):
            raise TypeError(f"{location.uri} is not on the Hub")
        if hub_location.COMMIT.match(location.revision):
            what = f"{location.uri} names a commit, and nothing can be added to one"
            raise self._refusal("config", what, "Name a branch, or leave the revision out for main")
        return HubClient(location, self.patience)

    def run(self) -> dict[str, Any]:
        self.client.refresh()
        saved = self._saved_manifest()
        listed = self.client.list_objects()
        self.wanted = self._not_there(listed)
        paths = {file.path for file in self.manifest.files} | {roster.MANIFEST_NAME}
        extra = sorted(path for path in listed if path not in paths)
        self._refuse_extra(extra, self.order.location.uri)
        difference = self._difference(self.wanted, [], (saved, self.manifest.digest))
        ends = {"src": self.order.folder, "dest": self.order.location.uri, "direction": "store"}
        result = {**ends, **self._result(self.manifest, self.wanted, extra, difference), "unfinished_uploads": []}
        if self.client.is_public:
            what = f"{self.client.location.repository} is public: everybody can read what is stored there"
            result["warnings"] = [what]
        if self.order.check_mode:
            return result
        if difference.changed:
            failed = self._deliver()
            if failed:
                return {**result, **failed}
        return {**result, **self._proven(self._own_commit())}

    def _own_commit(self) -> str:
        """The commit that brought what is there, so that every run names the same one whatever others committed."""
        commit: str = self.client.last_commit_of(roster.MANIFEST_NAME)
        return self.client.head if self._not_there(self.client.list_objects(commit)) else commit

    def _not_there(self, listed: Mapping[str, Listed]) -> list[RosterFile]:
        """The files that the branch does not name; the commit is to bring them.

        Being distrusted makes no difference: the Hub takes no second time what it believes to have by its hash.
        """
        return [file for file in self.manifest.files if not hub_store.is_at(listed.get(file.path), file)]

    # --- sending --------------------------------------------------------------------------------------------------

    def _deliver(self) -> dict[str, Any]:
        """Send and commit. Empty, or the result of a failure."""
        sending = [file for file in self.wanted if file.bytes]
        self.progress = progress.Progress(self.report, len(sending), object_parts.total_bytes(sending))
        reason, failures = "", 0
        while True:
            before = self.standing.progress
            reason = self._attempt()
            if not reason:
                break
            failures = 1 if self.standing.progress > before else failures + 1
            if not self._again(failures):
                break
        self.progress.end()
        missing = self._missing()
        if missing or reason:
            fix = (
                "See that the box and this controller can reach the Hub, then run the same task again: it continues"
                if reason
                else "Make the manifest again on the box, then run this task again"
            )
            return self._failed(missing, len(self.manifest.files), reason, self.standing.sent_bytes > 0, fix)
        return {}

    def _attempt(self) -> str:
        """Send what is missing, and commit when nothing is; the reason when not all came that may still come."""
        self.attempts += 1
        order = self.order
        means = Means(order.folder, self.deadline, order.connections, order.stall_timeout_s)
        try:
            HubSender(self.client, self.ask, means, self.standing, self._after_wave).run(self._to_send())
            if not self._missing():
                self._commit()
        except Cut as cut:
            return cut.reason
        except TenantFailure as failure:
            if failure.kind != "unreachable":
                raise
            return failure.what
        return ""

    def _to_send(self) -> list[RosterFile]:
        held, wrong = self.standing.held, self.standing.mismatches
        return [file for file in self.wanted if file.bytes and file.sha256 not in held and file.path not in wrong]

    def _missing(self) -> list[Mismatch]:
        wrong = [Mismatch(path, what) for path, what in sorted(self.standing.mismatches.items())]
        return wrong + [Mismatch(file.path, "did not arrive") for file in self._to_send()]

    def _after_wave(self, standing: HubStanding) -> None:
        objects, sent = len(standing.held) - self.reported[0], standing.sent_bytes - self.reported[1]
        self.reported = (len(standing.held), standing.sent_bytes)
        self.progress.moved(sent)
        self.progress.landed(objects)

    # --- the commit -----------------------------------------------------------------------------------------------

    def _commit(self) -> None:
        """Name everything in the branch; anew, upon what it has become, where somebody else was quicker."""
        beside = self._send_manifest()
        conflicts = 0
        while True:
            try:
                return self._commit_upon(self.client.head, beside)
            except Conflict as error:
                conflicts += 1
                if not self._again(conflicts):
                    raise self._moved_on(error) from None
            self.client.refresh()
            self._saved_manifest()

    def _moved_on(self, error: Conflict) -> TenantFailure:
        location = self.order.location
        return TenantFailure(
            "provider",
            f"{location.uri}: others commit to this branch all the time ({error})",
            box=self.order.box,
            safe="Nothing was removed at the source, and what was sent is kept by the Hub",
            fix="Run the same task again: only the commit is left; or give these results a branch of their own",
        )

    def _send_manifest(self) -> RosterFile:
        """The manifest as an object of the Hub. Its bytes are here, so this machine plays the box."""
        data = object_store.manifest_text(self.manifest)
        # The manifest's own name is none that a roster may have.
        file = RosterFile("manifest", len(data), hashlib.sha256(data).hexdigest())
        with tempfile.TemporaryDirectory(prefix="tenant-manifest-") as folder:
            with open(os.path.join(folder, file.path), "wb") as stream:
                stream.write(data)
            means = Means(folder, self.deadline, 1, self.order.stall_timeout_s)
            standing = HubStanding()
            HubSender(self.client, _send_from_here, means, standing, lambda _standing: None).run([file])
            if standing.mismatches:
                raise Cut(f"the manifest changed on this machine ({standing.mismatches})")
        return RosterFile(roster.MANIFEST_NAME, file.bytes, file.sha256)

    def _commit_upon(self, parent: str, beside: RosterFile) -> None:
        """As few commits as the Hub's limit allows; the last of them brings the manifest."""
        location, client = self.client.location, self.client
        before = client.read_attributes(parent)
        after = hub_store.attributes_with(before, location.prefix)
        listed = client.list_objects(parent)
        operations = [_operation(location, file) for file in self._not_there(listed)]
        if after != before:
            operations.insert(0, hub_client.inline(".gitattributes", after.encode("utf-8")))
        if not hub_store.is_at(listed.get(beside.path), beside):
            operations.append(_operation(location, beside))
        summary = f"{self.manifest.project}/{self.manifest.run_id} of {self.manifest.box} g{self.manifest.generation}"
        most = hub_client.COMMIT_FILES
        for start in range(0, len(operations), most):
            parent = client.commit(operations[start : start + most], parent, summary)

    # --- the proof ------------------------------------------------------------------------------------------------

    def _proven(self, commit: str) -> dict[str, Any]:
        order, files, uri = self.order, self.manifest, self.order.location.uri
        good = {"attempts": self.attempts, "wire_bytes": self.standing.sent_bytes}
        if not order.verify:
            return dict(good, msg=f"{len(files.files)} files ({files.total_bytes} bytes) sent to {uri}")
        broken = hub_store.check(self.client, files.files, commit, order.verify, self.patience, order.connections)
        if broken:
            fix = (
                "The Hub takes an object that it believes to have from nobody: delete these in the repository's "
                "settings (list LFS files), or store the run in another repository"
            )
            return {**good, **self._failed(broken, len(files.files), "", self.attempts > 0, fix)}
        how = "by SHA-256" if order.verify == object_store.REREAD else "by the Hub's hashes"
        copy = hub_store.as_copy(self.client, files, commit, order.verify)
        msg = f"{len(files.files)} files ({files.total_bytes} bytes) verified {how} in {uri} at commit {commit}"
        return dict(good, verified=True, copies=[copy], msg=msg)


def _operation(location: hub_location.HubLocation, file: RosterFile) -> dict[str, Any]:
    path = location.path(file.path)
    # The Hub keeps no empty objects.
    return hub_client.pointer(path, file) if file.bytes else hub_client.inline(path, b"")


def _send_from_here(order: Mapping[str, Any]) -> Mapping[str, Any]:
    return object_upload.carry_out(object_upload.parse_order(order))
