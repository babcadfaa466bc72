# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What bodies ask for, as Lambda's schemas have it (``InstanceLaunchRequest``, ``FilesystemCreateRequest``).

What is not simulated (user data, firewall rulesets, images by id, generated keys) is refused rather than ignored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..volumes import is_place
from .catalogue import REGIONS
from .refusals import bad, missing
from .terms import FILE, number_of

FAMILIES = ("lambda-stack-24-04", "lambda-stack-22-04")
_TAKEN = frozenset({
    "region_name", "instance_type_name", "ssh_key_names", "file_system_names", "file_system_mounts", "hostname", "name",
    "image", "tags", "quantity",
})  # fmt: skip
_MOUNT = re.compile(r"(/home|/lambda/nfs|/data)[/a-zA-Z0-9-]*\Z")
_HOSTNAME = re.compile(r"[a-z0-9][0-9a-z-]{0,62}\Z")
_TAG = re.compile(r"[a-z][a-z0-9:-]{1,54}\Z")
_FILE_SYSTEM = re.compile(r"[a-zA-Z]+[0-9a-zA-Z-]*\Z")


@dataclass(frozen=True)
class Launch:
    """:param file_systems: names, mounted where they are by default.
    :param mounts: numbers of file systems, each with where it shall be.
    """

    region: str
    instance_type: str
    key: str
    file_systems: tuple[str, ...]
    mounts: tuple[tuple[int, str], ...]
    name: str
    hostname: str
    family: str
    tags: tuple[tuple[str, str], ...]


def launch_in(body: Mapping[str, Any]) -> Launch:
    """MarketError (400) that names the field."""
    for name in body:
        if name not in _TAKEN:
            raise bad(f"{name}: not simulated, or no field of a launch")
    region = _text(body, "region_name")
    if region not in REGIONS:
        raise bad(f"region_name: one of {', '.join(REGIONS)}")
    keys = _texts(body, "ssh_key_names")
    if len(keys) != 1:
        raise bad("ssh_key_names: exactly one SSH key must be specified")
    if body.get("quantity", 1) != 1:
        raise bad("quantity: one instance a launch")
    hostname = _text(body, "hostname", "")
    if hostname and not _HOSTNAME.match(hostname):
        raise bad("hostname: small letters, digits and hyphens")
    return Launch(
        region=region,
        instance_type=_text(body, "instance_type_name"),
        key=keys[0],
        file_systems=_texts(body, "file_system_names"),
        mounts=_mounts(body),
        name=_text(body, "name", "", most=64),
        hostname=hostname,
        family=_family(body),
        tags=_tags(body),
    )


@dataclass(frozen=True)
class FileSystemOrder:
    name: str
    region: str


def file_system_in(body: Mapping[str, Any]) -> FileSystemOrder:
    """MarketError (400) that names the field."""
    name, region = _text(body, "name", most=60), _text(body, "region")
    if not _FILE_SYSTEM.match(name):
        raise bad("name: letters first, then letters, digits and hyphens, at most 60")
    if region not in REGIONS:
        raise bad(f"region: one of {', '.join(REGIONS)}")
    return FileSystemOrder(name, region)


def key_name_in(body: Mapping[str, Any]) -> str:
    if not body.get("public_key"):
        raise bad("public_key: generating a key pair is not simulated")
    return _text(body, "name", most=64)


def ids_in(body: Mapping[str, Any]) -> tuple[str, ...]:
    """The instances of an operation."""
    ids = _texts(body, "instance_ids")
    if not ids:
        raise bad("instance_ids: a list of at least one id")
    return ids


def _text(body: Mapping[str, Any], name: str, default: str | None = None, most: int = 1024) -> str:
    value = body.get(name, default)
    if not isinstance(value, str) or len(value) > most or (default is None and not value):
        raise bad(f"{name}: must be text of at most {most} characters")
    return value


def _texts(body: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = body.get(name) or []
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise bad(f"{name}: must be a list of texts")
    return tuple(value)


def _rows(body: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    value = body.get(name) or []
    if not isinstance(value, list) or not all(isinstance(one, Mapping) for one in value):
        raise bad(f"{name}: must be a list of objects")
    return value


def _mounts(body: Mapping[str, Any]) -> tuple[tuple[int, str], ...]:
    found = []
    for row in _rows(body, "file_system_mounts"):
        path = _text(row, "mount_point", most=256)
        number = number_of(FILE, row.get("file_system_id"))
        if not _MOUNT.match(path) or not is_place(path):
            raise bad("mount_point: a path below /home, /lambda/nfs or /data")
        if not number:
            raise missing("Filesystem was not found.")
        found.append((number, path))
    return tuple(found)


def _family(body: Mapping[str, Any]) -> str:
    image = body.get("image")
    if image is None:
        return FAMILIES[0]
    family = image.get("family") if isinstance(image, Mapping) else None
    if not isinstance(family, str):
        raise bad("image: only a family is simulated")
    if family not in FAMILIES:
        raise missing(f"Image family {family[:60]!r} was not found.")
    return family


def _tags(body: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    found = [(_text(row, "key", most=55), _text(row, "value", "", most=128)) for row in _rows(body, "tags")]
    if not all(_TAG.match(key) and not key.startswith("lambda-ai-") for key, _value in found):
        raise bad("tags: a key is of small letters, digits, hyphens and colons, and begins with a letter")
    return tuple(found)
