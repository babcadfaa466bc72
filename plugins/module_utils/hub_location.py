# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A folder in a repository of the Hugging Face Hub: its address, its token, and which hosts may be told what.

The address is spelled as ``huggingface_hub``'s file system spells it, and the token is looked for where that library
looks for it, so whoever is logged in with ``hf auth login`` need set nothing up.
"""

from __future__ import annotations

import configparser
import ipaddress
import os
import re
from dataclasses import dataclass
from typing import Any, Mapping
from urllib.parse import quote, unquote, urlsplit

from .box.names import UnsafeName, check_relative_path
from .failures import TenantFailure

DEFAULT_ENDPOINT = "https://huggingface.co"
SCHEME = "hf://"
# What the Hub calls a kind of repository in its API, and what stands before its name in an address.
KINDS = {"dataset": "datasets/", "model": ""}
COMMIT = re.compile(r"[0-9a-f]{40}\Z")
_NAME = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?\Z")
_REVISION = re.compile(r"(?!.*(?:\.\.|//|/\.|\.lock(?:/|\Z)))[A-Za-z0-9_][A-Za-z0-9._/-]{0,200}(?<![/.])\Z")
_OTHERS = {
    "spaces": "a Space, which runs what is committed to it",
    "kernels": "a repository of kernels, which are run",
    "buckets": "a bucket of the Hub, which keeps no versions and no git-LFS objects",
}
# A pull request's ref is the only one with a slash that the library takes unquoted.
_PULL_REQUEST = re.compile(r"refs/(?:pr/[0-9]+|convert/[A-Za-z0-9_.-]+)")
# The prefix stands in .gitattributes, where other characters would be patterns.
_PREFIX = re.compile(r"[A-Za-z0-9._+=@/-]+\Z")
_TOKEN = re.compile(r"[\x21-\x7e]{1,4096}\Z")
_SAFE = "Nothing was transferred"
_WRITE_IT = (
    "Write hf://datasets/owner/repository/prefix, or hf://owner/repository/prefix for a model repository, with a "
    "prefix of its own for each run"
)


@dataclass(frozen=True)
class HubLocation:
    """A folder in a repository. ``profile`` names a token that ``hf auth login`` keeps; empty takes the current one."""

    kind: str
    repository: str
    prefix: str
    revision: str = "main"
    endpoint_url: str = DEFAULT_ENDPOINT
    profile: str = ""

    @property
    def uri(self) -> str:
        at = "" if self.revision == "main" else f"@{quote(self.revision, safe='')}"
        return f"{SCHEME}{self.named}{at}/{self.prefix}"

    @property
    def named(self) -> str:
        """The repository as it stands in an address."""
        return KINDS[self.kind] + self.repository

    @property
    def where(self) -> str:
        """The Hub's name for people."""
        return self.endpoint_url

    @property
    def reading_fix(self) -> str:
        return f"Give the controller a token that may read {self.repository}"

    def path(self, path: str) -> str:
        return f"{self.prefix}/{path}"

    def as_copy(self) -> dict[str, str]:
        """The keys of a receipt's copy that say where the files are; the token is never among them."""
        more = {"endpoint_url": "" if self.endpoint_url == DEFAULT_ENDPOINT else self.endpoint_url}
        more["profile"] = self.profile
        return {"uri": self.uri, **{name: value for name, value in more.items() if value}}


def is_uri(text: object) -> bool:
    return isinstance(text, str) and text.startswith(SCHEME)


