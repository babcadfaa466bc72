# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Measures one source over one route: fetches a small known file as the real tool would, and proves it by its hash."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import posixpath
import re
import shutil
import tempfile
import time
from dataclasses import dataclass
from typing import Any, Callable, Iterator, Mapping, NamedTuple
from urllib.parse import unquote, urlencode, urljoin, urlsplit

from ..box import http_get, http_wire
from ..box.bounded import run_bounded, search_path
from ..box.http_get import Call, HttpProblem
from ..box.http_wire import PROXIED
from .choice import BLOCKED, GOOD, NO_FILE, SLOW, STALLED, UNREACHABLE, WRONG, Sample

# What an index links to, with or without quotes.
_LINK = re.compile(r"""href\s*=\s*["']?([^"'\s>]+)""", re.IGNORECASE)
_LISTED = re.compile(r"^ ([0-9a-f]{64}) +([0-9]+) (\S+)$", re.MULTILINE)
_CHUNK = 64 * 1024
_MOST_BYTES = 256 * 1024 * 1024
_LONGEST_TOKEN = 1024 * 1024
# A package list this long tells speed; a distribution's are of 50 KB to 20 MB.
_LIST_BYTES = 50 * 1024
_MANIFESTS = ("application/vnd.docker.distribution.manifest.v2+json", "application/vnd.oci.image.manifest.v1+json")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True)
class Limits:
    """``stall_s``: without a byte for so long it stalls; ``within_s``: one source may take so long in all."""

    stall_s: float = 5.0
    within_s: float = 20.0


@dataclass(frozen=True)
class Source:
    """One source of a class. ``url`` is where it begins, ``probe`` what is fetched from it."""

    kind: str
    name: str
    url: str
    probe: Mapping[str, Any]


class Told(NamedTuple):
    """Headers of a request; ``secret`` ones go to nobody that it is redirected to."""

    headers: Mapping[str, str]
    secret: Mapping[str, str]


class _Refuted(Exception):
    """The measurement ended without the file: ``outcome`` says how."""

    def __init__(self, outcome: str, why: str) -> None:
        super().__init__(why)
        self.outcome = outcome


def measure(source: Source, route: str, limits: Limits) -> Sample:
    """What the source gives over the route. Nothing is raised: a source that fails is an answer."""
    begun = time.monotonic()
    try:
        count = _WAYS[source.probe.get("way", "file")](source, route, _Clock(limits))
    except _Refuted as refuted:
        return Sample(source.kind, source.name, source.url, route, refuted.outcome, why=str(refuted))
    except HttpProblem as problem:
        outcome = STALLED if "in time" in str(problem) else UNREACHABLE
        outcome = BLOCKED if problem.kind == http_get.BLOCKED else outcome
        return Sample(source.kind, source.name, source.url, route, outcome, why=str(problem))
    except (ValueError, RecursionError) as error:
        # An address in an answer that is none, or JSON that is deeper than anything.
        why = f"its answer makes no sense: {error}"
        return Sample(source.kind, source.name, source.url, route, UNREACHABLE, why=why)
    seconds = round(time.monotonic() - begun, 4)
    return Sample(source.kind, source.name, source.url, route, GOOD, seconds, count)


class _Clock:
    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._until = time.monotonic() + limits.within_s

    def left(self) -> float:
        left = self._until - time.monotonic()
        if left <= 0:
            raise _Refuted(SLOW, f"it was not done within {self.limits.within_s:g} s")
        return left

    def patience(self) -> float:
        return min(self.limits.stall_s, self.left())


_NOTHING = Told({}, {})


# --- ways of fetching -----------------------------------------------------------------------------------------


def _file(source: Source, route: str, clock: _Clock) -> int:
    """A file whose hash is known, at a path below the source."""
    direct = source.probe.get("direct_path") if source.name == "direct" else None
    path = str(direct or source.probe["path"])
    url = f"{source.url.rstrip('/')}/{path.lstrip('/')}"
    return _proven(url, str(source.probe["sha256"]), route, clock)


def _index(source: Source, route: str, clock: _Clock) -> int:
    """A wheel that the page of its project links to, as pip finds it."""
    project, wanted = str(source.probe["project"]), str(source.probe["file"])
    page = f"{source.url.rstrip('/')}/{project}/"
    text = _body(page, route, clock).decode("utf-8", "replace")
    links = [link.replace("&amp;", "&") for link in _LINK.findall(text)]
    found = [link for link in links if posixpath.basename(unquote(urlsplit(link).path)) == wanted]
    if not found:
        raise _Refuted(NO_FILE, f"its page of {project} does not have {wanted}")
    return _proven(urljoin(page, found[0]), str(source.probe["sha256"]), route, clock)


