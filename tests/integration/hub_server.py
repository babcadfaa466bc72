# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A Hugging Face Hub on two loopback ports, the Hub and its storage, that can be made to fail.

It speaks what ``huggingface_hub`` speaks without Xet: repositories, preupload, git-LFS batches (basic and multipart),
verification by SHA-256, commits with a parent, trees in pages, and redirects to signed addresses. The storage refuses
a token, a foreign signature, and one that expired. ``test_hub_server.py`` has the unmodified library use it.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import itertools
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

READ_TOKEN = "hf_readOnlyTokenOfTheTests"
WRITE_TOKEN = "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"
REPOSITORY = "ada/results"
_SECRET = b"what the Hub signs with"
_API = re.compile(
    r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|preupload|commit|paths-info)/([^/]+)(.*))?\Z"
)
_FILES = re.compile(r"/(datasets/)?([^/]+/[^/]+?)(?:/resolve/([^/]+)/(.+)|\.git/info/lfs/(objects/batch|verify))\Z")


@dataclass(frozen=True)
class Entry:
    """A file of a commit: an LFS object by its hash, else its own bytes."""

    size: int
    oid: str = ""
    data: bytes = b""

    @property
    def blob(self) -> str:
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.oid}\nsize {self.size}\n".encode()
        content = pointer if self.oid else self.data
        return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@dataclass
