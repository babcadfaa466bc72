# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""GPUs as the box sees them: there, healthy, and free of what others left in their memory.

Reports only, and kills nothing: in a container nvidia-smi lists processes of the host or none at all, so a pid says
nothing about whose memory it is. Memory that is held while none of our attempts lives is foreign, whoever holds it.
"""

from __future__ import annotations

import re
import shutil
import time
from dataclasses import dataclass
from typing import Any, Collection, NamedTuple

from .bounded import run_bounded, search_path

TIMEOUT_S = 20.0
NOT_ASKED = "the GPUs cannot be asked for faults"
NOT_INSTALLED = "nvidia-smi is not installed"
# nvidia-smi's exit codes for what this card or driver does not know or tell: a bad field, an operation that the card
# lacks, no permission, a function that the library lacks.
_NOT_KNOWN = frozenset([2, 3, 4, 13])
# What it writes in place of any value of a card that does not work. [N/A] and the like say nothing.
_GONE = frozenset(["[GPU is lost]", "[GPU requires reset]"])
# The same of what every card knows; of less common values it says so on cards that work.
_UNREADABLE = _GONE | {"[Unknown Error]"}
# A driver's own context and a display take some hundred MiB; a forgotten trainer takes gigabytes.
FOREIGN_MIB = 1024
# NVIDIA, "Xid Errors": double-bit ECC, page retirement failed, NVLink, fallen off the bus, contained and uncontained
# ECC, GSP timeout. The card or its host is at fault, and the same work on it fails again. (63 only records that a row
# or page will be replaced.)
FATAL_XIDS = frozenset([48, 64, 74, 79, 94, 95, 119])
_CORE = ("index", "uuid", "name", "memory.total", "memory.used", "driver_version")
_PLACE = ("uuid", "pci.bus_id")
# Cards and drivers that do not know a field refuse the whole query, so these are asked apart.
_ECC = ("ecc.errors.uncorrected.volatile.total",)
_ROWS = ("remapped_rows.pending", "remapped_rows.failure")
# A power limit (sw_power_cap) is no such reason: a card at work is at it all the time.
_SLOWDOWNS = ("hw_thermal_slowdown", "sw_thermal_slowdown", "hw_power_brake_slowdown")
_SLOWED_BY = ("heat", "heat", "its power supply, which asks for it")
# The second name is that of older drivers.
_REASONS = ("clocks_event_reasons", "clocks_throttle_reasons")
_LOAD = ("utilization.gpu", "utilization.memory", "clocks.sm", "clocks.max.sm", "power.draw", "power.limit")
_XID = re.compile(r"^\[\s*(?P<at>[0-9]+\.[0-9]+)\].*NVRM: Xid \((?P<card>[^)]*)\): (?P<code>[0-9]+)", re.MULTILINE)
_BUS_ID = re.compile(r"([0-9a-fA-F]+):([0-9a-fA-F]{2}):([0-9a-fA-F]{2})")


@dataclass(frozen=True)
class Gpu:
    """Memory in MiB, None where the driver does not say. ``broken``: what it says instead of a card that works."""

    index: int
    uuid: str
    name: str
    memory_mib: int | None
    used_mib: int | None
    driver: str = ""
    broken: str = ""


@dataclass(frozen=True)
class Reading:
    """``problem``: why nvidia-smi could not be asked; empty when it could. ``silent``: it did not answer in time."""

    gpus: tuple[Gpu, ...] = ()
    problem: str = ""
    silent: bool = False


class Unanswered(Exception):
    """A driver that was asked and gave no answer, or failed; the text says how. ``silent``: as of a reading."""

    def __init__(self, problem: str, silent: bool) -> None:
        super().__init__(problem)
        self.silent = silent


class _Answer(NamedTuple):
    """``problem``: why there are no rows; ``failed``: whether that is more than fields that are not known."""

    rows: list[list[str]]
    problem: str = ""
    silent: bool = False
    failed: bool = False


@dataclass(frozen=True)
class Load:
    """How hard a card works now: per cent of the last second, MHz and W. None where the driver does not say."""

    index: int
    busy: int | None
    memory_busy: int | None
    clock_mhz: int | None
    most_clock_mhz: int | None
    power_w: int | None
    most_power_w: int | None

    @property
    def is_hollow(self) -> bool:
        """Whether a kernel is on the card all the time, as utilisation has it, and yet next to nothing is done."""
        if self.busy is None or self.memory_busy is None or self.power_w is None or not self.most_power_w:
            return False
        return self.busy >= 90 and self.memory_busy <= 5 and self.power_w <= self.most_power_w * 0.3

    def in_words(self) -> str:
        return (
            f"GPU {self.index} is {self.busy} % busy by its utilisation, but draws {self.power_w} of "
            f"{self.most_power_w} W and uses its memory {self.memory_busy} % of the time: it waits more than it "
            "computes"
        )


@dataclass(frozen=True)
class Xid:
    """One line of the kernel's log: ``at`` in seconds since boot."""

    at: float
    card: str
    code: int


