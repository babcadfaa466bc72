# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The kinds of object store that results may lie in, told apart by the address: S3, and the Hugging Face Hub."""

from __future__ import annotations

from typing import Any, Mapping, Union

from . import hub_location, hub_store, object_client, object_store
from .failures import TenantFailure
from .hub_client import HubClient
from .hub_location import HubLocation
from .object_client import Client, Location
from .object_requests import Patience
from .object_store import StoredFile
from .roster import Manifest

FORMS = "s3://bucket/prefix or hf://datasets/owner/repository/prefix"
AnyLocation = Union[Location, HubLocation]
AnyClient = Union[Client, HubClient]


def locate(uri: object, settings: Mapping[str, Any] | None = None) -> AnyLocation:
    """The location that ``uri`` and the option ``object_store`` name. TenantFailure when they make no sense."""
    if hub_location.is_uri(uri):
        return hub_location.locate(uri, settings)
    if object_client.is_uri(uri):
        return object_client.locate(uri, settings)
    what = f"{str(uri)[:200]!a} is no address of an object store"
    raise TenantFailure("config", what, safe="Nothing was transferred", fix=f"Write {FORMS}")


def connect(location: AnyLocation, patience: Patience) -> AnyClient:
    """The client of that store. TenantFailure when it cannot be made here."""
    return HubClient(location, patience) if isinstance(location, HubLocation) else Client(location)


def entries_of(client: AnyClient, manifest: Manifest) -> tuple[list[StoredFile], tuple[str, ...]]:
    """The object of each file of ``manifest``, and a problem for each file that does not lie there as it says."""
    if isinstance(client, HubClient):
        entries, broken = hub_store.entries_of(manifest.files, client.list_objects(), client.location, client.head)
        return entries, tuple(str(mismatch) for mismatch in broken)
    return object_store.entries_of(manifest.files, object_store.read_objects(client), client.location.uri)


def reread(copy: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """(digest of the manifest, every promise that is not kept) of a receipt's copy, read from its store now."""
    return hub_store.reread(copy) if hub_location.is_uri(copy.get("uri")) else object_store.reread(copy)
