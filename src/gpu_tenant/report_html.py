# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A report as one HTML file that needs nothing else: no network, no script, drawings inside.

What boxes and providers wrote is a stranger's text. Jinja2 escapes all of it, a policy in the page forbids whatever
might still get through, and what could turn a line around is written as an escape.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jinja2
import markupsafe
from ansible_collections.tenant.gpu.plugins.module_utils.box.wording import size

from gpu_tenant import __version__, logs, report_drawing

_TEMPLATE = "report.html.j2"
_LONGEST = 300


def page(told: Mapping[str, Any]) -> str:
    """The whole file for what :func:`gpu_tenant.report.draw_up` told."""
    return _template().render(
        told=told,
        version=__version__,
        timeline=report_drawing.timeline(told["machines"], told["events"]),
        losses=report_drawing.losses(told["curves"]),
    )


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gpu_tenant", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters.update(dollars=dollars, size=_size)
    return environment.get_template(_TEMPLATE)


def _shown(value: Any) -> Any:
    """Text without what steers a reader's eye or a parser; numbers and markup of ours as they are."""
    if value is None:
        return "unknown"
    if not isinstance(value, str) or isinstance(value, markupsafe.Markup):
        return value
    clean = logs.plain(value)
    return clean if len(clean) <= _LONGEST else clean[: _LONGEST - 1] + "…"


def dollars(amount: float | None) -> str:
    return "unknown" if amount is None else f"${amount:.4f}"


def _size(count: Any) -> str:
    return size(count) if isinstance(count, (int, float)) else "unknown"