class Repository:
    private: bool = False
    commits: dict[str, dict[str, Entry]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    parents: dict[str, str] = field(default_factory=dict)

    def add(self, branch: str, tree: dict[str, Entry], note: str) -> str:
        said = json.dumps(
            [self.branches.get(branch), sorted((p, e.blob) for p, e in tree.items()), note, len(self.commits)]
        )
        commit = hashlib.sha1(said.encode(), usedforsecurity=False).hexdigest()
        self.parents[commit] = self.branches.get(branch, "")
        self.commits[commit], self.branches[branch] = tree, commit
        return commit

    def last_change(self, commit: str, path: str) -> str:
        while self.commits.get(self.parents[commit], {}).get(path) == self.commits[commit][path]:
            commit = self.parents[commit]
        return commit

    def at(self, revision: str) -> str:
        commit = self.branches.get(revision, revision)
        if commit not in self.commits:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit


class Refusal(Exception):
    def __init__(self, status: int, message: str, code: str = "", headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.headers = status, code, headers or {}


class Cut(Exception):
    """The connection ends without an answer."""


@dataclass(frozen=True)
class Call:
    """One request. ``site`` is hub or storage; ``path`` has no query."""

    site: str
    method: str
    path: str
    authorization: str
    body: bytes


# May raise a Refusal or Cut, or give another body.
Fault = Callable[[Call], bytes]


@dataclass
class HubServer:
    """``checks``: verify the SHA-256 of what was sent, as git-LFS servers do. ``part_bytes``: larger objects go in
    parts. ``late_s``: how far the storage's clock has gone on since addresses were signed."""

    url: str = ""
    storage_url: str = ""
    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    sent: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, dict[int, bytes]] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    fault: Fault | None = None
    checks: bool = True
    part_bytes: int = 5 * 1024 * 1024
    page_files: int = 1000
    late_s: float = 0.0
    transfer: str = ""
    rename: Callable[[str], str] = str
    lock: threading.RLock = field(default_factory=threading.RLock)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def reset(self) -> None:
        fresh = HubServer(self.url, self.storage_url)
        for name in ("repositories", "objects", "sent", "uploads", "calls"):
            getattr(self, name).clear()
        for name in ("fault", "checks", "part_bytes", "page_files", "late_s", "transfer", "rename"):
            setattr(self, name, getattr(fresh, name))
        self.make("datasets", REPOSITORY, private=True)

    def make(self, kind: str, name: str, private: bool = False) -> Repository:
        repository = Repository(private)
        attributes = b"*.pt filter=lfs diff=lfs merge=lfs -text\n"
        repository.add("main", {".gitattributes": Entry(len(attributes), data=attributes)}, "initial commit")
        self.repositories[kind, name] = repository
        return repository

    @property
    def repository(self) -> Repository:
        return self.repositories["datasets", REPOSITORY]

    def tree(self, branch: str = "main") -> dict[str, Entry]:
        return self.repository.commits[self.repository.branches[branch]]

    def commit_of_another(self, path: str = "notes.txt", data: bytes = b"by somebody else") -> str:
        tree = {**self.tree(), path: Entry(len(data), data=data)}
        return self.repository.add("main", tree, path)

    def squash(self) -> None:
        """Rewrite history: one commit with what the branch has now, and the others are gone."""
        tree = dict(self.tree())
        self.repository.commits.clear()
        self.repository.branches.clear()
        self.repository.add("main", tree, f"squashed {next(self.numbers)}")

    def puts(self) -> list[int]:
        """The bytes of every body that the storage was sent."""
        return [len(call.body) for call in self.calls if call.site == "storage" and call.method == "PUT"]

    def commits_made(self) -> int:
        return len([call for call in self.calls if "/commit/" in call.path])

    def signed(self, method: str, path: str) -> str:
        told = hmac.new(_SECRET, f"{method} {path}".encode(), "sha256").hexdigest()
        return self.rename(f"{self.storage_url}{path}?X-Amz-Expires=900&X-Amz-Signature={told}")

    # --- answers --------------------------------------------------------------------------------------------------

    def answer(self, call: Call, query: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        with self.lock:
            self.calls.append(call)
        body = self.fault(call) if self.fault else call.body
        with self.lock:
            return (self._storage if call.site == "storage" else self._hub)(call, body, query)

    def _storage(self, call: Call, body: bytes, query: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        if call.authorization:
            raise Refusal(400, "Only one auth mechanism allowed")
        right = hmac.new(_SECRET, f"{call.method} {call.path}".encode(), "sha256").hexdigest()
        if query.get("X-Amz-Signature") != right:
            return _xml(403, "SignatureDoesNotMatch", "no match")
        if self.late_s > float(query["X-Amz-Expires"]):
            return _xml(403, "AccessDenied", "Request has expired")
        _empty, what, name, *number = call.path.split("/")
        if call.method == "PUT":
            etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
            if what == "object":
                self.sent[name] = body
            else:
                self.uploads[name][int(number[0])] = body
            return 200, {"ETag": f'"{etag}"'}, b""
        if name not in self.objects:
            return _xml(404, "NoSuchKey", "gone")
        return 200, {"ETag": f'"{name}"', "Content-Type": "application/octet-stream"}, self.objects[name]

    def _hub(self, call: Call, body: bytes, query: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        path = call.path
        if path == "/api/repos/create":
            asked = json.loads(body)
            self._may(call, None, write=True)
            name = f"{asked.get('organization') or 'ada'}/{asked['name']}"
            self.make(f"{asked.get('type', 'model')}s", name, asked.get("private", False))
            return _json({"url": f"{self.url}/{name}", "name": name})
        if path == "/api/complete":
            return self._complete(query["upload"], json.loads(body))
        found = _API.match(path)
        if found:
            kind, name, verb, revision, rest = found.groups()
            writes = verb in ("commit", "preupload")
            repository = self._may(call, self.repositories.get((kind, name)), writes)
            at = unquote(revision or "main")
            if verb == "commit":
                return self._commit(repository, at, body, f"{self.url}/{'datasets/' * (kind == 'datasets')}{name}")
            commit = repository.at(at)
            if verb == "tree":
                return self._tree(call, repository, commit, unquote(rest[1:]), query)
            if verb == "preupload":
                return _json(self._preupload(repository.commits[commit], json.loads(body)))
            if verb == "paths-info":
                asked_paths = parse_qs(body.decode()).get("paths") or json.loads(body or b"{}").get("paths", [])
                tree = repository.commits[commit]
                return _json([_told(each, tree[each]) for each in asked_paths if each in tree])
            return _json({"id": name, "sha": commit, "private": repository.private, "tags": [], "siblings": []})
        found = _FILES.match(path)
        if not found:
            raise Refusal(404, "Sorry, we can't find the page you are looking for.")
        prefix, name, revision, file, lfs = found.groups()
        repository = self._may(call, self.repositories.get(("datasets" if prefix else "models", name)))
        if lfs == "verify":
            return self._verify(json.loads(body))
        if lfs:
            return self._batch(call, json.loads(body), f"{self.url}/{prefix or ''}{name}.git/info/lfs")
        return self._resolve(call, repository, unquote(revision), unquote(file))

    @staticmethod
    def _may(call: Call, repository: Repository | None, write: bool = False) -> Any:
        token = call.authorization.removeprefix("Bearer ")
        if token and token not in (READ_TOKEN, WRITE_TOKEN):
            raise Refusal(401, "Invalid credentials in Authorization header")
        if call.path != "/api/repos/create" and repository is None:
            raise Refusal(404 if token else 401, "Repository not found", "RepoNotFound" if token else "")
        if not token and (write or (repository is not None and repository.private)):
            raise Refusal(401, "Invalid username or password.")
        if write and token != WRITE_TOKEN:
            raise Refusal(403, "Forbidden: you must use a write token to upload to a repository.")
        return repository

    def _tree(self, call: Call, repository: Repository, commit: str, folder: str, query: dict[str, str]) -> Any:
        tree = repository.commits[commit]
        below = sorted(path for path in tree if path.startswith(f"{folder}/") or not folder)
        if not below:
            raise Refusal(404, f"{folder} does not exist", "EntryNotFound")
        folders = sorted({path.rsplit("/", 1)[0] for path in below if "/" in path} - {folder})
        entries = [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in folders]
        entries += [_told(path, tree[path]) for path in below]
        if query.get("recursive") != "true":
            direct = len(folder.split("/")) + 1 if folder else 1
            entries = [entry for entry in entries if len(entry["path"].split("/")) == direct]
        if query.get("expand") == "true":
            for entry in entries:
                if entry["type"] == "file":
                    last = repository.last_change(commit, entry["path"])
                    entry["lastCommit"] = {"id": last, "title": "a commit", "date": "2026-01-01T00:00:00.000Z"}
        start = int(query.get("cursor", "0"))
        page, following = entries[start : start + self.page_files], start + self.page_files
        status, headers, body = _json(page)
        if following < len(entries):
            asked = f"recursive={query.get('recursive')}&expand={query.get('expand')}"
            more = f"{self.url}{quote(call.path, safe='/%')}?{asked}&cursor={following}"
            headers["Link"] = f'<{self.rename(more)}>; rel="next"'
        return status, headers, body

    def _preupload(self, tree: dict[str, Entry], asked: dict[str, Any]) -> dict[str, Any]:
        attributes = asked.get("gitAttributes")
        text = tree[".gitattributes"].data.decode() if attributes is None else attributes

        def mode(file: dict[str, Any]) -> str:
            binary = b"\0" in base64.b64decode(file["sample"])
            return "lfs" if binary or file["size"] > 10 << 20 or _tracked(text, file["path"]) else "regular"

        return {
            "files": [
                {"path": file["path"], "uploadMode": mode(file), "shouldIgnore": False, "oid": None}
                for file in asked["files"]
            ]
        }

    def _batch(self, call: Call, asked: dict[str, Any], lfs: str) -> tuple[int, dict[str, str], bytes]:
        self._may(call, Repository(), write=asked["operation"] == "upload")
        assert set(asked["transfers"]) <= {"basic", "multipart"}
        assert len(asked["objects"]) <= 256
        answers = [self._instruction(asked["operation"], each, lfs) for each in asked["objects"]]
        return _json({"transfer": self.transfer or "basic", "objects": answers})

    def _instruction(self, operation: str, asked: dict[str, Any], lfs: str) -> dict[str, Any]:
        oid, size = asked["oid"], asked["size"]
        there = oid in self.objects
        told: dict[str, Any] = {"oid": oid, "size": size}
        if operation == "download":
            if not there:
                return {**told, "error": {"code": 404, "message": "Object does not exist"}}
            return {**told, "actions": {"download": {"href": self.signed("GET", f"/object/{oid}")}}}
        if there:
            return told
        verify = {"href": self.rename(f"{lfs}/verify"), "header": {"Authorization": "Basic c2VjcmV0OnRva2Vu"}}
        if size <= self.part_bytes:
            return {**told, "actions": {"upload": {"href": self.signed("PUT", f"/object/{oid}")}, "verify": verify}}
        upload = f"{oid}-{next(self.numbers)}"
        self.uploads[upload] = {}
        count = -(-size // self.part_bytes)
        header = {str(n): self.signed("PUT", f"/part/{upload}/{n}") for n in range(1, count + 1)}
        href = self.rename(f"{self.url}/api/complete?upload={upload}")
        header["chunk_size"] = str(self.part_bytes)
        return {**told, "actions": {"upload": {"href": href, "header": header}, "verify": verify}}

    def _complete(self, upload: str, asked: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        parts = self.uploads.get(upload)
        if parts is None:
            raise Refusal(404, "The specified upload does not exist")
        etags = {n: hashlib.md5(data, usedforsecurity=False).hexdigest() for n, data in parts.items()}
        if {part["partNumber"]: part["etag"].strip('"') for part in asked["parts"]} != etags:
            raise Refusal(400, "One or more of the specified parts could not be found")
        self.sent[asked["oid"]] = b"".join(parts[number] for number in sorted(parts))
        del self.uploads[upload]
        return _json({"success": True})

    def _verify(self, asked: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        oid = asked["oid"]
        data = self.sent.pop(oid, self.objects.get(oid))
        if data is None:
            raise Refusal(404, "Object does not exist")
        if len(data) != asked["size"] or (self.checks and hashlib.sha256(data).hexdigest() != oid):
            raise Refusal(422, "The uploaded object does not match its oid")
        self.objects[oid] = data
        return _json({})

    def _commit(self, repository: Repository, branch: str, body: bytes, page: str) -> tuple[int, dict[str, str], bytes]:
        lines = [json.loads(line) for line in body.splitlines()]
        assert lines[0]["key"] == "header"
        if branch not in repository.branches:
            raise Refusal(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        parent = lines[0]["value"].get("parentCommit")
        if parent not in (None, repository.branches[branch]):
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        tree = dict(repository.commits[repository.branches[branch]])
        for line in lines[1:]:
            self._apply(tree, line["key"], line["value"])
        commit = repository.add(branch, tree, lines[0]["value"]["summary"])
        return _json({"success": True, "commitOid": commit, "commitUrl": f"{page}/commit/{commit}", "hookOutput": ""})

    def _apply(self, tree: dict[str, Entry], key: str, value: dict[str, Any]) -> None:
        path = value["path"]
        if key == "lfsFile":
            if value["oid"] not in self.objects:
                raise Refusal(400, f"LFS pointer of {path} points to a file that does not exist")
            tree[path] = Entry(len(self.objects[value["oid"]]), value["oid"])
            text = tree[".gitattributes"].data.decode()
            if not _tracked(text, path):
                # As the Hub does by itself.
                data = f"{text}{path} filter=lfs diff=lfs merge=lfs -text\n".encode()
                tree[".gitattributes"] = Entry(len(data), data=data)
        elif key == "file":
            data = base64.b64decode(value["content"])
            if b"\0" in data:
                raise Refusal(400, f"Your push was rejected because {path} is a binary file")
            tree[path] = Entry(len(data), data=data)
        else:
            raise Refusal(400, f"{key} is not known here")

    def _resolve(
        self, call: Call, repository: Repository, revision: str, path: str
    ) -> tuple[int, dict[str, str], bytes]:
        commit = repository.at(revision)
        entry = repository.commits[commit].get(path)
        if entry is None:
            raise Refusal(404, "Entry not found", "EntryNotFound")
        told = {"X-Repo-Commit": commit}
        if not entry.oid:
            return 200, {**told, "ETag": f'"{entry.blob}"', "Content-Type": "text/plain"}, entry.data
        linked = {"X-Linked-Etag": f'"{entry.oid}"', "X-Linked-Size": str(entry.size)}
        return 302, {**told, **linked, "Location": self.signed("GET", f"/object/{entry.oid}")}, b"Found"


def _tracked(attributes: str, path: str) -> bool:
    """Whether git keeps ``path`` in LFS; the patterns that occur here are ``*.pt``, ``folder/**`` and whole paths."""
    for line in attributes.splitlines():
        pattern, _blank, rest = line.partition(" ")
        if "filter=lfs" not in rest:
            continue
        if pattern in (path, "*" + path[path.rfind(".") :]) or (
            pattern.endswith("/**") and path.startswith(pattern[:-2])
        ):
            return True
    return False


def _told(path: str, entry: Entry) -> dict[str, Any]:
    told = {"type": "file", "path": path, "oid": entry.blob, "size": entry.size}
    lfs = {"oid": entry.oid, "size": entry.size, "pointerSize": 134}
    return {**told, "lfs": lfs} if entry.oid else told


def _json(record: Any) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json; charset=utf-8"}, json.dumps(record).encode()


def _xml(status: int, code: str, message: str) -> tuple[int, dict[str, str], bytes]:
    text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return status, {"Content-Type": "application/xml"}, text.encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    hub: HubServer
    site = "hub"

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else b""
        if len(body) < length:
            self.close_connection = True  # a request without its end is none
            return
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        # Escaped slashes name a branch or a folder in one step of the path, so only they stay escaped.
        path = re.sub(r"%(?!2F)[0-9A-Fa-f]{2}(?:%(?!2F)[0-9A-Fa-f]{2})*", lambda found: unquote(found[0]), parts.path)
        call = Call(self.site, self.command, path, self.headers.get("Authorization", ""), body)
        try:
            status, headers, data = self.hub.answer(call, query)
        except Refusal as refusal:
            status, data = refusal.status, json.dumps({"error": str(refusal)}).encode()
            headers = {"Content-Type": "application/json", "X-Error-Message": str(refusal), **refusal.headers}
            if refusal.code:
                headers["X-Error-Code"] = refusal.code
        except Cut:
            self.close_connection = True
            return
        self._reply(status, headers, data)

    def _reply(self, status: int, headers: dict[str, str], data: bytes) -> None:
        wanted = re.match(r"bytes=(\d+)-(\d*)\Z", self.headers.get("Range", ""))
        if status == 200 and wanted and self.site == "storage":
            first, last = int(wanted[1]), int(wanted[2] or len(data) - 1)
            headers = {**headers, "Content-Range": f"bytes {first}-{last}/{len(data)}"}
            status, data = 206, data[first : last + 1]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_HEAD = do_PUT = do_POST = _serve

    def log_message(self, format: str, *args: Any) -> None:
        return


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        return


@contextlib.contextmanager
def hub_server() -> Iterator[HubServer]:
    hub = HubServer()
    servers = [
        _Quiet(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub, "site": site}))
        for site in ("hub", "storage")
    ]
    hub.url, hub.storage_url = (f"http://127.0.0.1:{server.server_address[1]}" for server in servers)
    threads = [threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            thread.join(timeout=600)
            server.server_close()
