# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Failures that speak: what happened, to which box, what is safe, what to do next.

Modules end with ``module.fail_json(**failure.as_result())``; the runner turns ``kind`` into its exit code.
"""

from __future__ import annotations

from typing import Any

from .readable import readable

EXIT_CODES = {
    "config": 10,
    "no_offer": 11,
    "provider": 12,
    "unreachable": 13,
    "probe_refused": 14,
    "training_failed": 20,
    "evidence_missing": 21,
    "gate_refused": 22,
    "budget": 23,
    "lease_held": 24,
    "interrupted": 30,
}


class TenantFailure(Exception):
    """An expected failure.

    :param kind: a key of :data:`EXIT_CODES`.
    :param what: what happened, one sentence.
    :param box: the box it happened to, empty when none is concerned.
    :param safe: what is certainly unharmed ("nothing was rented").
    :param fix: what the reader should do next.
    """

    def __init__(self, kind: str, what: str, box: str = "", safe: str = "", fix: str = "") -> None:
        if kind not in EXIT_CODES:
            raise ValueError(f"unknown kind of failure {kind!r}")
        super().__init__(what)
        self.kind = kind
        self.what = what
        self.box = box
        self.safe = safe
        self.fix = fix

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.kind]

    def __str__(self) -> str:
        # Some of it are a box's or a provider's own words.
        box, what, safe, fix = map(readable, (self.box, self.what, self.safe, self.fix))
        subject = f"{box}: {what}" if box else what
        return " ".join(part for part in (_sentence(subject), _sentence(safe), _sentence(fix)) if part)

    def as_result(self) -> dict[str, Any]:
        """Keyword arguments for ``fail_json``."""
        parts = {"what": self.what, "box": self.box, "safe": self.safe, "fix": self.fix}
        failure = {"kind": self.kind, **{name: readable(text) for name, text in parts.items()}}
        return {"msg": str(self), "failure": failure}


def _sentence(text: str) -> str:
    text = text.strip()
    return text if not text or text[-1] in ".!?" else text + "."
