# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Records: small JSON files that are either whole or not there.

Every record carries ``schema: gpu-tenant/<name>/v<major>``. A reader ignores keys it does not know and
refuses a major version it does not know, because guessing there could open the gate.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import os
import tempfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import TypeGuard

SCHEMA_MAJOR = 1
_CHUNK = 1024 * 1024


class RecordError(Exception):
    """A record exists but cannot be trusted: half-written, not JSON, or of another schema."""


class RecordMissing(RecordError):
    """There is no such record."""


def schema(name: str) -> str:
    """``schema("receipt")`` is ``gpu-tenant/receipt/v1``."""
    return f"gpu-tenant/{name}/v{SCHEMA_MAJOR}"


def canonical_json(value: Any) -> bytes:
    """One byte string for one value: sorted keys, no blanks, as :func:`json_bytes`. NaN and infinity are refused."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return json_bytes(text)


def json_bytes(text: str) -> bytes:
    """JSON as UTF-8. Half a surrogate pair, which strangers send, has no bytes in it: it stays the escape that it was.

    So what went wrong with a stranger's word can be written down, and reads back as the word.
    """
    return text.encode("utf-8", "backslashreplace")


def digest(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def sha256_file(path: str) -> str:
    """SHA-256 (hex) of a file's bytes, read in 1 MiB pieces."""
    hasher = hashlib.sha256()
    with open(path, "rb") as stream:
        for chunk in iter(lambda: stream.read(_CHUNK), b""):
            hasher.update(chunk)
    return hasher.hexdigest()


def utc_now() -> str:
    """Now, as ``2026-11-21T03:38:06Z``."""
    return utc_text(datetime.datetime.now(datetime.timezone.utc))


def utc_text(moment: datetime.datetime) -> str:
    return moment.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_utc(text: str) -> datetime.datetime:
    """The moment that ``utc_now`` wrote. ValueError for anything else."""
    return datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.timezone.utc)


def is_count(value: object) -> TypeGuard[int]:
    """Whether ``value`` is a whole number from 0 up. True and False are none, though Python takes them for numbers."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def finite(value: object) -> float | None:
    """A finite number, or None: trainers do write NaN, and JSON for others must not carry it."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def fsync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: str, data: bytes, mode: int = 0o600) -> None:
    """Replace ``path`` whole: temporary file in the same folder, fsync, rename, fsync of the folder."""
    folder = os.path.dirname(os.path.abspath(path))
    os.makedirs(folder, mode=0o700, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{os.path.basename(path)}.", suffix=".tmp", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
    fsync_directory(folder)


def write_record(path: str, name: str, record: dict[str, Any], mode: int = 0o600) -> dict[str, Any]:
    """Write ``record`` with its schema line; returns what was written."""
    write_bytes(path, record_bytes(name, record), mode)
    return dict(record, schema=schema(name))


def record_bytes(name: str, record: dict[str, Any]) -> bytes:
    """What :func:`write_record` writes: the same record always gives the same bytes. RecordError for NaN, infinity."""
    whole = dict(record, schema=schema(name))
    try:
        text = json.dumps(whole, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise RecordError(f"the {name} record would hold a number that JSON does not have ({error})") from error
    return json_bytes(text) + b"\n"


def read_record(path: str, name: str) -> dict[str, Any]:
    """The record at ``path``. RecordMissing if absent, RecordError if it cannot be trusted."""
    try:
        with open(path, "rb") as stream:
            data = stream.read()
    except FileNotFoundError as error:
        raise RecordMissing(f"no {name} record at {path}") from error
    except OSError as error:
        raise RecordError(f"cannot read the {name} record {path}: {error.strerror}") from error
    return parse_record(data, name, path)


def parse_record(data: bytes, name: str, where: str) -> dict[str, Any]:
    """The record in ``data``; ``where`` names its source in errors."""
    try:
        record = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise RecordError(f"the {name} record {where} is half-written or not JSON ({error})") from error
    if not isinstance(record, dict) or record.get("schema") != schema(name):
        found = record.get("schema") if isinstance(record, dict) else type(record).__name__
        raise RecordError(f"{where} is not a {name} record of a known version: {found!r}")
    return record


def read_record_or_none(path: str, name: str) -> dict[str, Any] | None:
    """Like :func:`read_record`, but absence is an answer. A damaged record still raises."""
    try:
        return read_record(path, name)
    except RecordMissing:
        return None
