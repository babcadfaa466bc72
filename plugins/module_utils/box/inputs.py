# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The inputs of a run: what identifies them, where they lie on the box, and whether they are proven now.

Every file lies once, under its hash, in ``inputs/blobs``. A *set* is a folder of hard links to such files, one for each
different list of inputs, so that nothing which a live run reads is ever replaced. The set's proof names every file with
its inode and time; a file that is not what was proven any more keeps the next cell from starting.
"""

from __future__ import annotations

import os
import re
from typing import Any

from . import attempt, globs, names, records, urls
from .layout import Layout
from .names import UnsafeName
from .refusal import USAGE, Refused

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_COMMIT = re.compile(r"[0-9a-f]{40}\Z")
_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?\Z")
_BLANK = re.compile(r"[\x00-\x20\x7f]")
_SCHEMES = ("https://", "http://", "s3://")
# Kinds of Hugging Face repositories, and what each puts before its name in a URL.
REPO_TYPES = {"model": "", "dataset": "datasets/", "space": "spaces/"}
_KEYS = {"uri": ("uri", "sha256", "dest", "secret"), "repo": ("repo", "type", "revision", "dest", "secret")}
_GLOBS = ("include", "exclude")
_MOST_SHOWN = 5


class BadInput(ValueError):
    """An entry that cannot be used; ``key`` is the part of it that is wrong, empty for the whole."""

    def __init__(self, text: str, key: str = "") -> None:
        super().__init__(text)
        self.key = key


def check_entry(entry: object) -> dict[str, Any]:
    """``entry`` with every optional key present. :raises BadInput: naming the key."""
    if not isinstance(entry, dict) or ("uri" in entry) == ("repo" in entry):
        raise BadInput("an input is {uri, sha256, dest} or {repo, revision, dest}")
    kind = "uri" if "uri" in entry else "repo"
    known = _KEYS[kind] + (_GLOBS if kind == "repo" else ())
    for key in entry:
        if key not in known:
            raise BadInput(f"unknown key {key!r}; an input with {kind} has {', '.join(known)}", str(key))
    whole: dict[str, Any] = {key: _text(entry, key) for key in _KEYS[kind]}
    try:
        names.check_relative_path(whole["dest"])
    except UnsafeName as error:
        raise BadInput(str(error), "dest") from error
    return _uri_entry(whole) if kind == "uri" else _repo_entry(whole, entry)


def _text(entry: dict[str, Any], key: str) -> str:
    value = entry.get(key)
    if key == "secret" and value in (None, ""):
        return ""
    if key == "type" and value is None:
        return "model"
    if not isinstance(value, str) or not value:
        raise BadInput(f"{key} must be a text{'' if key in entry else '; it is missing'}", key if key in entry else "")
    return value


def _uri_entry(whole: dict[str, Any]) -> dict[str, Any]:
    if not whole["uri"].startswith(_SCHEMES) or _BLANK.search(whole["uri"]):
        raise BadInput(f"uri begins with {', '.join(_SCHEMES)}", "uri")
    if whole["secret"] and urls.is_open(whole["uri"]):
        raise BadInput("a secret goes by https only: anybody on the way reads http", "uri")
    if not _SHA256.match(whole["sha256"]):
        raise BadInput("sha256 has 64 hexadecimal digits, in lower case", "sha256")
    return whole


def _repo_entry(whole: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    if not _REPO.match(whole["repo"]) or ".." in whole["repo"]:
        raise BadInput("repo is owner/name of a Hugging Face repository", "repo")
    if whole["type"] not in REPO_TYPES:
        raise BadInput(f"type is one of {', '.join(REPO_TYPES)}", "type")
    if not _COMMIT.match(whole["revision"]):
        text = "revision is the full commit, 40 hexadecimal digits: a branch or tag would be another input tomorrow"
        raise BadInput(text, "revision")
    for key in _GLOBS:
        whole[key] = _globs(entry.get(key), key)
    return whole


def _globs(value: object, key: str) -> list[str]:
    if value is not None and not (isinstance(value, list) and all(isinstance(each, str) for each in value)):
        raise BadInput(f"{key} is a list of globs", key)
    found = [str(each) for each in value] if isinstance(value, list) else []
    for pattern in found:
        try:
            globs.regex(pattern)
        except UnsafeName as error:
            raise BadInput(str(error), key) from error
    return found


def check_dests(entries: list[dict[str, Any]]) -> None:
    """Refuse two entries of which one lies at or below the other. :raises BadInput: naming both."""
    for number, entry in enumerate(entries):
        for other in entries[:number]:
            first, second = entry["dest"] + "/", other["dest"] + "/"
            if first.startswith(second) or second.startswith(first):
                raise BadInput(f"two inputs would lie at {other['dest']!r} and {entry['dest']!r}", "dest")


def check(value: object) -> list[dict[str, Any]]:
    """The list of inputs of a run record. :raises Refused: USAGE, naming what is wrong."""
    if not isinstance(value, list):
        raise Refused(USAGE, "the run record cannot be used: 'inputs' must be a list")
    try:
        entries = [check_entry(entry) for entry in value]
        check_dests(entries)
    except BadInput as error:
        raise Refused(USAGE, f"the run record cannot be used: 'inputs': {error}") from error
    return entries


# --- where they lie -------------------------------------------------------------------------------------------


def digest(entries: list[dict[str, Any]]) -> str:
    """Names the set. It covers what the inputs are and where they lie in it, not the addresses they come from."""
    same = [{key: value for key, value in entry.items() if key not in ("uri", "secret")} for entry in entries]
    return records.digest(sorted(same, key=lambda entry: str(entry["dest"])))[:24]


class Store:
    """Paths below ``inputs/`` of the tenant root."""

    def __init__(self, layout: Layout) -> None:
        self.root = layout.path("inputs")

    def blob(self, algorithm: str, value: str) -> str:
        return os.path.join(self.root, "blobs", f"{algorithm}-{value}")

    def partial(self, algorithm: str, value: str) -> str:
        return os.path.join(self.root, "partial", f"{algorithm}-{value}")

    def folder(self, set_digest: str) -> str:
        return os.path.join(self.root, "sets", set_digest)

    def proof(self, set_digest: str) -> str:
        return os.path.join(self.root, "sets", f"{set_digest}.json")

    def order(self, set_digest: str) -> str:
        return os.path.join(self.root, "orders", f"{set_digest}.json")

    def progress(self, set_digest: str) -> str:
        return os.path.join(self.root, "orders", f"{set_digest}.progress.json")

    def lock(self, set_digest: str) -> str:
        return os.path.join(self.root, "orders", f"{set_digest}.lock")


def folder_of(layout: Layout, run: dict[str, Any]) -> str:
    """Where the trainer of ``run`` finds its inputs; empty when it has none."""
    return Store(layout).folder(digest(run["inputs"])) if run["inputs"] else ""


# --- whether they are proven ----------------------------------------------------------------------------------


def mark_of(path: str) -> list[int]:
    """What changes when somebody writes a file or puts another in its place: inode, size and time of change."""
    found = os.stat(path, follow_symlinks=True)
    return [found.st_ino, found.st_size, found.st_mtime_ns]


def problems(layout: Layout, entries: list[dict[str, Any]]) -> list[str]:
    """Why a cell with these inputs must not start; empty when every file is still what was proven."""
    if not entries:
        return []
    store, set_digest = Store(layout), digest(entries)
    proof = attempt.read(store.proof(set_digest), "inputs-proof")
    files = proof.get("files")
    if not isinstance(files, list):
        return [f"the inputs {', '.join(entry['dest'] for entry in entries)} are not proven yet"]
    folder = store.folder(set_digest)
    found = [why for why in (_changed(folder, file) for file in files) if why]
    more = len(found) - _MOST_SHOWN
    return found[:_MOST_SHOWN] + ([f"and {more} more"] if more > 0 else [])


def _changed(folder: str, file: dict[str, Any]) -> str:
    try:
        if mark_of(os.path.join(folder, file["path"])) == file["mark"]:
            return ""
    except OSError:
        return f"input {file['path']} is gone since it was proven"
    return f"input {file['path']} was changed since it was proven"
