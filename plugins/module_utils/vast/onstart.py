# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""An onstart script in the few characters that the market takes: as it is, else gzipped and in base64."""

from __future__ import annotations

import base64
import binascii
import gzip
import re
import zlib

LIMIT = 4048
_SHEBANG = re.compile(r"#![^\n]*\n")
_PACKED = re.compile(r"(#![^\n]*\n)?s=\$\(echo ([A-Za-z0-9+/=]+)\|base64 -d\|gzip -dc\)\|\|exit 1\neval \"\$s\"\n?\Z")
# What a packed script may unfold to; the market's limit holds far less.
_MOST_BYTES = 1024 * 1024


def as_sent(script: str) -> str:
    """The script as it goes into a create; longer than :data:`LIMIT` when even packed it does not fit."""
    if len(script) <= LIMIT:
        return script
    packed = base64.b64encode(gzip.compress(script.encode("utf-8"), 9, mtime=0)).decode("ascii")
    # The first line stays in front, because it names the shell; eval runs the rest in that very shell.
    shebang = _SHEBANG.match(script)
    first = shebang.group(0) if shebang else ""
    return f'{first}s=$(echo {packed}|base64 -d|gzip -dc)||exit 1\neval "$s"\n'


def as_written(sent: str) -> str:
    """The script that was sent; what is not packed is itself."""
    match = _PACKED.match(sent)
    if match is None:
        return sent
    try:
        unfolded = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(base64.b64decode(match.group(2)), _MOST_BYTES)
        return unfolded.decode("utf-8")
    except (binascii.Error, zlib.error, UnicodeDecodeError):
        return sent


def problem_of(script: str) -> str:
    """Why the market would not take it; empty when it would."""
    sent = len(as_sent(script))
    if sent <= LIMIT:
        return ""
    return (
        f"onstart has {len(script)} characters, {sent} when it is gzipped, and the market takes {LIMIT}: put the rest "
        "into the image or fetch it from the script"
    )
