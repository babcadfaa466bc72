# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a copy of the provider's proves, which is never the bytes, and what would prove those."""

from __future__ import annotations

import re
from typing import Any

# How the provider's last word is to be read, by the outcome of the wait.
_UNPROVEN = {
    "planned": "nothing was copied in check mode",
    "finished": "the provider says that it finished; it gives no checksum and no list of what it sent",
    "unsaid": "the provider spoke of the copy and then no more; it never said that it finished",
    "unchanged": "the provider's word that a copy finished is from before this one and never changed",
}
_BOTH_BOXES = (
    "tenant.gpu.manifest with path and globs on {source}, and again on {dest} with compare and the first one's "
    "manifest; its comparison tells"
)
_AT_REST = (
    "harvest with harvest_via: {dest}, which reads the copy again by the cells' own records of their artifacts "
    "(tenant.gpu.resting_copy, tenant.gpu.manifest)"
)
_TO_CLOUD = (
    "copy it back from the connection into an empty folder of a box, then tenant.gpu.manifest there with compare and a "
    "manifest that was taken on {source}"
)
_FROM_CLOUD = (
    "tenant.gpu.manifest on {dest} with compare and the manifest that was taken when the data went to the cloud"
)


def proof(outcome: str, said: str, source: dict[str, Any], dest: dict[str, Any], at_rest: bool) -> dict[str, Any]:
    """``verified`` is always False: what the API can tell is whether the copy ended, not whether the bytes are there.

    :param source: an end as :meth:`.copy.End.as_result` gives it, and so is ``dest``; looked at after the copy.
    """
    return {
        "verified": False,
        "provider_said_finished": outcome == "finished",
        "claimed_files": _claimed("files", said) if outcome == "finished" else None,
        "claimed_bytes": _claimed("bytes", said) if outcome == "finished" else None,
        "unproven": _UNPROVEN[outcome],
        "prove_with": _proof_by(source, dest, at_rest).format(source=source["name"], dest=dest["name"]),
    }


def _proof_by(source: dict[str, Any], dest: dict[str, Any], at_rest: bool) -> str:
    if not dest["provider_id"]:
        return _TO_CLOUD
    if not source["provider_id"]:
        return _FROM_CLOUD
    return _AT_REST if at_rest else _BOTH_BOXES


def _claimed(unit: str, said: str) -> int | None:
    """How many the provider says it sent; None where it does not count, or speaks of several counts."""
    counts = re.findall(rf"\b(\d{{1,18}}) {unit}\b", said)
    return int(counts[0]) if len(counts) == 1 else None
