# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The verbs ``fetch`` and ``fetch-status``: order inputs, adopt a fetch that is under way, tell how far it is."""

from __future__ import annotations

from typing import Any

from . import control, fetch_order, inputs
from .layout import Layout


def fetch(layout: Layout, caller: control.Caller, value: object) -> dict[str, Any]:
    """Have the inputs of an order on the box. Proven ones change nothing; a fetch that lives is adopted.

    :raises Refused: USAGE, SEALED, or why the fetcher did not start.
    """
    order = fetch_order.check(value)
    set_digest = inputs.digest(order["inputs"])
    with control.box(layout, caller):
        before = fetch_order.status(layout, order["inputs"])
        at_work = before["state"] in (fetch_order.PROVEN, fetch_order.FETCHING)
        if not at_work:
            control.refuse_sealed(layout, "fetch")
        if not at_work and not caller.check:
            fetch_order.write(layout, set_digest, order)
            fetch_order.start(layout, set_digest, caller.program)
    after = before if at_work or caller.check else fetch_order.status(layout, order["inputs"])
    wanted = {set_digest: fetch_order.PROVEN}
    # Adopting a fetch does not change the box, but what it comes to does.
    known = {set_digest: before["state"]}
    return control.outcome(known, wanted, inputs=after)


def status(layout: Layout, value: object) -> dict[str, Any]:
    """How far the fetch of an order's inputs is. Takes no lock, writes nothing."""
    return fetch_order.status(layout, fetch_order.check(value)["inputs"])
