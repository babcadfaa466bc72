# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""One request, and what answers which requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Call:
    """One request. ``base_url`` is how the client reached the server, ``body`` its JSON object or ``{}``."""

    method: str
    path: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)
    base_url: str = ""
    token: str | None = None


Handler = Callable[[Call], Any]


@dataclass(frozen=True)
class Route:
    """``path`` without a trailing slash; both spellings are served, neither redirects.

    :param call: what faults call it, see :data:`.faults.CALLS`; none strikes a route without.
    :param inner: of a path by which calls of several kinds come: the route and the call that this one is.
    :param sold_out: the :class:`.replies.Reply` of a create that finds no machine; None where no fault says so.
    """

    method: str
    path: str
    handler: Handler
    public: bool = False
    interval_s: float = 0.0
    call: str = ""
    sold_out: Any = None
    inner: Callable[[Call], tuple[Route, Call]] | None = None
