# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The proof that boxes can train together: every box runs this program at once, in the Python that trains.

First plain sockets: the box of rank 0 listens on the rendezvous port and every other one reaches it, or says why not.
Then a small all-reduce over the backend of the run, whose sum is known. Each step ends at a common deadline. The answer
is one marked line of JSON; :func:`main` is run from source, so this file imports nothing of the collection.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from typing import Any, Iterator

MARK = "tenant-proof:"
NUMBERS = 4096
ROUNDS = 5
# What the others need to say why they gave up, after the one that gives up first.
MARGIN_S = 3.0
_PAUSE_S = 0.2


class Failed(Exception):
    """The proof failed; ``waited``: another box is to blame."""

    def __init__(self, problem: str, waited: bool = False) -> None:
        super().__init__(problem)
        self.waited = waited


def prove(request: dict[str, Any]) -> dict[str, Any]:
    """``{problem, waited, port_s, reduce_ms}``. ``request``: rank, world, boxes, address, port, backend, nonce,
    within_s."""
    until = time.monotonic() + request["within_s"]
    found: dict[str, Any] = {"problem": "", "waited": False, "port_s": None, "reduce_ms": None}
    began = time.monotonic()
    try:
        if request["rank"] == 0:
            hold(request, until)
        else:
            reach(request, until - MARGIN_S)
        found["port_s"] = round(time.monotonic() - began, 3)
        found["reduce_ms"] = reduce_together(request, max(until - time.monotonic(), MARGIN_S))
    except Failed as failure:
        found.update(problem=str(failure), waited=failure.waited)
    return found


# --- the port -------------------------------------------------------------------------------------------------------


def hold(request: dict[str, Any], until: float) -> None:
    """Listen on the port until every other box has come, and tell all of them whether it has."""
    port = request["port"]
    try:
        listener = socket.create_server(("", port), backlog=64)
    except OSError as error:
        raise Failed(f"port {port} cannot be listened on: {os.strerror(error.errno or 0)}") from error
    with contextlib.ExitStack() as stack:
        stack.callback(listener.close)
        guests: dict[int, socket.socket] = {}
        while len(guests) < request["world"] - 1 and time.monotonic() < until - 2 * MARGIN_S:
            listener.settimeout(max(until - 2 * MARGIN_S - time.monotonic(), 0.01))
            with contextlib.suppress(OSError):
                guest = stack.enter_context(listener.accept()[0])
                rank = _rank_of(guest, request)
                if rank:
                    guests[rank] = guest
        absent = [box for rank, box in enumerate(request["boxes"]) if rank and rank not in guests]
        for guest in guests.values():
            with contextlib.suppress(OSError):
                guest.sendall(f"{','.join(absent) or 'go'}\n".encode())
        if absent:
            raise Failed(f"nothing came from {', '.join(absent)} on port {port} within the deadline", waited=True)


def _rank_of(guest: socket.socket, request: dict[str, Any]) -> int:
    """Which box a connection is from; 0 for a stranger."""
    guest.settimeout(MARGIN_S)
    with contextlib.suppress(OSError, ValueError):
        nonce, rank = guest.makefile().readline(200).split()
        if nonce == request["nonce"] and 0 < int(rank) < request["world"]:
            return int(rank)
    return 0


def reach(request: dict[str, Any], until: float) -> None:
    """Connect to the port of rank 0 until it answers, and wait for its word that all have come."""
    place = (request["address"], request["port"])
    why = "no answer"
    while time.monotonic() < until:
        try:
            with socket.create_connection(place, timeout=max(until - time.monotonic(), 0.01)) as link:
                link.sendall(f"{request['nonce']} {request['rank']}\n".encode())
                link.settimeout(max(until - time.monotonic(), 0.01))
                answer = link.makefile().readline(4096).strip()
        except OSError as error:
            why = error.strerror or str(error)
        else:
            if answer == "go":
                return
            if answer:
                raise Failed(f"it reached {request['boxes'][0]}, but {answer} did not", waited=True)
            why = "something else answers there"
        time.sleep(_PAUSE_S)
    raise Failed(f"it cannot reach {request['boxes'][0]} at {place[0]} port {place[1]}: {why}")


# --- the all-reduce -------------------------------------------------------------------------------------------------


def reduce_together(request: dict[str, Any], within_s: float) -> float:
    """Sum what every rank knows of its own; the milliseconds of one all-reduce of 16 KiB, the fastest of some."""
    backend = request["backend"]
    try:
        with _killed_after(within_s, f"the all-reduce over {backend} did not end within {within_s:.0f} s"):
            return _reduce(request, within_s)
    except Failed:
        raise
    except Exception as error:
        text = str(error).strip().splitlines() or [""]
        raise Failed(f"the all-reduce over {backend} failed: {type(error).__name__}: {text[0][:300]}") from error


def _reduce(request: dict[str, Any], within_s: float) -> float:
    import datetime

    import torch
    import torch.distributed as dist

    device = torch.device("cuda", 0) if request["backend"] == "nccl" else torch.device("cpu")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise Failed("backend nccl needs a GPU that torch can use, and this box has none")
    world = request["world"]
    dist.init_process_group(
        request["backend"],
        init_method=f"tcp://{request['address']}:{request['port']}",
        rank=request["rank"],
        world_size=world,
        timeout=datetime.timedelta(seconds=within_s),
    )
    times = []
    for _turn in range(ROUNDS):
        numbers = torch.full((NUMBERS,), float(request["rank"] + 1), device=device)
        began = time.monotonic()
        dist.all_reduce(numbers)
        total = numbers.sum().item()
        times.append(time.monotonic() - began)
        if total != NUMBERS * world * (world + 1) / 2:
            raise Failed(f"the all-reduce over {request['backend']} gave a wrong sum: {total}")
    dist.barrier()
    dist.destroy_process_group()
    return round(min(times) * 1000, 3)


@contextlib.contextmanager
def _killed_after(seconds: float, problem: str) -> Iterator[None]:
    """A collective may hang where no exception reaches it: say so and leave the process."""

    def leave() -> None:
        tell({"problem": problem, "waited": False, "port_s": None, "reduce_ms": None})
        os.kill(os.getpid(), signal.SIGKILL)

    timer = threading.Timer(seconds + MARGIN_S, leave)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def tell(answer: dict[str, Any]) -> None:
    sys.stdout.write("\n" + MARK + json.dumps(answer) + "\n")
    sys.stdout.flush()


def main() -> None:
    tell(prove(json.loads(sys.argv[1])))


if __name__ == "__main__":
    main()
