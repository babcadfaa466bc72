# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The controller's hand on a repository of the Hugging Face Hub: git-LFS batches, commits, trees, and what it says.

The Hub's own library is not used: it hashes and sends the files that it commits, and these are on another machine; the
pieces that would let somebody else send them are private to it and change. What is spoken here is the Hub's documented
HTTP API and git-LFS. The token goes to the Hub alone: never to the storage that it names, never to the box.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import re
import threading
import time
from dataclasses import dataclass
from typing import Any, Iterator, Mapping, Sequence
from urllib.parse import quote, urljoin

from . import hub_location
from .failures import TenantFailure
from .hub_location import COMMIT, HubLocation
from .object_client import Listed, NoObject
from .object_requests import BUSY, DEADLINE, EXPIRED, UNREACHABLE, Patience, Reply, Request, Session, StoreProblem
from .roster import RosterFile

# The Hub takes this many objects in one batch, and 25,000 files in one commit (huggingface_hub's own limits).
BATCH_FILES = 256
COMMIT_FILES = 20_000
_PATIENCE_S = 3600.0
_LFS = {"Accept": "application/vnd.git-lfs+json", "Content-Type": "application/vnd.git-lfs+json"}
_JSON = {"Content-Type": "application/json"}
# What it is asked to choose from; its newer protocol, Xet, cannot be spoken with presigned URLs.
_TRANSFERS = ("basic", "multipart")
_NEXT = re.compile(r'<([^<>]+)>\s*;\s*rel="?next"?')
_HOPS = 5
_MOST_PAGES = 10_000
_SAFE = "Nothing was removed anywhere"


class Conflict(Exception):
    """The branch is no longer at the parent that a commit was made for."""


class NotThere(Exception):
    """The Hub does not hold what it was asked to verify; the text says what it answered."""


@dataclass(frozen=True)
class Upload:
    """What the Hub says about taking one object. ``parts`` is empty for one that goes in one request to ``href``."""

    href: str
    part_bytes: int = 0
    parts: tuple[str, ...] = ()
    verify: str = ""


