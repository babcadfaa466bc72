# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The sources that a file of a repository is tried from, one after the other: Hugging Face and its mirrors as measured,
ModelScope, aria2 for what is very large, and at last what only a proxy reaches.

Whoever gives it, a file counts by the hash that the commit has. A token goes to no other place than without a ladder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Mapping
from urllib.parse import quote

from . import aria2, calling, hub, urls
from .http_wire import BY_ENVIRONMENT, PLAIN, PROXIED
from .inputs import REPO_TYPES

HTTP, ARIA2 = "http", "aria2"
LARGE_BYTES = 10 * 1000**3


@dataclass(frozen=True)
class Rung:
    """One source of one file; ``endpoint`` is what was chosen among, empty where nothing was."""

    url: str
    secret_headers: Mapping[str, str]
    route: str = BY_ENVIRONMENT
    engine: str = HTTP
    endpoint: str = ""


@dataclass(frozen=True)
class Endpoint:
    """An address that speaks as the Hub does, and how it is reached."""

    url: str
    route: str = BY_ENVIRONMENT


def endpoints(environment: Mapping[str, str], said: Mapping[str, str], secret: bool) -> list[Endpoint]:
    """Where repositories are asked for, best first.

    :param said: what people set for this run; an ``HF_ENDPOINT`` of theirs is the only one.
    :param secret: a token goes along: it is for the Hub itself, or for the mirror that the environment names.
    """
    chosen = environment.get("HF_ENDPOINT") or hub.ENDPOINT
    if said.get("HF_ENDPOINT"):
        return [Endpoint(chosen)]
    measured = [each.partition("=") for each in environment.get(calling.HUB_ENDPOINTS, "").split()]
    found = [Endpoint(url, route) for route, _equals, url in measured if route in (PLAIN, PROXIED) and url]
    if secret:
        trusted = [each for each in found if each.url.rstrip("/") in (chosen.rstrip("/"), hub.ENDPOINT)]
        found = [each for each in trusted if not urls.is_open(each.url)]
    # The one that was chosen comes first: another one may have measured a little faster since.
    found.sort(key=lambda each: each.url.rstrip("/") != chosen.rstrip("/"))
    return found or [Endpoint(chosen)]


def rungs(
    asked: list[Endpoint],
    repository: hub.Repository,
    file: hub.HubFile,
    environment: Mapping[str, str],
    has_aria2: Callable[[], bool] = aria2.is_there,
) -> list[Rung]:
    """How ``file`` is tried for. Without measured endpoints that is the Hub alone, as it was asked for the list."""
    headers = repository.secret_headers
    of_hub = [_rung(each, repository, file, headers) for each in asked]
    found = [rung for rung in of_hub if rung.route != PROXIED]
    modelscope = environment.get(calling.MODELSCOPE, "")
    if modelscope and not headers and repository.type in ("model", "dataset"):
        kind = REPO_TYPES[repository.type] or "models/"
        url = f"{modelscope.rstrip('/')}/{kind}{repository.repo}/resolve/master/{quote(file.path)}"
        found.append(Rung(url, {}))
    if file.bytes > LARGE_BYTES and not headers and has_aria2():
        first = of_hub[0]
        found.append(Rung(first.url, {}, first.route, ARIA2, first.endpoint))
    return found + [rung for rung in of_hub if rung.route == PROXIED]


def _rung(endpoint: Endpoint, repository: hub.Repository, file: hub.HubFile, headers: Mapping[str, str]) -> Rung:
    there = hub.Repository(repository.repo, repository.type, repository.revision, endpoint.url, headers)
    return Rung(there.file_url(file.path), headers, endpoint.route, HTTP, endpoint.url)
