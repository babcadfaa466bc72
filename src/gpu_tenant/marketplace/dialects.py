# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Where sources contradict each other about the provider, or say nothing: each way to read them, as a switch.

A client is only safe when it stands all of them, so the tests of ours run under every value.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field


def _switch(what: str, *values: str) -> str:
    """A field of which the first value is the usual one."""
    # Where a dataclass is made the type checker wants to see a plain call.
    found: str = field(default=values[0], metadata={"what": what, "values": values})  # pylint: disable=invalid-field-call
    return found


@dataclass(frozen=True)
class Dialect:
    """How the market words what no source settles; the first value of each is what most sources say."""

    stopped_as: str = _switch("actual_status of a stopped box", "exited", "stopped")
    scheduling: str = _switch(
        "a box that waits for its card: only cur_state stopped, next_state as well, or a status of its own",
        "stopped", "both_stopped", "named",
    )  # fmt: skip
    ports: str = _switch("ports of a box that has none mapped", "empty", "null")
    bid_base: str = _switch("dph_base of an interruptible box: its bid, or the machine's price", "bid", "machine")
    bad_key: str = _switch("the status for an unknown key", "404", "401")
    missing: str = _switch("asking for an instance that is not there", "null", "404")
    old_list: str = _switch("GET /api/v0/instances/: 410, or still the list", "gone", "served")
    offer_after: str = _switch("the offer of a machine whose box was destroyed: its id of before, or a new one",
                               "same", "new")  # fmt: skip
    search_limit: str = _switch("offers that a search without a limit shows", "64", "10")
    unknown_filter: str = _switch("a search by a column that does not exist", "refused", "ignored")
    copy_reports: str = _switch("whose status message tells how a copy goes", "both", "destination", "source")

    def __str__(self) -> str:
        """What differs from the usual, as it is written on a command line."""
        return ",".join(f"{name}={value}" for name, value in vars(self).items() if value != getattr(USUAL, name))


USUAL = Dialect()


def switches() -> dict[str, tuple[str, ...]]:
    """Every switch with its values, the usual one first."""
    return {one.name: one.metadata["values"] for one in dataclasses.fields(Dialect)}


def meanings() -> dict[str, str]:
    """What each switch is about."""
    return {one.name: one.metadata["what"] for one in dataclasses.fields(Dialect)}


def dialect_in(given: Iterable[str]) -> Dialect:
    """``NAME=VALUE`` texts as a dialect. ValueError names the nearest that there is."""
    found: dict[str, str] = {}
    for text in given:
        name, _equals, value = text.partition("=")
        values = switches().get(name)
        if values is None:
            raise ValueError(f"there is no dialect {name!r}; there are {', '.join(switches())}")
        if value not in values:
            raise ValueError(f"dialect {name} is one of {', '.join(values)}, not {value!r}")
        found[name] = value
    return Dialect(**found)
