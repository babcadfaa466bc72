# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What an inventory said the last time, for as long as nothing changes that it was read from.

Ansible takes a second to read an inventory, of which a look at the boxes would take the most. So its answer is kept, in
the user's own cache folder, with the content hash of every file that it came from, and is taken only where all of them
hash the same: sources, the ``group_vars`` and ``host_vars`` beside them and here, profiles, every ansible.cfg that
could be meant, our own code and Ansible's; and where folder, environment and day are the same. What is asked of
somebody else (a dynamic source), what calls anything but the environment, and whatever holds a secret is not kept:
:mod:`gpu_tenant.inventory_purity`. Wrong would be worse than slow.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import stat
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

FORM = "gpu-tenant/inventory-memory/v1"
MOST_KEPT = 32
MOST_FILES, MOST_BYTES, MOST_DEPTH = 2000, 8 * 1024 * 1024, 8
VAULT = b"$ANSIBLE_VAULT"
# Of a shell or a terminal; nothing that an inventory is made of. What reads them by name is not kept.
FLEETING = frozenset(
    ("_", "OLDPWD", "SHLVL", "SSH_CLIENT", "SSH_CONNECTION", "SSH_TTY", "TERM", "COLUMNS", "LINES", "WINDOWID")
)


class TooMuch(Exception):
    """More than is worth hashing, or nothing that can be hashed."""


def digest(paths: Iterable[str]) -> str:
    """One hash of all that lies at ``paths``: content, names, what may be executed, and what is absent.

    :raises TooMuch: it is too much, or cannot be read.
    """
    whole = hashlib.sha256()
    for path, content in read(paths):
        whole.update(f"{path}\0{len(content)}\0".encode("utf-8", "surrogateescape") + content)
    return whole.hexdigest()


def read(paths: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Every file below ``paths`` with its content, in one order; folders and what is absent with a mark.

    :raises TooMuch: as :func:`digest`.
    """
    files = size = 0
    for path in sorted(set(paths)):
        for name, content in _below(path, MOST_DEPTH):
            files, size = files + 1, size + len(content)
            if files > MOST_FILES or size > MOST_BYTES:
                raise TooMuch(path)
            yield name, content


def _below(path: str, depth: int) -> Iterator[tuple[str, bytes]]:
    try:
        about = os.stat(path)
        if stat.S_ISDIR(about.st_mode):
            if not depth:
                raise TooMuch(path)
            # Python's own copy of what lies beside it.
            names = sorted(name for name in os.listdir(path) if name != "__pycache__")
            yield path, b"folder"
            for name in names:
                yield from _below(os.path.join(path, name), depth - 1)
        elif stat.S_ISREG(about.st_mode) and about.st_size <= MOST_BYTES:
            yield path, (b"x" if about.st_mode & 0o111 else b"-") + Path(path).read_bytes()
        else:
            raise TooMuch(path)
    except FileNotFoundError:
        yield path, b"absent"
    except OSError as error:
        raise TooMuch(path) from error


class Memory:
    """What was answered to one request.

    :param request: the limit, the sources and the extra variables.
    :param environment: of the process that reads the inventory.
    """

    def __init__(self, request: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        self._path = ""
        with contextlib.suppress(TooMuch, OSError, ValueError):
            home = environment.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
            if os.path.isabs(home):
                self._path = os.path.join(home, "gpu-tenant", "inventories", f"{_key(request, environment)}.json")

    def answer(self) -> dict[str, Any] | None:
        """The answer, where nothing has changed that it came from."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, TooMuch):
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as stream:
                about = os.fstat(stream.fileno())
                kept = json.loads(stream.read())
            ours = about.st_uid == os.geteuid() and not about.st_mode & 0o077
            if ours and kept["form"] == FORM and digest(kept["reads"]) == kept["digest"]:
                answer: dict[str, Any] = kept["answer"]
                return answer
        return None

    def keep(self, answer: dict[str, Any], reads: list[str], read_digest: str) -> None:
        """Keep ``answer`` for as long as ``reads`` hash to ``read_digest``. Where that fails, nothing is lost."""
        if not self._path:
            return
        folder = os.path.dirname(self._path)
        kept = {"form": FORM, "reads": reads, "digest": read_digest, "answer": answer}
        with contextlib.suppress(OSError):
            os.makedirs(folder, mode=0o700, exist_ok=True)
            descriptor, building = tempfile.mkstemp(prefix=".", suffix=".part", dir=folder)
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                    json.dump(kept, stream)
                os.replace(building, self._path)
            except BaseException:
                os.unlink(building)
                raise
            _forget_oldest(folder)


def _forget_oldest(folder: str) -> None:
    found = sorted(Path(folder).glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in found[MOST_KEPT:]:
        path.unlink(missing_ok=True)


def _key(request: Mapping[str, Any], environment: Mapping[str, str]) -> str:
    """What must be the same before any file is asked."""
    home = os.path.expanduser("~")
    configs = [
        os.path.expanduser(environment.get("ANSIBLE_CONFIG") or ""),
        "ansible.cfg",
        f"{home}/.ansible.cfg",
        "/etc/ansible/ansible.cfg",
    ]
    named = [_found(word[1:]) for word in request["extra_vars"] if word.startswith("@")]
    code = [os.path.dirname(os.path.abspath(__file__)) + f"/{name}.py" for name in ("hosts", "inventory_purity")]
    ansible = _folder_of("ansible")
    told = {
        "form": FORM,
        "request": dict(request),
        "here": os.getcwd(),
        "user": os.geteuid(),
        # A profile may be out of date from tomorrow on.
        "day": time.strftime("%Y-%m-%d", time.gmtime()),
        "environment": sorted(pair for pair in environment.items() if pair[0] not in FLEETING),
        "python": [sys.version, sys.executable, sys.path],
        "ansible": [ansible, digest([f"{ansible}/release.py"])],
        "read": digest([os.path.abspath(path) for path in (*configs, *named) if path] + code + [_plugins()]),
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()


def _found(path: str) -> str:
    """A file of variables as Ansible finds it. TooMuch where it is not there, or is found in a way that is not known
    here."""
    found = os.path.abspath(os.path.expanduser(os.path.expandvars(path)))
    if not os.path.isfile(found):
        raise TooMuch(path)
    return found


def _folder_of(package: str) -> str:
    """Where a package lies, without importing it."""
    found = importlib.util.find_spec(package)
    folders = list(found.submodule_search_locations or ()) if found else []
    if not folders:
        raise TooMuch(package)
    return folders[0]


def _plugins() -> str:
    """The inventory plugins of the collection that this program uses."""
    from ansible_collections.tenant.gpu.plugins import module_utils

    return os.path.join(os.path.dirname(next(iter(module_utils.__path__))), "inventory")
