# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The logs of a box, as the provider collects them: of its container, or of the host's own daemon.

The provider answers with the address of a file that appears a little later. Waiting and size are bounded; what is
longer loses its beginning, because the end tells what happened.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import Any, Sequence

from ..failures import TenantFailure
from ..masking import mask, printable
from ..rental_waiters import DeadlinePassed, wait_until
from ..rented_box import Box, current_and_superseded
from ..state_store import StateStore
from .api import VastClient
from .ghosts import listed_boxes

# Above this a log is not even read to its end.
MOST_READ = 256 * 1024 * 1024
_CHUNK = 64 * 1024


@dataclass(frozen=True)
class Wish:
    """Which log of which box. ``tail`` 0 is all lines; ``secrets`` are masked beside what looks like one."""

    project: str
    name: str
    provider_id: str = ""
    daemon: bool = False
    tail: int = 1000
    wanted: str = ""
    wait_s: float = 30.0
    max_bytes: int = 1024 * 1024
    secrets: Sequence[str] = ()


def read_log(client: VastClient, wish: Wish, store: StateStore | None = None) -> dict[str, Any]:
    """What ``vast_logs`` returns. TenantFailure when there is no such box or no log in time.

    :param store: what tells which boxes we destroyed, though a list may still show them.
    """
    _check(wish)
    box = _meant(client, wish, store)
    url = client.request_logs(box.provider_id, wish.tail, wish.wanted, wish.daemon)
    deadline = client.clock() + wish.wait_s
    try:
        data, truncated = wait_until(
            lambda: client.read_result(url, lambda answer: _end_of(answer, wish.max_bytes)),
            deadline,
            client.back_off(0.3, 3.0),
            client.clock,
            client.sleep,
        )
    except DeadlinePassed:
        raise TenantFailure(
            "provider",
            f"the log of instance {box.provider_id} did not appear within {wish.wait_s:.0f} s",
            box=wish.name,
            safe="it was only a question",
            fix="ask again, or for fewer lines (tail)",
        ) from None
    text = mask(printable(_decoded(data, truncated)), [client.key, *wish.secrets])
    return {
        "changed": False,
        "log": text,
        "lines": len(text.splitlines()),
        "truncated": truncated,
        "of": "daemon" if wish.daemon else "instance",
        "provider_id": box.provider_id,
        "generation": box.generation,
        "state": box.state,
    }


def _check(wish: Wish) -> None:
    if wish.tail < 0 or wish.max_bytes < 1 or wish.wait_s < 0:
        raise TenantFailure("config", "tail, max_bytes and wait_s are not negative", box=wish.name)


def _meant(client: VastClient, wish: Wish, store: StateStore | None) -> Box:
    """The box that counts, or the one with the given id; only boxes with the project's stamp have a log for us."""
    for _reading in range(2):
        current, superseded = current_and_superseded(listed_boxes(client, store), wish.project, wish.name)
        for box in [*([current] if current else []), *superseded]:
            if wish.provider_id in ("", box.provider_id):
                return box
    known = f" with the id {wish.provider_id}" if wish.provider_id else ""
    raise TenantFailure(
        "provider",
        f"the provider lists no box of this name and project{known}",
        box=wish.name,
        safe="nothing was asked of any other",
        fix="a destroyed box has no log any more; look at vast_instance_info for those that exist",
    )


def _end_of(answer: Any, most: int) -> tuple[bytes, bool]:
    """The last ``most`` bytes, and whether there was more before them."""
    kept, seen = b"", 0
    while seen < MOST_READ:
        chunk = answer.read(min(_CHUNK, MOST_READ - seen))
        if not chunk:
            break
        seen += len(chunk)
        kept = (kept + chunk)[-most:] if len(kept) + len(chunk) > most else kept + chunk
    return kept, seen > len(kept) or seen >= MOST_READ


def _decoded(data: bytes, truncated: bool) -> str:
    """As text; a log that lost its beginning starts with a whole line, if it has one."""
    text = codecs.decode(data, "utf-8", "replace")
    return text.partition("\n")[2] or text if truncated else text