def _apt(source: Source, route: str, clock: _Clock) -> int:
    """A package list whose hash the release file tells. apt itself checks who signed that file."""
    base = f"{source.url.rstrip('/')}/dists/{source.probe['suite']}"
    release = _body(f"{base}/Release", route, clock).decode("utf-8", "replace")
    listed = [(int(size), path, sha256) for sha256, size, path in _LISTED.findall(release)]
    lists = [each for each in listed if re.search(r"/binary-[^/]+/Packages\.(xz|gz)\Z", each[1])]
    if not lists:
        raise _Refuted(NO_FILE, "its release file names no package lists")
    machine = [each for each in lists if f"/binary-{source.probe['arch']}/" in each[1]]
    enough = sorted(each for each in machine or lists if each[0] >= _LIST_BYTES)
    _size, path, sha256 = enough[0] if enough else max(lists)
    return _proven(f"{base}/{path}", sha256, route, clock)


def _git(source: Source, route: str, clock: _Clock) -> int:
    """A commit, fetched by git itself, which proves every object by its name."""
    git = shutil.which("git", path=search_path())
    if not git:
        raise _Refuted(UNREACHABLE, "there is no git on this box")
    url = f"{source.url.rstrip('/')}/{str(source.probe['path']).lstrip('/')}"
    commit = str(source.probe["commit"])
    with tempfile.TemporaryDirectory() as folder:
        own = {"GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_COUNT": "0"}
        environment = {**os.environ, "PATH": search_path(), "LC_ALL": "C", **own, **http_wire.for_child(url, route)}
        slow = ["-c", "http.lowSpeedLimit=1", "-c", f"http.lowSpeedTime={max(1, round(clock.limits.stall_s))}"]
        fetched = [*slow, "-C", folder, "fetch", "-q", url, str(source.probe["ref"])]
        for words in (["init", "-q", "--bare", folder], fetched):
            outcome = run_bounded([git, *words], clock.left(), environment)
            if outcome.rc is None:
                raise _Refuted(SLOW, outcome.why)
            if outcome.rc != 0:
                raise _Refuted(_of_git(outcome.out), f"git fetch ended with {outcome.rc}")
        found = run_bounded([git, "-C", folder, "rev-parse", "FETCH_HEAD"], clock.left(), environment).out.strip()
        if found != commit:
            raise _Refuted(WRONG, f"its {source.probe['ref']} is {found[:40]!a} and not {commit}")
        return sum(os.path.getsize(os.path.join(at, name)) for at, _dirs, names in os.walk(folder) for name in names)


def _registry(source: Source, route: str, clock: _Clock) -> int:
    """An image's manifest and its largest layer, each by the digest that names it, as a Docker daemon pulls them."""
    image, digest = str(source.probe["image"]), str(source.probe["sha256"])
    base = f"{source.url.rstrip('/')}/v2/"
    token = _pull_token(base, image, route, clock)
    pieces: list[bytes] = []
    told = Told({"Accept": ", ".join(_MANIFESTS)}, token)
    count = _proven(f"{base}{image}/manifests/sha256:{digest}", digest, route, clock, told, pieces.append)
    layer = _largest_layer(b"".join(pieces))
    if not layer:
        raise _Refuted(NO_FILE, f"sha256:{digest} is no manifest of one platform's {image}: it names no layers")
    return count + _proven(f"{base}{image}/blobs/{layer}", layer.partition(":")[2], route, clock, Told({}, token))


def _largest_layer(manifest: bytes) -> str:
    """The digest of it; empty where that is no manifest of an image."""
    known = json.loads(manifest)
    layers = known.get("layers") if isinstance(known, dict) else None
    sizes = {
        str(each["digest"]): int(each.get("size") or 0)
        for each in (layers if isinstance(layers, list) else [])
        if isinstance(each, dict) and _DIGEST.match(str(each.get("digest")))
    }
    return max(sizes, key=lambda digest: sizes[digest]) if sizes else ""


