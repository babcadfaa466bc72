# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The fence: whoever took the lease last has the highest epoch; the box refuses everybody before."""

from __future__ import annotations

from . import records, reserve
from .layout import Layout
from .refusal import HELD, Refused


def known_epoch(layout: Layout) -> int:
    """The highest epoch seen, 0 before any. RecordError when the fence is damaged: then nobody may pass."""
    record = records.read_record_or_none(layout.fence, "fence") or {}
    epoch = record.get("epoch", 0)
    if not isinstance(epoch, int):
        raise records.RecordError(f"{layout.fence} holds no epoch")
    return epoch


def admitted_epoch(known: int, epoch: int | None) -> int:
    """The epoch once a caller with ``epoch`` (None: no lease) has passed; Refused(HELD) if it may not."""
    if epoch is None:
        return known
    if epoch < known:
        raise Refused(
            HELD,
            f"epoch {epoch} is fenced off: a newer lease holds this box with epoch {known}",
            "take the lease again, then repeat the command",
        )
    return epoch


def pass_fence(layout: Layout, epoch: int | None, check: bool = False) -> int:
    """Admit or refuse the caller, and raise the fence to its epoch. The box lock must be held."""
    known = known_epoch(layout)
    admitted = admitted_epoch(known, epoch)
    if admitted > known and not check:
        record = {"epoch": admitted, "raised_at": records.utc_now()}
        reserve.spend(layout.reserve, lambda: records.write_record(layout.fence, "fence", record))
    return admitted
