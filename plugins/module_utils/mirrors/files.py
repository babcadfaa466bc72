# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The files in which tools look for their mirrors: what they are to hold, and how they are given back. Pure.

A file that was there before keeps all that is not ours. ``undone`` takes ours out of a file that somebody changed
since; one that nobody changed is put back byte by byte by the caller.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Mapping

from . import ini_key
from .choice import Choice

_PIP_SECTION, _PIP_KEY = "global", "index-url"
_DOCKER_KEY = "registry-mirrors"
# What mirrors of Anaconda carry. Never pytorch-nightly: none has it, and a name that is not listed goes the direct way.
CONDA_CHANNELS = ("conda-forge", "pytorch", "nvidia", "bioconda")
CONDA_DEFAULTS = ("main", "r", "msys2")


@dataclass(frozen=True)
class Pip:
    """pip's own configuration of the user."""

    choice: Choice

    def done(self, before: str) -> str:
        return ini_key.put(before, _PIP_SECTION, _PIP_KEY, self.choice.url)

    @staticmethod
    def undone(now: str, before: str) -> str:
        return ini_key.put(now, _PIP_SECTION, _PIP_KEY, ini_key.get(before, _PIP_SECTION, _PIP_KEY))


@dataclass(frozen=True)
class Conda:
    """A file of ours in conda's folder of such files; the user's own ``.condarc`` is merged with it and wins."""

    choice: Choice

    def done(self, before: str) -> str:
        base = self.choice.url.rstrip("/")
        lines = ["# Written by tenant.gpu.mirror_select, which removes it with state=absent.", "default_channels:"]
        lines += [f"  - {base}/pkgs/{name}" for name in CONDA_DEFAULTS[:2]]
        lines += ["custom_channels:", *(f"  {name}: {base}/cloud" for name in CONDA_CHANNELS)]
        return "\n".join(lines) + "\n"

    @staticmethod
    def undone(now: str, before: str) -> str:
        return before


@dataclass(frozen=True)
class Apt:
    """A list of the distribution's packages, in which the archive's address is replaced."""

    choice: Choice
    archive: str

    def done(self, before: str) -> str:
        return _replaced(before, self.archive, self.choice.url)

    def undone(self, now: str, before: str) -> str:
        return _replaced(now, self.choice.url, self.archive)


@dataclass(frozen=True)
class Docker:
    """The daemon's configuration: the mirror comes before those that are there."""

    choice: Choice

    def done(self, before: str) -> str:
        known = _object(before)
        others = [each for each in known.get(_DOCKER_KEY) or [] if each != self.choice.url]
        return json.dumps({**known, _DOCKER_KEY: [self.choice.url, *others]}, indent=2) + "\n"

    def undone(self, now: str, before: str) -> str:
        known = _object(now)
        others = [each for each in known.pop(_DOCKER_KEY, None) or [] if each != self.choice.url]
        had = self.choice.url in (_object(before).get(_DOCKER_KEY) or [])
        kept = [self.choice.url, *others] if had else others
        known.update({_DOCKER_KEY: kept} if kept else {})
        return json.dumps(known, indent=2) + "\n" if known else ""


@dataclass(frozen=True)
class Whole:
    """A file that is ours from its first line to its last."""

    text: str

    def done(self, before: str) -> str:
        return self.text

    @staticmethod
    def undone(now: str, before: str) -> str:
        return before


def _replaced(text: str, old: str, new: str) -> str:
    """Every address below ``old`` moved below ``new``, in lines that are no comments."""
    old, new = old.rstrip("/"), new.rstrip("/")
    lines = text.splitlines(keepends=True)
    return "".join(line if line.lstrip().startswith("#") else _moved(line, old, new) for line in lines)


def _moved(line: str, old: str, new: str) -> str:
    words = line.split(old)
    moved = words[0]
    for word in words[1:]:
        # The address ends here, or goes on below it: archive.example/ubuntu is not archive.example/ubuntu-ports.
        moved += (new if word[:1] in ("/", " ", "\t", "\n", "\r", "") else old) + word
    return moved


def _object(text: str) -> dict[str, Any]:
    """The JSON object that ``text`` is. ValueError when it is another thing: it is not ours to repair."""
    found = json.loads(text) if text.strip() else {}
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    return found


def environment_text(variables: Mapping[str, str]) -> str:
    """The one file that the supervisor, its fetcher and its trainers load."""
    head = "# Written by tenant.gpu.mirror_select; the supervisor loads it for every process that calls out.\n"
    return head + "".join(f"{name}={text}\n" for name, text in sorted(variables.items()))
