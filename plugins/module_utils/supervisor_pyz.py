# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Builds ``supervisor.pyz`` from ``module_utils/box``: the same sources give the same bytes on every machine.

Members are stored, not deflated, because zlib builds differ; times, owners and order are fixed.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile

PACKAGE = "tenant_box"
_EPOCH = (1980, 1, 1, 0, 0, 0)
# A zip keeps no bytecode, so whatever starts from it compiles all that it loads. Hence a copy beside it, by the hash of
# the sources; one that somebody else put there is not looked at.
_MAIN = """# SPDX-License-Identifier: MIT
import os
import sys

program = os.path.abspath(os.path.dirname(__file__))
unpacked = os.path.join(os.path.dirname(program), "unpacked-%(digest)s")
try:
    if os.stat(unpacked).st_uid == os.stat(program).st_uid:
        sys.path.insert(0, unpacked)
except OSError:
    pass

from %(package)s.cli import main

sys.exit(main(sys.argv[1:], [sys.executable, "-I", program], unpacked))
"""


def sources(folder: str | None = None) -> dict[str, bytes]:
    """Member name to content of everything that goes into the program."""
    folder = folder or os.path.join(os.path.dirname(os.path.abspath(__file__)), "box")
    names = sorted(name for name in os.listdir(folder) if name.endswith(".py") and name != "__init__.py")
    found = {f"{PACKAGE}/__init__.py": b""}
    for name in names:
        with open(os.path.join(folder, name), "rb") as stream:
            # A checkout with CR line ends must not change what runs on the box.
            found[f"{PACKAGE}/{name}"] = stream.read().replace(b"\r\n", b"\n")
    found["__main__.py"] = (_MAIN % {"package": PACKAGE, "digest": _digest(found)}).encode()
    return found


def _digest(found: dict[str, bytes]) -> str:
    """Names the sources, in 16 hexadecimal digits."""
    whole = hashlib.sha256()
    for name, content in sorted(found.items()):
        whole.update(f"{name}\0{len(content)}\0".encode() + content)
    return whole.hexdigest()[:16]


def build(folder: str | None = None) -> tuple[bytes, str]:
    """The program and its SHA-256 (hex). :param folder: the sources, default the installed collection's."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in sorted(sources(folder).items()):
            member = zipfile.ZipInfo(name, _EPOCH)
            member.create_system = 3
            member.external_attr = 0o644 << 16
            archive.writestr(member, content)
    data = buffer.getvalue()
    return data, hashlib.sha256(data).hexdigest()