def _pull_token(base: str, image: str, route: str, clock: _Clock) -> Mapping[str, str]:
    """The header with which anybody may pull: a registry says at its door whether it wants one, and who gives it."""
    try:
        _body(base, route, clock)
        return {}
    except HttpProblem as problem:
        if problem.kind == http_get.MISSING:
            raise _Refuted(NO_FILE, f"it is no registry: {problem}") from problem
        if problem.kind != http_get.DENIED:
            raise
        told = dict(_PARAMETER.findall(problem.challenge))
        if not problem.challenge.lower().startswith("bearer ") or not told.get("realm"):
            raise _Refuted(NO_FILE, f"it lets nobody unknown in: {problem}") from problem
    realm = urljoin(base, told["realm"])
    if not realm.startswith(("https://", base[: base.index(":")] + "://")):
        raise _Refuted(NO_FILE, "it sends for its token to an address that anybody can listen to")
    asked = {"service": told.get("service", ""), "scope": f"repository:{image}:pull"}
    try:
        answer = json.loads(_token_body(f"{realm}{'&' if '?' in realm else '?'}{urlencode(asked)}", route, clock))
    except HttpProblem as problem:
        if problem.kind in (http_get.MISSING, http_get.DENIED, http_get.REFUSED):
            raise _Refuted(NO_FILE, f"it gives a token to nobody unknown: {problem}") from problem
        raise
    token = (answer.get("token") or answer.get("access_token")) if isinstance(answer, dict) else None
    if not isinstance(token, str):
        raise _Refuted(NO_FILE, "what it sends for its token gives none")
    return {"Authorization": f"Bearer {token}"}


def _of_git(text: str) -> str:
    """git says in words what happened: a server that has the references and not the objects lists only."""
    lowered = text.lower()
    if re.search(r"connect tunnel failed, response (403|405|407|451)", lowered):
        return BLOCKED
    if "unable to find" in lowered or "cannot obtain needed" in lowered or "bad object" in lowered:
        return NO_FILE
    return STALLED if "operation too slow" in lowered else UNREACHABLE


_WAYS = {"file": _file, "index": _index, "apt": _apt, "git": _git, "registry": _registry}
WAYS = tuple(_WAYS)


# --- the wire -------------------------------------------------------------------------------------------------


def _body(url: str, route: str, clock: _Clock) -> bytes:
    return b"".join(_pieces(url, route, clock))


def _token_body(url: str, route: str, clock: _Clock) -> bytes:
    """A token is short; whoever sends more has none."""
    found = b""
    for piece in _pieces(url, route, clock):
        found += piece
        if len(found) > _LONGEST_TOKEN:
            raise _Refuted(NO_FILE, f"what it sends for its token is longer than {_LONGEST_TOKEN} bytes")
    return found


def _proven(
    url: str,
    sha256: str,
    route: str,
    clock: _Clock,
    told: Told = _NOTHING,
    keep: Callable[[bytes], None] | None = None,
) -> int:
    """Bytes of the file at ``url``, which must have that hash. ``keep`` is given its pieces."""
    hasher, count = hashlib.sha256(), 0
    try:
        for piece in _pieces(url, route, clock, told):
            hasher.update(piece)
            count += len(piece)
            if keep:
                keep(piece)
    except HttpProblem as problem:
        if problem.kind in (http_get.MISSING, http_get.DENIED, http_get.REFUSED):
            raise _Refuted(NO_FILE, str(problem)) from problem
        raise
    if hasher.hexdigest() != sha256:
        raise _Refuted(WRONG, f"its file has the SHA-256 {hasher.hexdigest()} and not {sha256}")
    return count


@contextlib.contextmanager
def _opened(url: str, route: str, clock: _Clock, told: Told) -> Iterator[http_get.Answer]:
    try:
        with http_get.opened(Call(url, told.headers, told.secret, clock.patience(), route=route)) as answer:
            yield answer
    except HttpProblem as problem:
        # Without TLS the proxy answers in the place of the host; who refused is told by asking without it.
        if problem.kind == http_get.DENIED and route == PROXIED and url.startswith("http:"):
            raise _Refuted(BLOCKED, f"{problem} through the proxy") from problem
        raise


def _pieces(url: str, route: str, clock: _Clock, told: Told = _NOTHING) -> Any:
    count = 0
    with _opened(url, route, clock, told) as answer:
        while True:
            clock.left()
            try:
                piece = answer.stream.read1(_CHUNK)
            except (OSError, http.client.HTTPException) as error:
                if "timed out" in str(error):
                    raise _Refuted(STALLED, f"nothing came for {clock.limits.stall_s:g} s") from error
                raise http_get.unreachable(url, error) from error
            if not piece:
                break
            count += len(piece)
            if count > _MOST_BYTES:
                raise _Refuted(WRONG, f"it sends more than {_MOST_BYTES} bytes")
            yield piece
    rest = answer.headers.get("content-length", "")
    if rest.isdigit() and count < int(rest):
        raise _Refuted(STALLED, f"it was cut after {count} of {rest} bytes")
