# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The far end of ``box_files``: compares folders and small files with what is wanted, and puts right what differs.

A file is known by its SHA-256. Contents come only for those that somebody asked for, so a second run sends none.
"""

from __future__ import annotations

import base64
import os
import stat
import zlib
from typing import Any

from .box.records import sha256_file, write_bytes
from .failures import TenantFailure

# Longer ones are programs: their hash tells more than their text.
_SHOWN_BYTES = 8192


def packed(content: bytes) -> str:
    """A content as part of a question: a program is mostly text, and the box may be far away."""
    return base64.b64encode(zlib.compress(content, 9)).decode("ascii")


def shown(content: bytes) -> str | None:
    """The text that a diff shows; None for what is too long, or no text."""
    if len(content) > _SHOWN_BYTES:
        return None
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return None


def answer(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """:returns: ``changed``, ``differing`` (each ``path``, ``before``, ``text``) and ``wanting``, without content."""
    try:
        differing = [found for folder in params["folders"] for found in _folder(folder, check_mode)]
        wanting: list[str] = []
        for file in params["files"]:
            before = _state(file["path"])
            if before == _wanted(file):
                continue
            differing.append({"path": file["path"], "before": before, "text": _text(file["path"], before)})
            if before.get("sha256") != file["sha256"] and file["path"] not in params["contents"]:
                wanting.append(file["path"])
            elif not check_mode:
                _put(file, params["contents"], before)
    except OSError as error:
        raise TenantFailure(
            "config",
            f"{error.filename or 'a file'} cannot be written on the box: {error.strerror}",
            safe="what runs there goes on, and a file is either the old one or the new one",
            fix="see the disk and the permissions of platform_data_dir, then run the same command again",
        ) from error
    return {"changed": bool(differing), "differing": differing, "wanting": wanting}


def _folder(folder: dict[str, Any], check_mode: bool) -> list[dict[str, Any]]:
    path, mode = folder["path"], int(folder["mode"], 8)
    try:
        there = stat.S_IMODE(os.stat(path).st_mode)
    except FileNotFoundError:
        before = {"state": "absent"}
    else:
        if there == mode and os.path.isdir(path):
            return []
        before = {"state": "directory" if os.path.isdir(path) else "no folder", "mode": f"{there:04o}"}
    if not check_mode:
        os.makedirs(path, exist_ok=True)
        # Said again: makedirs is subject to the umask, and the folder may have been there.
        os.chmod(path, mode)
    return [{"path": path, "before": before, "text": None}]


def _state(path: str) -> dict[str, str]:
    """What lies there. A link is not followed: it would let a file of ours be somebody else's."""
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return {"state": "absent"}
    if not stat.S_ISREG(status.st_mode):
        return {"state": "no regular file"}
    return {"state": "file", "mode": f"{stat.S_IMODE(status.st_mode):04o}", "sha256": sha256_file(path)}


def _wanted(file: dict[str, Any]) -> dict[str, str]:
    return {"state": "file", "mode": file["mode"], "sha256": file["sha256"]}


def _text(path: str, before: dict[str, str]) -> str | None:
    if before["state"] != "file" or os.path.getsize(path) > _SHOWN_BYTES:
        return None
    with open(path, "rb") as stream:
        return shown(stream.read())


def _put(file: dict[str, Any], contents: dict[str, str], before: dict[str, str]) -> None:
    path, mode = file["path"], int(file["mode"], 8)
    if before.get("sha256") == file["sha256"]:
        os.chmod(path, mode)
        return
    write_bytes(path, zlib.decompress(base64.b64decode(contents[path])), mode)
    if _state(path) != _wanted(file):
        raise TenantFailure(
            "evidence_missing",
            f"{path} was written on the box, and is read back as another file",
            safe="nothing was started",
            fix="the disk of this box is not to be trusted: give it back, and rent another one",
        )
