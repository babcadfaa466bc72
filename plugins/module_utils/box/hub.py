# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A Hugging Face repository at a commit: its files, their sizes and hashes, as the Hub's own API tells them.

Files in large-file storage carry their SHA-256; the others the SHA-1 of their git blob. ``HF_ENDPOINT`` names a mirror.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Callable, Mapping
from urllib.parse import quote, urlsplit

from . import globs, http_get, names, urls
from .http_get import REFUSED, WRONG, Call, HttpProblem
from .inputs import REPO_TYPES

ENDPOINT = "https://huggingface.co"

SHA256, GIT_SHA1 = "sha256", "git-sha1"
_NEXT = re.compile(r'<([^<>]+)>\s*;[^,]*rel="?next"?')
_HEX = {SHA256: re.compile(r"[0-9a-f]{64}\Z"), GIT_SHA1: re.compile(r"[0-9a-f]{40}\Z")}
_MOST_PAGES = 10000

Reader = Callable[[Call], "tuple[Mapping[str, str], bytes]"]


@dataclass(frozen=True)
class HubFile:
    """One file of the repository; ``hash`` is of the kind ``algorithm``."""

    path: str
    bytes: int
    algorithm: str
    hash: str


@dataclass(frozen=True)
class Repository:
    """A repository at one commit. ``secret_headers`` carry the token, if there is one."""

    repo: str
    type: str
    revision: str
    endpoint: str
    secret_headers: Mapping[str, str]
    timeout_s: float = 60.0

    def file_url(self, path: str) -> str:
        return f"{self._base}/{REPO_TYPES[self.type]}{self.repo}/resolve/{self.revision}/{quote(path)}"

    @property
    def _base(self) -> str:
        return self.endpoint.rstrip("/")

    def files(self, read: Reader = http_get.read) -> list[HubFile]:
        """Every file of the commit. :raises HttpProblem: the Hub does not know it, or says what makes no sense."""
        api = f"{self._base}/api/{self.type}s/{self.repo}"
        told = self._json(read, f"{api}/revision/{self.revision}")[1]
        commit = told.get("sha") if isinstance(told, dict) else None
        if commit != self.revision:
            raise HttpProblem(WRONG, f"{self.repo} at {self.revision} is {str(commit)[:80]!r} there")
        found: list[HubFile] = []
        url = f"{api}/tree/{self.revision}?recursive=true"
        for _page in range(_MOST_PAGES):
            headers, entries = self._json(read, url)
            found += self._usable(entries)
            following = _NEXT.search(headers.get("link", ""))
            if not following:
                return found
            # A mirror passes on what the Hub says, and the Hub names itself.
            parts = urlsplit(following.group(1))
            url = f"{self._base}{parts.path}?{parts.query}"
        raise HttpProblem(REFUSED, f"{self.repo} has more than {_MOST_PAGES} pages of files")

    def _json(self, read: Reader, url: str) -> tuple[Mapping[str, str], Any]:
        headers, body = read(Call(url, {"Accept": "application/json"}, self.secret_headers, self.timeout_s))
        try:
            return headers, json.loads(body.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise HttpProblem(REFUSED, f"{urls.shown(url)} answers with something that is not JSON") from error

    def _usable(self, entries: Any) -> list[HubFile]:
        if not isinstance(entries, list):
            raise HttpProblem(REFUSED, f"{self.repo}: the Hub answers with something that is no list of files")
        return [
            self._file(entry) for entry in entries if not (isinstance(entry, dict) and entry["type"] == "directory")
        ]

    def _file(self, entry: Any) -> HubFile:
        try:
            large = entry.get("lfs")
            algorithm, found = (SHA256, large["oid"]) if large else (GIT_SHA1, entry["oid"])
            size = large["size"] if large else entry["size"]
            file = HubFile(names.check_relative_path(entry["path"]), int(size), algorithm, str(found))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise HttpProblem(REFUSED, f"{self.repo}: the Hub lists a file that cannot be used ({error})") from error
        if not _HEX[algorithm].match(file.hash) or file.bytes < 0:
            raise HttpProblem(REFUSED, f"{self.repo}: the Hub gives {file.path!a} no usable hash")
        return file


def chosen(files: list[HubFile], include: list[str], exclude: list[str]) -> list[HubFile]:
    """The files that a spec wants: those that match ``include`` (all without it) and not ``exclude``."""
    wanted = [globs.regex(pattern) for pattern in include]
    unwanted = [globs.regex(pattern) for pattern in exclude]
    return [
        file
        for file in files
        if (not wanted or any(each.match(file.path) for each in wanted))
        and not any(each.match(file.path) for each in unwanted)
    ]