def read(timeout_s: float = TIMEOUT_S) -> Reading:
    answer = _query(_CORE, timeout_s)
    if answer.problem:
        return Reading(problem=answer.problem, silent=answer.silent)
    try:
        return Reading(tuple(_gpu(row) for row in answer.rows))
    except ValueError:
        return Reading(problem=f"nvidia-smi gave an answer that is none: {answer.rows[0][0][:80]!r}")


def _gpu(row: list[str]) -> Gpu:
    return Gpu(int(row[0]), row[1], row[2], _whole(row[3]), _whole(row[4]), row[5], _first(row, _UNREADABLE))


def _first(row: list[str], of: Collection[str]) -> str:
    return next((value for value in row if value in of), "")


def tool() -> str | None:
    """The path of nvidia-smi; None where there is none."""
    return shutil.which("nvidia-smi", path=search_path())


def _query(fields: tuple[str, ...], timeout_s: float, what: str = "gpu") -> _Answer:
    program = tool()
    if program is None:
        return _Answer([], NOT_INSTALLED, failed=True)
    outcome = run_bounded([program, f"--query-{what}={','.join(fields)}", "--format=csv,noheader,nounits"], timeout_s)
    if outcome.why:
        return _Answer([], f"nvidia-smi: {outcome.why}", silent=True, failed=True)
    if outcome.rc != 0:
        first = next((line.strip() for line in outcome.out.splitlines() if line.strip()), "")
        return _Answer([], f"nvidia-smi failed with {outcome.rc}: {first[:200]}", failed=outcome.rc not in _NOT_KNOWN)
    lines = [line for line in outcome.out.splitlines() if line.strip() and line.strip() != "No devices were found"]
    rows = [[value.strip() for value in line.split(",")] for line in lines]
    if any(len(row) != len(fields) for row in rows):
        return _Answer([], f"nvidia-smi gave an answer that is none: {lines[0][:80]!r}")
    return _Answer(rows)


def _whole(text: str) -> int | None:
    """A whole number, or None for ``[N/A]`` and the like."""
    match = re.match(r"([0-9]+)(\.[0-9]+)?( MiB)?\Z", text)
    return int(match.group(1)) if match else None


def refusals(wanted: dict[str, Any], reading: Reading, cards: Collection[str] | None = None) -> list[str]:
    """Why a cell that needs GPUs must not start now. ``wanted``: ``{required, count}``; nothing required, no words.

    :param cards: UUIDs of those that it uses; memory on others is none of its business. None: it may use any.
    """
    if not wanted.get("required"):
        return []
    if reading.problem:
        return [f"the run needs a GPU: {reading.problem}"]
    count = int(wanted.get("count") or 1)
    found = []
    if len(reading.gpus) < count:
        found.append(f"the run needs {count} GPUs, nvidia-smi reports {len(reading.gpus)}")
    return found + broken(reading, cards) + foreign_memory(reading, cards)


def broken(reading: Reading, cards: Collection[str] | None = None) -> list[str]:
    """Cards that are listed and do not work."""
    used = [gpu for gpu in reading.gpus if gpu.broken and (cards is None or gpu.uuid in cards)]
    return [_does_not_work(f"GPU {gpu.index} ({gpu.name})", gpu.broken) for gpu in used]


def foreign_memory(reading: Reading, cards: Collection[str] | None = None) -> list[str]:
    """Cards whose memory somebody holds. Only true words while none of our own attempts lives."""
    return [
        f"GPU {gpu.index} ({gpu.name}) has {gpu.used_mib} MiB in use, and none of it by us: a leftover process holds it"
        for gpu in reading.gpus
        if (cards is None or gpu.uuid in cards) and gpu.used_mib is not None and gpu.used_mib > FOREIGN_MIB
    ]


def faults(timeout_s: float = TIMEOUT_S, only: Collection[int] | None = None) -> list[str]:
    """What the driver itself calls broken. Fields that a card or driver does not know say nothing.

    :param only: indexes of the cards that are asked about; None: all.
    :raises Unanswered: nothing broken was found, and not everything could be asked.
    """
    found: list[str] = []
    unanswered: _Answer | None = None
    for fields, fault in ((_ECC, _ecc_fault), (_ROWS, _row_fault)):
        answer = _query(fields, timeout_s)
        asked = [(index, row) for index, row in enumerate(answer.rows) if only is None or index in only]
        found += [words for words in (fault(index, row) for index, row in asked) if words and words not in found]
        unanswered = unanswered or (answer if answer.failed else None)
        if answer.silent:
            break  # One that hangs is not asked twice.
    if unanswered and not found:
        raise Unanswered(unanswered.problem, unanswered.silent)
    return found


