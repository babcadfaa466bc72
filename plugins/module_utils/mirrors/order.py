# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What ``mirror_select`` is asked for, checked: a class that nobody knows or an address that is none is named."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Mapping
from urllib.parse import urlsplit

from ..box import records
from ..failures import TenantFailure
from .choice import DIRECT
from .kinds import APT, CLASSES, MEASURED, MODELSCOPE
from .probe import WAYS, Limits, Source

_NEEDED = {
    "file": ("path", "sha256"),
    "index": ("project", "file", "sha256"),
    "git": ("path", "ref", "commit"),
    "registry": ("image", "sha256"),
}
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True)
class Order:
    """Classes with their direct source and probe, and candidates, each ``{class, name, url}``."""

    classes: Mapping[str, Mapping[str, Any]]
    candidates: list[dict[str, Any]]
    hook: str
    proxy_hosts: list[str]
    no_proxy: list[str]
    limits: Limits
    margin: float
    valid_s: float

    @property
    def digest(self) -> str:
        """What a measurement is valid for; how long it lasts is no part of it."""
        listed = [self.proxy_hosts] if self.proxy_hosts else []
        return records.digest([self.classes, self.candidates, self.hook, self.no_proxy, *listed])

    def mirrors(self, kind: str) -> list[dict[str, Any]]:
        return [each for each in self.candidates if each["class"] == kind]

    def sources(self, kind: str) -> list[Source]:
        """The direct source, then the mirrors, of a class that is measured by a file of known hash."""
        told = self.classes[kind]
        direct = Source(kind, DIRECT, str(told["direct"]), told["probe"])
        return [direct, *(Source(kind, each["name"], each["url"], told["probe"]) for each in self.mirrors(kind))]


def order_of(params: Mapping[str, Any]) -> Order:
    """:raises TenantFailure: config, naming the entry."""
    classes = {str(kind): _class(str(kind), told) for kind, told in (params["classes"] or {}).items()}
    candidates = [_candidate(entry, classes) for entry in params["candidates"] or []]
    names = [(entry["class"], entry["name"], entry.get("archive", "")) for entry in candidates]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise _bad(f"two mirrors for {twice[0][0]} are called {twice[0][1]!r}", "give each its own name")
    return Order(
        classes,
        candidates,
        str(params["proxy_hook"] or ""),
        [str(each) for each in params.get("proxy_hosts") or []],
        [str(each) for each in params["no_proxy"] or []],
        Limits(_positive(params, "stall_s"), _positive(params, "within_s")),
        max(1.0, _positive(params, "margin")),
        float(params["valid_s"]),
    )


def _positive(params: Mapping[str, Any], key: str) -> float:
    if float(params[key]) <= 0:
        raise _bad(f"{key} is {params[key]}", f"give {key} a number above 0")
    return float(params[key])


def _class(kind: str, told: Any) -> dict[str, Any]:
    if kind not in MEASURED:
        raise _bad(f"{kind!r} is no class that is measured by a file", f"use one of {', '.join(MEASURED)}")
    found = dict(told) if isinstance(told, dict) else {}
    probe = found.get("probe")
    if not _is_url(found.get("direct")) or not isinstance(probe, dict):
        raise _bad(f"the class {kind} needs a direct address and a probe", "see defaults/main.yml of the role mirrors")
    way = probe.get("way", "file")
    if way not in WAYS or way not in _NEEDED:
        raise _bad(f"the probe of {kind} goes a way {way!r}", f"use one of {', '.join(_NEEDED)}")
    missing = [key for key in _NEEDED[way] if not probe.get(key)]
    if missing:
        raise _bad(f"the probe of {kind} lacks {', '.join(missing)}", "without them nothing is proven")
    if "sha256" in probe and not _SHA256.match(str(probe["sha256"])):
        raise _bad(f"the sha256 of the probe of {kind} is none", "it has 64 hexadecimal digits, in lower case")
    return found


def _candidate(entry: Any, classes: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(entry) if isinstance(entry, dict) else {}
    kind, name = found.get("class"), found.get("name")
    if kind not in CLASSES or not isinstance(name, str) or not name or name == DIRECT:
        raise _bad(f"the mirror {entry!r} needs a class ({', '.join(CLASSES)}) and a name of its own", "correct it")
    if not _is_url(found.get("url")):
        raise _bad(f"the {kind} mirror {name} has no http address", "write its url")
    if kind == APT and not _is_url(found.get("archive")):
        raise _bad(f"the apt mirror {name} does not say which archive it has", "write the archive's address as archive")
    if kind not in classes and kind not in (APT, MODELSCOPE):
        raise _bad(f"nobody says how the class {kind} of the mirror {name} is measured", "add it to classes")
    return found


def _is_url(value: Any) -> bool:
    """Whether it can stand in a configuration file: an address that ends a line or quotes would write another one."""
    if not isinstance(value, str) or re.search(r"[\s\x00-\x20\"'\\#]", value):
        return False
    parts = urlsplit(value)
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _bad(what: str, fix: str) -> TenantFailure:
    return TenantFailure("config", what, safe="nothing was measured or written", fix=fix)