class HubClient:
    """One folder of one repository. Every method raises TenantFailure when the Hub refuses or is not there."""

    def __init__(self, location: HubLocation, patience: Patience | None = None) -> None:
        self.location = location
        self.patience = patience or Patience(time.monotonic() + _PATIENCE_S)
        self._token = hub_location.token_of(location)
        self._sessions = threading.local()
        self._head = ""
        self.is_public = False

    # --- requests -------------------------------------------------------------------------------------------------

    @property
    def _session(self) -> Session:
        """Each thread's own connection."""
        if not hasattr(self._sessions, "one"):
            self._sessions.one = Session(self.patience)
        session: Session = self._sessions.one
        return session

    def _send(self, method: str, url: str, body: bytes | None = None, more: Mapping[str, str] | None = None) -> Reply:
        """Ask the Hub itself, with the token."""
        headers = {"User-Agent": "gpu-tenant", "Accept-Encoding": "identity", **(more or {})}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        if body is not None:
            headers["Content-Length"] = str(len(body))
        request = Request(
            method,
            hub_location.own_address(self.location, url),
            headers,
            (lambda: iter((body,))) if body is not None else None,
            redirects=True,
        )
        return self._session.send(request)

    def _ask(self, method: str, url: str, doing: str, body: Any = None, lfs: bool = False) -> Reply:
        """As :meth:`_send`, through redirects that stay on the Hub (a repository that was renamed)."""
        data = None if body is None else json.dumps(body).encode("utf-8")
        with self.speaking(doing):
            for _hop in range(_HOPS):
                reply = self._send(method, url, data, _LFS if lfs else _JSON)
                if reply.status == 200 or reply.status // 100 != 3:
                    return reply
                url = hub_location.own_address(self.location, urljoin(url, reply.headers.get("location", "")))
        raise self._failure("provider", f"it answers {doing} with one redirect after another", "Run the task again")

    def _json(self, method: str, url: str, doing: str, body: Any = None, lfs: bool = False) -> Any:
        return self._parsed(self._ask(method, url, doing, body, lfs), doing)

    def _parsed(self, reply: Reply, doing: str) -> Any:
        try:
            return json.loads(reply.body)
        except (ValueError, RecursionError):
            raise self._senseless(doing) from None

    def _senseless(self, doing: str) -> TenantFailure:
        fix = "Run the same task again; if it happens again, see what answers at that address"
        return self._failure("provider", f"its answer to {doing} makes no sense", fix)

    def _failure(self, kind: str, what: str, fix: str) -> TenantFailure:
        return TenantFailure(kind, f"{self.location.uri} at {self.location.where}: {what}", safe=_SAFE, fix=fix)

    @contextlib.contextmanager
    def speaking(self, doing: str) -> Iterator[None]:
        """Turn what the Hub refuses into a TenantFailure that names the fix, or into NoObject."""
        try:
            yield
        except StoreProblem as problem:
            raise self._refused(doing, problem) from None

    def _refused(self, doing: str, problem: StoreProblem) -> Exception:
        location, status = self.location, problem.status
        if problem.kind in (UNREACHABLE, BUSY, DEADLINE):
            fix = "See this machine's network and the Hub's rate limits, then run the same task again: it continues"
            return self._failure("unreachable", f"the controller did not get through to {doing} ({problem})", fix)
        if problem.code == "RevisionNotFound":
            what = f"{location.repository} has no such branch or commit any more ({doing})"
            fix = "If its history was rewritten or squashed, store the run there again; else correct the revision"
            return self._failure("evidence_missing", what, fix)
        if problem.code == "EntryNotFound":
            return NoObject(str(problem))
        if status == 401 or problem.code == "RepoNotFound":
            return self._failure("config", *self._no_repository(problem))
        if status == 403 and problem.kind != EXPIRED:
            what = f"this controller's token may not {doing} ({problem})"
            return self._failure(
                "config", what, f"Give it a token with write access to the contents of {location.repository}"
            )
        if status == 404:
            return NoObject(str(problem))
        fix = "See what it says, then run the same task again: it continues"
        return self._failure("provider", f"it refused to {doing} ({problem})", fix)

    def _no_repository(self, problem: StoreProblem) -> tuple[str, str]:
        repository = self.location.repository
        if not self._token:
            what = f"{repository} is private or not there, and this controller has no token ({problem})"
            return what, "Log in where Ansible runs (hf auth login), or set HF_TOKEN there"
        if problem.code != "RepoNotFound" and "credentials" in str(problem).lower():
            return f"the Hub does not accept the token ({problem})", "Log in again (hf auth login), or renew HF_TOKEN"
        what = f"there is no {self.location.kind} repository {repository}, or this token may not see it ({problem})"
        kind = "" if self.location.kind == "model" else f" --repo-type {self.location.kind}"
        return what, f"Make it (hf repos create {repository}{kind} --private), or give a token that may see it"

    # --- what is there --------------------------------------------------------------------------------------------

    def _api(self, *parts: str) -> str:
        place = self.location
        tail = "".join("/" + quote(part, safe="") for part in parts)
        return f"{place.endpoint_url}/api/{place.kind}s/{place.repository}{tail}"

    def _git(self) -> str:
        return f"{self.location.endpoint_url}/{self.location.named}"

    @property
    def head(self) -> str:
        """The commit that the revision is at, as it was first asked or as :meth:`refresh` found it."""
        return self._head or self.refresh()

    def refresh(self) -> str:
        """Ask anew what the revision is at."""
        revision, doing = self.location.revision, "read the repository"
        try:
            record = self._json("GET", self._api("revision", revision), doing)
        except NoObject as error:
            raise self._failure("config", *self._no_repository(StoreProblem("missing", str(error)))) from None
        commit = record.get("sha") if isinstance(record, dict) else None
        if not isinstance(commit, str) or not COMMIT.match(commit):
            raise self._senseless(doing)
        self.is_public = record.get("private") is False
        self._head = commit
        return commit

    def list_objects(self, commit: str = "") -> dict[str, Listed]:
        """Every file below the prefix at ``commit``, by its path there; the ETag is the SHA-256 of an LFS object."""
        found = {}
        for path, entry in self._tree(commit or self.head, "?recursive=true&expand=false"):
            try:
                found[path] = Listed(int(entry["size"]), str((entry.get("lfs") or {}).get("oid", "")))
            except (KeyError, TypeError, ValueError, AttributeError):
                raise self._senseless("list the files") from None
        return found

    def last_commit_of(self, path: str) -> str:
        """The commit in which a file right below the prefix came as it is now; the head where the Hub does not say."""
        for found, entry in self._tree(self.head, "?recursive=false&expand=true"):
            commit = (entry.get("lastCommit") or {}).get("id")
            if found == path and isinstance(commit, str) and COMMIT.match(commit):
                return commit
        return self.head

    def _tree(self, commit: str, query: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """(path below the prefix, what the Hub says of it) of every file that the tree shows, page by page."""
        doing, before = "list the files", self.location.prefix + "/"
        url = self._api("tree", commit, self.location.prefix) + query
        for _page in range(_MOST_PAGES):
            try:
                reply = self._ask("GET", url, doing)
            except NoObject:
                return
            page = self._parsed(reply, doing)
            for entry in page if isinstance(page, list) else (None,):
                if not isinstance(entry, Mapping) or not isinstance(entry.get("path"), str):
                    raise self._senseless(doing)
                if entry.get("type") == "file" and entry["path"].startswith(before):
                    yield entry["path"][len(before) :], entry
            following = _NEXT.search(reply.headers.get("link", ""))
            if following is None:
                return
            url = urljoin(url, following.group(1))
        raise self._senseless(doing)

    def read(self, path: str, version_id: str = "", most: int = 1 << 30) -> tuple[bytes, str]:
        """(bytes of a file, the commit it was read at). NoObject when it is not there."""
        commit = version_id or self.head
        return self._read(self.location.path(path), commit, most), commit

    def read_attributes(self, commit: str) -> str:
        """The repository's ``.gitattributes``; empty where there is none."""
        try:
            return self._read(".gitattributes", commit, 1 << 20).decode("utf-8")
        except NoObject:
            return ""
        except UnicodeDecodeError:
            what = "its .gitattributes is not text"
            raise self._failure("config", what, "Correct that file, then run the same task again") from None

    def _read(self, path: str, commit: str, most: int) -> bytes:
        with self.speaking(f"read {path}"):
            url, reply = self._resolve(path, commit)
            data = self._take(url, most) if url else reply.body
        if len(data) > most:
            raise self._failure("evidence_missing", f"{path} is absurdly large", "See who writes there")
        return data

    def _take(self, url: str, most: int) -> bytes:
        """The bytes at a signed address, no more than one beyond ``most``."""
        taken: list[bytes] = []

        def take(response: http.client.HTTPResponse) -> None:
            taken[:] = [response.read(most + 1)]
            if response.length and len(taken[0]) <= most:
                raise StoreProblem(BUSY, "the answer was cut short")

        self._session.send(Request("GET", url, {"Accept-Encoding": "identity"}), take)
        return taken[0]

    def presigned(self, operation: str, path: str, expires_s: int, **more: Any) -> str:
        """A URL that gives one file's bytes to whoever has it. How long, the Hub decides.

        :raises StoreProblem: there is no such file, or the Hub is busy or not there.
        """
        if operation != "get_object":
            raise ValueError(f"the Hub signs no {operation}")
        url, _reply = self._resolve(self.location.path(path), str(more.get("VersionId") or self.head))
        if not url:
            raise StoreProblem("refused", f"{path} is no LFS object there")
        return url

    def _resolve(self, path: str, commit: str) -> tuple[str, Reply]:
        """(the address of an LFS object's bytes, empty where the Hub itself has them; its answer)."""
        url = f"{self._git()}/resolve/{commit}/{quote(path)}"
        for _hop in range(_HOPS):
            reply = self._send("GET", url)
            if reply.status == 200:
                return "", reply
            target = urljoin(url, reply.headers.get("location", ""))
            if hub_location.origin(target) != hub_location.origin(self.location.endpoint_url):
                return hub_location.storage_address(self.location, target), reply
            url = target
        raise StoreProblem("refused", "one redirect after another")

    # --- what is sent ---------------------------------------------------------------------------------------------

    def uploads(self, files: Sequence[RosterFile]) -> dict[str, Upload]:
        """How to send those of ``files`` that the Hub does not hold yet, by SHA-256."""
        found = {}
        for oid, entry in self._batch("upload", files).items():
            actions = entry.get("actions")
            if "error" in entry:
                raise self._failure("provider", f"it takes no {oid[:12]}… ({_error(entry)})", "See what it says")
            if actions is not None:
                found[oid] = self._upload(actions, next(file for file in files if file.sha256 == oid))
        return found

    def absent(self, files: Sequence[RosterFile]) -> dict[str, str]:
        """Why the Hub cannot give those of ``files`` that it does not hold, by SHA-256."""
        answered = self._batch("download", files)
        return {oid: _error(entry) for oid, entry in answered.items() if "error" in entry}

    def _batch(self, operation: str, files: Sequence[RosterFile]) -> dict[str, Mapping[str, Any]]:
        """The Hub's answer for each of at most BATCH_FILES objects, exactly those that were asked for."""
        doing = f"{operation} to the repository" if operation == "upload" else "ask for LFS objects"
        body: dict[str, Any] = {"operation": operation, "transfers": list(_TRANSFERS), "hash_algo": "sha256"}
        body["objects"] = [{"oid": file.sha256, "size": file.bytes} for file in files]
        if not COMMIT.match(self.location.revision):
            body["ref"] = {"name": self.location.revision}
        try:
            answer = self._json("POST", f"{self._git()}.git/info/lfs/objects/batch", doing, body, lfs=True)
        except NoObject as error:
            raise self._failure("config", *self._no_repository(StoreProblem("missing", str(error)))) from None
        transfer = answer.get("transfer") if isinstance(answer, dict) else None
        if transfer not in (None, *_TRANSFERS):
            what = f"it wants the transfer {str(transfer)[:20]!a}, which cannot be signed for another machine"
            raise self._failure("provider", what, "Use a repository that takes git-LFS, or an S3 bucket")
        sizes = {file.sha256: file.bytes for file in files}
        objects = answer.get("objects") if isinstance(answer, dict) else None
        try:
            found = {entry["oid"]: entry for entry in objects or ()}
            fits = {oid: entry["size"] for oid, entry in found.items()} == sizes
        except (KeyError, TypeError):
            raise self._senseless(doing) from None
        if not fits:
            raise self._senseless(doing)
        return found

    def _upload(self, actions: Any, file: RosterFile) -> Upload:
        doing = "upload to the repository"
        try:
            upload, verify = actions["upload"], (actions.get("verify") or {}).get("href", "")
            header = upload.get("header") or {}
            part_bytes = int(header.get("chunk_size", 0))
            numbers = sorted(int(name) for name in header if name.isdigit()) if part_bytes else []
            parts = [header[str(number)] for number in numbers]
        except (KeyError, TypeError, ValueError, AttributeError):
            raise self._senseless(doing) from None
        verify = hub_location.own_address(self.location, verify) if verify else ""
        if not part_bytes:
            return Upload(hub_location.storage_address(self.location, upload.get("href")), verify=verify)
        if part_bytes < 0 or len(parts) != -(-file.bytes // part_bytes):
            raise self._senseless(doing)
        # With parts, the address itself is the Hub's, which puts them together.
        href = hub_location.own_address(self.location, upload.get("href"))
        signed = tuple(hub_location.storage_address(self.location, part) for part in parts)
        return Upload(href, part_bytes, signed, verify)

    def finish(self, upload: Upload, file: RosterFile, etags: Sequence[str]) -> None:
        """Put the parts of one object together and have the Hub verify it. NotThere when it does not hold it."""
        if upload.parts:
            parts = [{"partNumber": number, "etag": f'"{etag}"'} for number, etag in enumerate(etags, 1)]
            self._prove("complete an upload", upload.href, {"oid": file.sha256, "parts": parts})
        if upload.verify:
            self._prove("verify an upload", upload.verify, {"oid": file.sha256, "size": file.bytes})

    def _prove(self, doing: str, url: str, body: Mapping[str, Any]) -> None:
        try:
            self._ask("POST", url, doing, dict(body), lfs=True)
        except NoObject as error:
            raise NotThere(str(error)) from None
        except TenantFailure as failure:
            if failure.kind != "provider":
                raise
            raise NotThere(failure.what) from None

    def commit(self, operations: Sequence[Mapping[str, Any]], parent: str, summary: str) -> str:
        """One commit upon ``parent``; its id. Conflict when the branch has moved on since."""
        doing = "commit to the repository"
        header = {"key": "header", "value": {"summary": summary, "description": "", "parentCommit": parent}}
        lines = [json.dumps(line).encode("utf-8") + b"\n" for line in (header, *operations)]
        url, kind = self._api("commit", self.location.revision), {"Content-Type": "application/x-ndjson"}
        try:
            reply = self._send("POST", url, b"".join(lines), kind)
        except StoreProblem as problem:
            if problem.status in (409, 412):
                raise Conflict(str(problem)) from None
            refusal = self._refused(doing, problem)
            if isinstance(refusal, NoObject):
                refusal = self._failure("config", *self._no_repository(problem))
            raise refusal from None
        record = self._parsed(reply, doing) if reply.status == 200 else {}
        commit = record.get("commitOid") if isinstance(record, dict) else None
        if not isinstance(commit, str) or not COMMIT.match(commit):
            raise self._senseless(doing)
        self._head = commit
        return commit


def pointer(path: str, file: RosterFile) -> dict[str, Any]:
    """The line of a commit that puts an LFS object at ``path``."""
    value = {"path": path, "algo": "sha256", "oid": file.sha256, "size": file.bytes}
    return {"key": "lfsFile", "value": value}


def inline(path: str, data: bytes) -> dict[str, Any]:
    """The line of a commit that carries a small file itself."""
    return {"key": "file", "value": {"path": path, "encoding": "base64", "content": base64.b64encode(data).decode()}}


def _error(entry: Mapping[str, Any]) -> str:
    error = entry.get("error")
    told = error if isinstance(error, Mapping) else {}
    return ascii(f"{told.get('code', '')} {told.get('message', 'no reason given')}".strip())[1:-1][:200]
