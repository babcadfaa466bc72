# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said of a transfer in the end: that everything is proven, or what is not and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import carrier, settling
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.roster import RosterFile

_SHOWN = 10


def good_word(files: Sequence[RosterFile], dest: str) -> str:
    """Only ever said behind the check that earned it."""
    return f"{len(files)} files ({sum(file.bytes for file in files)} bytes) verified by SHA-256 in {dest}"


def failed(delivered: carrier.Delivery, files: int, box: str, proxy: str) -> dict[str, Any]:
    """The result of a transfer of ``files`` that did not bring everything. What did arrive stays, to be continued.

    :param proxy: what to use in place of the platform's proxy that it went through; empty where it went through none.
    """
    shown = "; ".join(str(mismatch) for mismatch in delivered.missing[:_SHOWN])
    what = f"{len(delivered.missing)} of {files} files did not arrive whole after {delivered.attempts} attempts"
    kind = delivered.kind if delivered.reason else "evidence_missing"
    reason = f"; the last one ended because {delivered.reason}" if delivered.reason else ""
    failure = TenantFailure(
        kind,
        f"{what}{reason}: {shown}",
        box=box,
        safe="Nothing was removed at the source, and what arrived is kept",
        fix=_fix(delivered) + (f". Through a proxy it may never end: {proxy}" if proxy else ""),
    )
    return {
        **failure.as_result(),
        "failed": True,
        "changed": bool(delivered.settled),
        "attempts": delivered.attempts,
        "wire_bytes": delivered.wire_bytes,
        "mismatches": settling.as_dicts(delivered.missing),
    }


def _fix(delivered: carrier.Delivery) -> str:
    if not delivered.reason:
        return "The source changes or its manifest is old: make the manifest again, then run this task again"
    if delivered.kind == "config":
        return "Put that right, then run the same task again: it continues"
    return "Run the same task again, it continues"
