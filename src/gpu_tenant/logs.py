# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``gpu-tenant logs``: what a cell wrote, and what it writes. A box's words: no byte of them steers a terminal."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.box.names import UnsafeName, check_name
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure

from gpu_tenant.box_ssh import Endpoint, NoAnswer, known_hosts_of, run_ssh, ssh_command
from gpu_tenant.hosts import BoxHost
from gpu_tenant.observation import Observation, RunView
from gpu_tenant.observe import Observer
from gpu_tenant.one_line import one_line
from gpu_tenant.question import NO_SUPERVISOR, question
from gpu_tenant.strangers_values import TOO_MANY

# States of a run in which its trainer writes no more.
ENDED = ("done", "failed")
# A supervisor tells at most 256 KiB of a log at a time; as JSON a byte of it is six at most, and each line some more.
MOST_PIECE_BYTES = 4 * 1024 * 1024
_FIX = "look at it with: gpu-tenant status"
_NO_LOG = "what its supervisor answered is no log"


@dataclass(frozen=True)
class Piece:
    """A stretch of a log. ``attempt`` is 0 while there is none; ``offset`` is the byte in its log that comes next."""

    cell: str
    attempt: int
    offset: int
    text: str

    @property
    def place(self) -> str:
        return f"{self.attempt}:{self.offset}"


class CellLog:
    """The log of one cell on one box, by way of its supervisor."""

    def __init__(self, observer: Observer, host: BoxHost, control_dir: str, run_id: str, cell: str) -> None:
        self._observer, self._host, self._control_dir = observer, host, control_dir
        self.run_id, self._cell = run_id, cell
        self._endpoint: Endpoint | None = None

    def tail(self, lines: int) -> Piece:
        answer = self._ask("--tail", str(lines))
        found = answer.get("lines")
        kept = [str(line) for line in found] if isinstance(found, list) else []
        return self._piece(answer, "".join(f"{line}\n" for line in kept))

    def after(self, piece: Piece) -> Piece:
        """What was written since; the text is empty while that is nothing."""
        answer = self._ask("--after", piece.place)
        text = answer.get("text")
        return self._piece(answer, text if isinstance(text, str) else "")

    def _piece(self, answer: Mapping[str, Any], text: str) -> Piece:
        numbers = [answer.get(name) for name in ("attempt", "offset")]
        if not all(records.is_count(number) and number < TOO_MANY for number in numbers):
            raise self._failure("unreachable", "its supervisor's answer makes no sense", _FIX)
        return Piece(self._cell, int(answer["attempt"]), int(answer["offset"]), text)

    def _ask(self, *words: str) -> Mapping[str, Any]:
        verb = ["log", "--run", self.run_id, "--cell", self._cell, *words]
        # Asked of the provider once, and again when the box does not answer there: it may have another port by then.
        endpoint = self._endpoint or self._observer.endpoint(self._host.name)
        self._endpoint = None
        argv = ssh_command(self._host, endpoint, known_hosts_of(self._host), self._control_dir)
        try:
            done = run_ssh([*argv, question(self._host, verb)], MOST_PIECE_BYTES)
        except NoAnswer as error:
            fix = "try again; a running training is not touched by this"
            raise self._failure("unreachable", str(error), fix) from error
        if done.returncode == NO_SUPERVISOR:
            raise self._failure("config", "nothing is deployed on it", f"gpu-tenant deploy -l {self._host.name}")
        try:
            answer = json.loads(done.stdout)
        except (ValueError, RecursionError):
            answer = None
        told = answer if isinstance(answer, dict) else {}
        if not told or done.returncode != 0:
            said = str(told.get("error") or done.stderr.decode("utf-8", "replace").strip()[-300:])
            raise self._failure("unreachable", f"its log cannot be read: {one_line(said) or _NO_LOG}", _FIX)
        self._endpoint = endpoint
        return told

    def _failure(self, kind: str, what: str, fix: str) -> TenantFailure:
        return TenantFailure(kind, what, box=self._host.name, safe="nothing was changed", fix=fix)


def answered(seen: Observation) -> RunView | None:
    """The run that a box tells of, None when it knows none; TenantFailure when the box could not be asked."""
    if seen.contact == "answered":
        return seen.run
    kind = "config" if seen.contact in ("no_supervisor", "unpinned") else "unreachable"
    what = seen.problem or f"it is {seen.provider}"
    raise TenantFailure(kind, what, box=seen.box, safe="nothing was changed", fix=_FIX)


def which(view: RunView | None, box: str, cell: str) -> tuple[str, str]:
    """``(run, cell)`` to read: the cell that is at work, else the last one that ran, unless one is named."""
    if view is None:
        fix = f"start it: gpu-tenant train -l {box}; or name another with --run"
        raise TenantFailure("config", "its supervisor knows no such run", box=box, safe="nothing was changed", fix=fix)
    listed = view.raw.get("cells", [])
    names = [str(each.get("cell")) for each in listed]
    tried = [each for each in listed if each.get("attempt")]
    live = [each for each in tried if each.get("state") in ("running", "verifying", "copying")]
    chosen = cell or str(((live or tried or listed or [{}])[-1]).get("cell") or "")
    if chosen not in names:
        fix = f"it has: {', '.join(map(plain, names[:20])) or 'none'}"
        what = f"the run has no cell {chosen!r}" if chosen else "the run has no cells"
        raise TenantFailure("config", what, box=box, safe="nothing was changed", fix=fix)
    try:
        return check_name("run", view.raw.get("run_id")), check_name("cell", chosen)
    except UnsafeName as error:
        raise TenantFailure("config", str(error), box=box, safe="nothing was changed", fix=_FIX) from error


def follow(
    log: CellLog, first: Piece, state: Callable[[], str], wait: Callable[[], None], trouble: Callable[[str], None]
) -> Iterator[Piece]:
    """Every piece after ``first`` until the run has ended and all of it was read.

    :param state: the run's state by its supervisor, empty while the box does not answer.
    :param trouble: is told once when the box stops answering; a lost connection ends nothing.
    """
    piece, silent = first, False
    while True:
        # Asked before the log is: what a run wrote before it ended is there then.
        ended = state() in ENDED
        try:
            piece = log.after(piece)
        except TenantFailure as failure:
            if failure.kind not in ("unreachable", "provider"):
                raise
            if not silent:
                trouble(f"{failure.what}; still trying")
            silent = True
            wait()
            continue
        silent = False
        if piece.text:
            yield piece
        elif ended:
            return
        else:
            wait()


def plain(text: str) -> str:
    """``text`` for a terminal: letters of every language, tabs and line ends; all else is written as an escape."""
    return "".join(sign if sign.isprintable() or sign in "\t\n" else _escape(sign) for sign in text)


def _escape(sign: str) -> str:
    # A bar that redraws its line becomes lines.
    return "\n" if sign == "\r" else sign.encode("unicode_escape").decode("ascii")
