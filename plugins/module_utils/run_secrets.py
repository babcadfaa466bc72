# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The secrets of a run spec: where the controller takes each value from, and how the box proves that it works."""

from __future__ import annotations

import os
import re
from typing import Any, Mapping

from .box import run_record, urls
from .failures import TenantFailure

# How a secret is proven: by asking the service who its bearer is. ``none`` for a service that nobody can ask.
CHECKS = ("wandb", "huggingface", "none")
_BY_NAME = {"WANDB_API_KEY": "wandb", "HF_TOKEN": "huggingface", "HUGGING_FACE_HUB_TOKEN": "huggingface"}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_KEYS = ("name", "env", "file", "check")
_CHECK_KEYS = ("url", "header")


class BadSecret(ValueError):
    """An entry that cannot be used; ``key`` is the part of it that is wrong, empty for the whole."""

    def __init__(self, text: str, key: str = "") -> None:
        super().__init__(text)
        self.key = key


def check_entry(entry: object) -> dict[str, Any]:
    """``{name, env, file, check}`` from a name alone or a mapping. :raises BadSecret: naming the key."""
    given: Mapping[str, Any] = {"name": entry} if isinstance(entry, str) else entry if isinstance(entry, dict) else {}
    for key in given:
        if key not in _KEYS:
            raise BadSecret(f"unknown key {key!r}; a secret has {', '.join(_KEYS)}", str(key))
    name = given.get("name")
    if not isinstance(name, str) or not _NAME.match(name):
        raise BadSecret("a secret is the name of an environment variable, or {name, env or file, check}")
    env, file = given.get("env") or "", given.get("file") or ""
    if not isinstance(env, str) or not isinstance(file, str) or (env and file):
        raise BadSecret(f"{name} comes from env or from file, each a text")
    if env and not _NAME.match(env):
        raise BadSecret(f"{env!r} is not the name of an environment variable", "env")
    wanted = given.get("check", _BY_NAME.get(name, "none"))
    return {"name": name, "env": "" if file else env or name, "file": file, "check": _check(wanted)}


def _check(value: object) -> Any:
    if isinstance(value, str) and value in CHECKS:
        return value
    if isinstance(value, dict) and "url" in value and not set(value) - set(_CHECK_KEYS):
        url, header = value["url"], value.get("header") or "Authorization"
        usable = isinstance(url, str) and url.startswith(("https://", "http://")) and not urls.is_open(url)
        if usable and isinstance(header, str):
            return {"url": url, "header": header}
    raise BadSecret(
        f"check is one of {', '.join(CHECKS)}, or {{url, header}} of what answers its bearer, by https", "check"
    )


def value_of(secret: Mapping[str, Any]) -> str:
    """The value, from this controller. :raises TenantFailure: it is not set here, or cannot be a line of a file."""
    if secret["file"]:
        value, where = _from_file(secret), f"the file {secret['file']}"
    else:
        # As of a file: the end of its line is no part of a key.
        value = os.environ.get(secret["env"], "").rstrip("\r\n")
        where = f"the environment variable {secret['env']}"
    if not value:
        raise _unusable(secret, f"{where} is not set or empty on the controller")
    if not run_record.is_value(value):
        raise _unusable(secret, f"{where} holds more than one line")
    return value


def _from_file(secret: Mapping[str, Any]) -> str:
    path = os.path.expanduser(str(secret["file"]))
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not text"
        raise _unusable(secret, f"the file {path} cannot be read on the controller ({why})") from error


def _unusable(secret: Mapping[str, Any], why: str) -> TenantFailure:
    return TenantFailure(
        "config",
        f"the secret {secret['name']}: {why}",
        safe="nothing was sent to the box",
        fix="set it where this command runs, or take it out of the run spec's secrets",
    )