def locate(uri: object, settings: Mapping[str, Any] | None = None) -> HubLocation:
    """The location that ``uri`` and the option ``object_store`` name. TenantFailure when they make no sense."""
    options = settings or {}
    for name in ("region", "addressing"):
        if options.get(name) not in (None, "", "auto"):
            raise unusable(f"object_store.{name} is of S3, and {str(uri)[:200]!a} is on the Hub", "Leave it out")
    rest = uri[len(SCHEME) :] if isinstance(uri, str) and is_uri(uri) else ""
    first = rest.partition("/")[0]
    if first in _OTHERS:
        raise unusable(f"{str(uri)[:200]!a} names {_OTHERS[first]}", _WRITE_IT)
    kind = "dataset" if first == "datasets" else "model"
    rest = rest[len(first) + 1 :] if first in ("datasets", "models") else rest
    try:
        repository, revision, prefix = _parts(rest)
    except UnsafeName as error:
        raise unusable(f"{str(uri)[:200]!a}: {error}", _WRITE_IT) from error
    endpoint = str(options.get("endpoint_url") or os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
    _check_endpoint(endpoint)
    return HubLocation(kind, repository, prefix, revision, endpoint, str(options.get("profile") or ""))


def _parts(rest: str) -> tuple[str, str, str]:
    """(repository, revision, prefix) of ``owner/name[@revision]/prefix``."""
    owner, _slash, rest = rest.partition("/")
    named, at, after = rest.partition("@") if "@" in rest.partition("/")[0] else ("", "", "")
    if at:
        pull_request = _PULL_REQUEST.match(after)
        revision = pull_request.group(0) if pull_request else after.partition("/")[0]
        prefix = after[len(revision) :].lstrip("/")
        revision = unquote(revision)
    else:
        named, _slash, prefix = rest.partition("/")
        revision = "main"
    if not _NAME.match(owner) or not _NAME.match(named):
        raise UnsafeName("it names no repository")
    if not _REVISION.match(revision):
        raise UnsafeName("its revision is not a usable name")
    prefix = check_relative_path(prefix.rstrip("/"))
    if not _PREFIX.match(prefix) or prefix.partition("/")[0] in (".git", ".gitattributes", "README.md"):
        raise UnsafeName("its prefix may have letters, digits and . _ + = @ / - only, and is no file of the repository")
    return f"{owner}/{named}", revision, prefix


def unusable(what: str, fix: str) -> TenantFailure:
    return TenantFailure("config", what, safe=_SAFE, fix=fix)


# --- hosts --------------------------------------------------------------------------------------------------------


def _check_endpoint(endpoint: str) -> None:
    if not _is_guarded(endpoint) or urlsplit(endpoint).query or urlsplit(endpoint).fragment:
        what = f"endpoint_url {endpoint[:200]!a} is no address of a Hub"
        raise unusable(what, "Write https://host: the token goes there, so it is never sent unencrypted")


def _is_guarded(url: str) -> bool:
    """Whether ``url`` is https, or http that does not leave this machine, without a name or password in it."""
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname or "", parts.port
    except ValueError:
        return False
    if "@" in parts.netloc or not re.match(r"[A-Za-z0-9.:\[\]-]+\Z", parts.netloc):
        return False
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)))


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.lower()


def own_address(location: HubLocation, url: object) -> str:
    """``url`` if the token may go there: it is on the Hub itself. A mirror's answers may name the Hub it mirrors."""
    text = url if isinstance(url, str) else ""
    if text == DEFAULT_ENDPOINT or text.startswith(DEFAULT_ENDPOINT + "/"):
        text = location.endpoint_url + text[len(DEFAULT_ENDPOINT) :]
    if not _is_guarded(text) or origin(text) != origin(location.endpoint_url):
        raise _foreign(location, text, "sends the controller to")
    return text


def storage_address(location: HubLocation, url: object) -> str:
    """``url`` if bytes may be sent there or taken from there: https, or loopback where the Hub itself is on loopback.

    Nothing but the URL's own signature is ever sent there.
    """
    text = url if isinstance(url, str) else ""
    if not _is_guarded(text) or (origin(text)[0] == "http" and origin(location.endpoint_url)[0] != "http"):
        raise _foreign(location, text, "names for the bytes")
    return text


def _foreign(location: HubLocation, url: str, verb: str) -> TenantFailure:
    try:
        parts = urlsplit(url)
        named = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    except ValueError:
        named = "no address"
    return TenantFailure(
        "provider",
        f"{location.where} {verb} {named[:200]!a}, which is not to be trusted with that",
        safe="Nothing was sent there",
        fix="See whether object_store.endpoint_url is the Hub that you mean, and who stands between",
    )


# --- the token ----------------------------------------------------------------------------------------------------


def token_of(location: HubLocation, environment: Mapping[str, str] | None = None) -> str:
    """The token that this controller has, empty for none. TenantFailure when what is there is not one."""
    names = os.environ if environment is None else environment
    home = names.get("HF_HOME") or os.path.join(names.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    if location.profile:
        text = _stored_token(os.path.join(os.path.expanduser(home), "stored_tokens"), location.profile)
    else:
        text = names.get("HF_TOKEN") or names.get("HUGGING_FACE_HUB_TOKEN") or ""
        text = text or _read(os.path.expanduser(names.get("HF_TOKEN_PATH") or os.path.join(home, "token")))
    text = text.strip()
    if text and not _TOKEN.match(text):
        raise unusable("the token of the Hub that is set here is not one", "Log in again: hf auth login")
    return text


def _stored_token(path: str, profile: str) -> str:
    stored = configparser.ConfigParser(interpolation=None)
    try:
        stored.read_string(_read(path))
        return stored[profile]["hf_token"]
    except (configparser.Error, KeyError):
        what = f"there is no token named {profile!a} here"
        raise unusable(what, "See hf auth list, and name one of its tokens in object_store.profile") from None


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read(65536)
    except (OSError, UnicodeDecodeError):
        return ""