def _ecc_fault(index: int, row: list[str]) -> str:
    if row[0].isdigit() and int(row[0]) > 0:
        return f"GPU {index} has {row[0]} uncorrectable memory errors since its driver was loaded"
    return _does_not_work(f"GPU {index}", _first(row, _GONE))


def _row_fault(index: int, row: list[str]) -> str:
    if row[1].lower() in ("yes", "1"):
        return f"GPU {index} could not replace a broken row of its memory"
    return _does_not_work(f"GPU {index}", _first(row, _GONE))


def _does_not_work(card: str, answer: str) -> str:
    return f"{card} does not work: the driver answers {answer!r}" if answer else ""


def waiting_for_reset(timeout_s: float = TIMEOUT_S) -> list[str]:
    """Cards that will replace a row of their memory at the next reset. NVIDIA, "GPU Memory Error Management": with this
    flag set, running and new work is not affected. So it is a word and no refusal."""
    rows = _query(_ROWS, timeout_s).rows
    waiting = [index for index, row in enumerate(rows) if row[0].lower() in ("yes", "1")]
    return [f"GPU {index} replaces a row of its memory at its next reset; it works meanwhile" for index in waiting]


def throttling(timeout_s: float = TIMEOUT_S) -> list[str]:
    """Cards that slow down now, and for what. Only meaningful under load: an idle card's low clocks are no fault."""
    for reasons in _REASONS:
        answer = _query(tuple(f"{reasons}.{each}" for each in _SLOWDOWNS), timeout_s)
        if not answer.problem:
            return [
                f"GPU {index} slows down for {why}"
                for index, row in enumerate(answer.rows)
                for why in dict.fromkeys(why for why, answer in zip(_SLOWED_BY, row) if answer == "Active")
            ]
    return []


def load(timeout_s: float = TIMEOUT_S) -> list[Load]:
    """How hard each card works now; empty where the driver does not say. Utilisation alone may mean nothing."""
    return [Load(index, *map(_whole, row)) for index, row in enumerate(_query(_LOAD, timeout_s).rows)]


def utilisation(timeout_s: float = TIMEOUT_S) -> dict[str, int | None]:
    """Per cent of the last second in which each card, by its UUID, was at work; empty where the driver does not say."""
    return {row[0]: _whole(row[1]) for row in _query(("uuid", "utilization.gpu"), timeout_s).rows}


def compute_memory(timeout_s: float = TIMEOUT_S) -> dict[int, int]:
    """MiB of GPU memory by process id, as the driver counts processes: in a container these may be the host's ids."""
    rows = _query(("pid", "used_memory"), timeout_s, "compute-apps").rows
    found: dict[int, int] = {}
    for pid, used in ((_whole(row[0]), _whole(row[1])) for row in rows):
        if pid is not None and used is not None:
            found[pid] = found.get(pid, 0) + used
    return found


def parse_xids(log: str, since_s: float = 0.0) -> list[Xid]:
    """Xid lines of a kernel log at or after ``since_s``: older ones may be a previous tenant's.

    Bus ids hold hexadecimal letters (``PCI:0000:af:00``), and the code is what follows the bracket.
    """
    found = [Xid(float(hit["at"]), hit["card"], int(hit["code"])) for hit in _XID.finditer(log)]
    return [xid for xid in found if xid.at >= since_s]


def xids(since_s: float = 0.0, timeout_s: float = 5.0) -> list[Xid] | None:
    """Xids since ``since_s`` seconds after boot; None where the kernel's log is not for us, as in most containers."""
    program = shutil.which("dmesg", path=search_path())
    if program is None:
        return None
    # The ring of a busy host holds megabytes, and what counts is what was written last.
    outcome = run_bounded([program], timeout_s, newest=True)
    return parse_xids(outcome.out, since_s) if outcome.rc == 0 else None


def bus_ids(timeout_s: float = TIMEOUT_S) -> dict[str, str]:
    """Where each card sits, by its UUID; empty where the driver does not say."""
    return {row[0]: row[1] for row in _query(_PLACE, timeout_s)[0]}


def of_cards(found: Collection[Xid], cards: Collection[str], places: dict[str, str]) -> list[Xid]:
    """Those of ``found`` that are about these cards. All, where the place of one of them is not known.

    :param cards: UUIDs. :param places: as :func:`bus_ids` tells them.
    """
    own = {_slot(places.get(card, "")) for card in cards}
    return [xid for xid in found if not own or None in own or _slot(xid.card) in own | {None}]


def _slot(bus_id: str) -> tuple[int, ...] | None:
    """Domain, bus and device: nvidia-smi and the driver write them in digits of other lengths and cases."""
    match = _BUS_ID.search(bus_id)
    return tuple(int(part, 16) for part in match.groups()) if match else None


def uptime_s() -> float:
    """Seconds since the kernel booted, the clock of its log. Not /proc/uptime: in many containers that one counts from
    the start of the container, and what the driver logged for an earlier tenant would seem to be of now."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
