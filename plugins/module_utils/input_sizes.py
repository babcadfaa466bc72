# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""How much a box will have to download, asked from the controller before any box is rented. Unknown stays unknown."""

from __future__ import annotations

import dataclasses
import os
from typing import Any, Mapping, Sequence

from . import object_client, run_secrets
from .box import http_get, hub, urls
from .failures import TenantFailure

_TIMEOUT_S = 15.0
GB = 1e9


def sizes(
    entries: Sequence[Mapping[str, Any]],
    secrets: Sequence[Mapping[str, Any]],
    access: Mapping[str, Any],
    hub_endpoint: str = "",
) -> list[dict[str, Any]]:
    """``[{dest, source, bytes, why}]``; ``bytes`` is None where nobody says, and ``why`` tells why not."""
    known = {secret["name"]: secret for secret in secrets}
    return [_size(entry, known, access, hub_endpoint) for entry in entries]


def _size(
    entry: Mapping[str, Any], secrets: Mapping[str, Any], access: Mapping[str, Any], hub_endpoint: str
) -> dict[str, Any]:
    told = {"dest": entry["dest"], "source": source_of(entry)}
    try:
        found = _ask(entry, secrets, access, hub_endpoint)
    except (http_get.HttpProblem, TenantFailure) as problem:
        return dict(told, bytes=None, why=str(problem))
    except object_client.NoObject:
        return dict(told, bytes=None, why="there is no such object")
    return dict(told, bytes=found, why="" if found is not None else "the server does not say")


def _ask(
    entry: Mapping[str, Any], secrets: Mapping[str, Any], access: Mapping[str, Any], hub_endpoint: str
) -> int | None:
    if "repo" in entry:
        endpoint = hub_endpoint or os.environ.get("HF_ENDPOINT") or hub.ENDPOINT
        return _repository_bytes(entry, _headers(entry, secrets), endpoint)
    if object_client.is_uri(entry["uri"]):
        client, path = object_of(entry["uri"], access)
        return client.size(path)
    return _page_bytes(entry, _headers(entry, secrets))


def source_of(entry: Mapping[str, Any]) -> str:
    """Where an input comes from, for people; a query may be a secret."""
    if "repo" in entry:
        return f"{entry['repo']} at {entry['revision'][:12]}"
    return urls.shown(entry["uri"])


def object_of(uri: str, access: Mapping[str, Any]) -> tuple[object_client.Client, str]:
    """The client and the path in it of one object, ``s3://bucket/key``."""
    parent, _slash, name = uri.rpartition("/")
    if parent.count("/") >= 3:
        return object_client.Client(object_client.locate(parent, access)), name
    # An object at the top of its bucket has no folder.
    top = object_client.locate(f"{uri}/x", access)
    return object_client.Client(dataclasses.replace(top, prefix="")), name


def _page_bytes(entry: Mapping[str, Any], headers: Mapping[str, str]) -> int | None:
    call = http_get.Call(entry["uri"], {}, headers, _TIMEOUT_S, method="HEAD")
    with http_get.opened(call) as answer:
        length = answer.headers.get("content-length", "")
        # A compressed answer says how long it is on the wire this time, which is what a box will be billed for.
        return int(length) if length.isdigit() else None


def _repository_bytes(entry: Mapping[str, Any], headers: Mapping[str, str], endpoint: str) -> int:
    repository = hub.Repository(entry["repo"], entry["type"], entry["revision"], endpoint, headers, _TIMEOUT_S)
    return sum(file.bytes for file in hub.chosen(repository.files(), entry["include"], entry["exclude"]))


def _headers(entry: Mapping[str, Any], secrets: Mapping[str, Any]) -> dict[str, str]:
    secret = secrets.get(entry["secret"])
    return {"Authorization": f"Bearer {run_secrets.value_of(secret)}"} if secret else {}


def total(found: Sequence[Mapping[str, Any]], price_per_gb: float | None) -> dict[str, Any]:
    """``{bytes, unknown, usd, text}``: the bytes that are known, how many inputs are not, what they bill."""
    known = sum(each["bytes"] or 0 for each in found)
    unknown = sum(1 for each in found if each["bytes"] is None)
    usd = None if price_per_gb is None else round(known / GB * price_per_gb, 4)
    return {"bytes": known, "unknown": unknown, "usd": usd, "text": _text(len(found), known, unknown, usd)}


def _text(count: int, known: int, unknown: int, usd: float | None) -> str:
    more = f" and {unknown} of unknown size" if unknown else ""
    price = "" if usd is None else f", {'at least ' if unknown else ''}${usd:.4f} of bandwidth"
    return f"the box would download {count} input{'s' if count != 1 else ''}: {known / GB:.3f} GB{more}{price}"
