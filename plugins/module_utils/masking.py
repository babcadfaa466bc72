# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Secrets in text that a stranger's machine wrote: masked before anybody sees it.

What is known to be secret is masked wherever it stands; beyond that, what looks like one. A secret that looks like
nothing is shown, so this is no licence to print secrets.
"""

from __future__ import annotations

import re
from typing import Iterable

from .readable import readable

MASK = "********"
SHORTEST = 4

_NAMED = re.compile(
    r"([A-Za-z0-9_.-]*(?:token|secret|passwd|password|passphrase|api[_-]?key|access[_-]?key|private[_-]?key|credentials?)"
    r"(?![A-Za-z0-9])[\"']?\s*[=:]\s*)(\"[^\"\n]+\"|'[^'\n]+'|(?!\d+(?:\.\d+)?(?:[\s,;]|\Z))[^\s,;]{4,})",
    re.I,
)
_BEARER = re.compile(r"\b((?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}", re.I)
_IN_URL = re.compile(r"([a-z][a-z0-9+.-]*://[^\s/:@]*:)[^\s/@]+@", re.I)
_TYPICAL = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|"
    r"(?:AKIA|ASIA)[0-9A-Z]{16}|xox[abprs]-[A-Za-z0-9-]{10,}|glpat-[A-Za-z0-9_-]{20,})"
)
_KEY_BLOCK = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S)
# In a log that is a stranger's alone, escape sequences go with all that is in them.
_ESCAPES = re.compile("\x1b\\[[0-?]*[ -/]*[@-~]|\x1b\\][^\x07\x1b]*(?:\x07|\x1b\\\\)?|\x1b.")


def mask(text: str, secrets: Iterable[str] = ()) -> str:
    """``text`` without the given secrets and without what looks like one."""
    for secret in sorted({one for one in secrets if len(one) >= SHORTEST}, key=len, reverse=True):
        text = text.replace(secret, MASK)
    text = _KEY_BLOCK.sub(MASK, text)
    text = _IN_URL.sub(rf"\g<1>{MASK}@", text)
    text = _BEARER.sub(rf"\g<1>{MASK}", text)
    text = _NAMED.sub(rf"\g<1>{MASK}", text)
    return _TYPICAL.sub(MASK, text)


def printable(text: str) -> str:
    """``text`` with line ends of one kind and nothing that would steer a terminal."""
    return readable(_ESCAPES.sub("", text))
