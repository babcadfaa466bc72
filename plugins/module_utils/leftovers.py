# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What bills on an account beside boxes, whatever becomes of them: addresses, snapshots, drives, file systems."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Leftover:
    """:param kind: in the provider's words, such as ``static IP``.
    :param state: what the provider says of it.
    :param per_hour: dollars, None where nobody says.
    :param box: the provider's id of the box that it is of, or was; empty for none.
    :param project: the one whose stamp it carries; empty where it has none.
    :param note: what else there is to say of it.
    :param is_lost: it carries our stamp, and nothing that we rented counts on it any more.
    """

    kind: str
    id: str
    name: str
    state: str
    per_hour: float | None
    box: str = ""
    project: str = ""
    note: str = ""
    is_lost: bool = False

    def as_result(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "id": self.id,
            "name": self.name,
            "state": self.state,
            "price_per_hour": None if self.per_hour is None else round(self.per_hour, 6),
            "machine": self.box,
        }
