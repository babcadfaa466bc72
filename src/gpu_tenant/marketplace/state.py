# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a market remembers between two runs of its server."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure

from .billing import Segment, Traffic
from .fault_memory import FaultMemory, holds_as_list, holds_from_list, memory_as_dict, memory_from_dict
from .holds import Holds
from .instances import Instance, Key, Phase
from .lambda_cloud.terms import terms_from_dict as vm_from_dict
from .paperspace.terms import terms_from_dict as core_from_dict
from .price_rises import PriceRise
from .runpod.terms import terms_from_dict as pod_from_dict
from .volumes import Volume, volume_from_dict

SCHEMA = 1
FIRST_INSTANCE_ID = 31_000_001
# Changes are appended to a journal until it is so long; then the whole state is written again.
JOURNAL_BYTES = 4_000_000


@dataclass
class MarketState:
    """Everything that has to survive; ids are counted here so that none is ever used twice."""

    seed: int = 0
    now: float = 0.0
    next_id: int = FIRST_INSTANCE_ID
    next_key_id: int = 500_001
    instances: dict[int, Instance] = field(default_factory=dict)
    keys: tuple[Key, ...] = ()
    raised: dict[int, float] = field(default_factory=dict)
    volumes: dict[int, Volume] = field(default_factory=dict)
    rises: dict[int, PriceRise] = field(default_factory=dict)
    paid_in: float = 0.0
    unpaid_since: float | None = None
    faults: FaultMemory | None = None
    holds: Holds = field(default_factory=Holds)
    secrets: dict[str, str] = field(default_factory=dict)
    profile: dict[str, Any] = field(default_factory=dict)
    templates: dict[int, dict[str, Any]] = field(default_factory=dict)
    scripts: dict[int, dict[str, Any]] = field(default_factory=dict)

    def take_id(self) -> int:
        taken = self.next_id
        self.next_id += 1
        return taken

    def take_key_id(self) -> int:
        taken = self.next_key_id
        self.next_key_id += 1
        return taken


class StateDirectory:
    """The market's directory, held by one server at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None
        self._texts: dict[int, tuple[Instance, str]] = {}
        self._series = ""
        self._room = 0

    @property
    def boxes(self) -> Path:
        return self.path / "boxes"

    @property
    def volumes(self) -> Path:
        return self.path / "volumes"

    @property
    def _file(self) -> Path:
        return self.path / "market.json"

    @property
    def _journal(self) -> Path:
        return self.path / "market.journal"

    def acquire(self) -> None:
        """TenantFailure (config) when another server has it or it cannot be written."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.path.chmod(0o700)
            lock = (self.path / "lock").open("a+", encoding="ascii")
        except OSError as reason:
            raise TenantFailure(
                "config",
                f"the marketplace cannot write its state to {self.path}: {reason.strerror}",
                safe="Nothing was started",
                fix="Choose another directory with --state",
            ) from reason
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as held:
            lock.close()
            raise TenantFailure(
                "config",
                f"another marketplace is serving the state in {self.path}",
                safe="Nothing was started",
                fix="End that one, or choose another directory with --state",
            ) from held
        self._lock = lock

    def release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def load(self, seed: int) -> MarketState:
        """The remembered state, or a new one. TenantFailure (config) when it is of another seed or unreadable."""
        try:
            text = self._file.read_text(encoding="utf-8")
        except FileNotFoundError:
            return MarketState(seed=seed)
        try:
            state = state_from_dict(self._with_journal(json.loads(text)))
        except (ValueError, KeyError, TypeError) as reason:
            raise TenantFailure(
                "config",
                f"{self._file} is not a marketplace's state: {reason}",
                safe="It was left as it is",
                fix="Choose another directory with --state",
            ) from reason
        if state.seed != seed:
            raise TenantFailure(
                "config",
                f"the market in {self.path} was drawn from seed {state.seed}, not {seed}",
                safe="It was left as it is",
                fix=f"Start it with --seed {state.seed}, or choose another directory with --state",
            )
        return state

    def save(self, state: MarketState) -> None:
        """The whole state, durable on return."""
        self.write(self.text_of(state))

    def text_of(self, state: MarketState) -> str:
        """The whole state in words. Only instances that changed are put into words again."""
        self._texts = {one.id: self._text_of(one) for one in state.instances.values()}
        self._series = secrets.token_hex(8)
        rest = {**_rest_of(state), "series": self._series}
        listed = ",\n".join(text for _instance, text in self._texts.values())
        return f'{json.dumps(rest)[:-1]}, "instances": [\n{listed}\n]}}\n'

    def write(self, text: str) -> None:
        """Put a state's text in place of the one before; durable on return. One caller at a time."""
        self._room = 0
        fresh = self._file.with_suffix(".new")
        with fresh.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        fresh.chmod(0o600)
        fresh.replace(self._file)
        self._journal.unlink(missing_ok=True)
        self._room = JOURNAL_BYTES

    def entry_of(self, state: MarketState, changed: Iterable[int]) -> str | None:
        """What changed since the last write, in words; None when only a :meth:`write` of everything will do."""
        if self._room <= 0:
            return None
        changes = [asdict(state.instances[number]) for number in sorted(changed)]
        return json.dumps({**_rest_of(state), "series": self._series, "instances": changes}) + "\n"

    def append(self, entry: str) -> None:
        """Write down one :meth:`entry_of` beside the state; durable on return. One caller at a time.

        After a failure only a :meth:`write` will do, for an entry may be there by half.
        """
        left, self._room = self._room - len(entry), 0
        journal = os.open(self._journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with open(journal, "w", encoding="utf-8") as stream:
            stream.write(entry)
            stream.flush()
            os.fsync(stream.fileno())
        self._room = left

    def _with_journal(self, data: dict[str, Any]) -> dict[str, Any]:
        """A written state with the entries beside it. ValueError, KeyError or TypeError for one that is broken."""
        try:
            lines = self._journal.read_text(encoding="utf-8").split("\n")
        except FileNotFoundError:
            return data
        # A line without an end was never answered for: the server died while it wrote it.
        entries = [json.loads(line) for line in lines[:-1]]
        instances = {one["id"]: one for one in data["instances"]}
        for entry in entries:
            # A journal outlives its state when the server died between the next state's writing and its removal.
            if entry["series"] == data["series"]:
                instances.update((one["id"], one) for one in entry["instances"])
                data = {**data, **entry}
        return {**data, "instances": list(instances.values())}

    def _text_of(self, instance: Instance) -> tuple[Instance, str]:
        known = self._texts.get(instance.id)
        if known is not None and known[0] is instance:
            return known
        return instance, json.dumps(asdict(instance))


def _rest_of(state: MarketState) -> dict[str, Any]:
    """All but the instances."""
    rest = state_as_dict(replace(state, instances={}))
    del rest["instances"]
    return rest


def state_as_dict(state: MarketState) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "seed": state.seed,
        "now": state.now,
        "next_id": state.next_id,
        "next_key_id": state.next_key_id,
        "instances": [asdict(one) for one in state.instances.values()],
        "keys": [asdict(key) for key in state.keys],
        "secrets": dict(state.secrets),
        "profile": dict(state.profile),
        "templates": [dict(one) for one in state.templates.values()],
        "scripts": [dict(one) for one in state.scripts.values()],
        "raised": {str(machine): price for machine, price in state.raised.items()},
        "volumes": [asdict(one) for one in state.volumes.values()],
        "rises": [asdict(one) for one in state.rises.values()],
        "paid_in": state.paid_in,
        "unpaid_since": state.unpaid_since,
        "faults": memory_as_dict(state.faults),
        "holds": holds_as_list(state.holds),
    }


def state_from_dict(data: dict[str, Any]) -> MarketState:
    """ValueError, KeyError or TypeError for anything that :func:`state_as_dict` did not write."""
    if data["schema"] != SCHEMA:
        raise ValueError(f"schema {data['schema']!r}, this release reads {SCHEMA}")
    instances = [_instance_from_dict(one) for one in data["instances"]]
    return MarketState(
        seed=data["seed"],
        now=data["now"],
        next_id=data["next_id"],
        next_key_id=data["next_key_id"],
        instances={one.id: one for one in instances},
        keys=tuple(Key(**key) for key in data["keys"]),
        # States from before accounts had these have none.
        secrets=data.get("secrets", {}),
        profile=data.get("profile", {}),
        templates={one["id"]: one for one in data.get("templates", [])},
        scripts={one["id"]: one for one in data.get("scripts", [])},
        raised={int(machine): price for machine, price in data["raised"].items()},
        # States from before there were volumes have none.
        volumes={one["id"]: volume_from_dict(one) for one in data.get("volumes", [])},
        rises={one["id"]: PriceRise(**one) for one in data.get("rises", [])},
        paid_in=data.get("paid_in", 0.0),
        unpaid_since=data.get("unpaid_since"),
        # Nor did faults outlive a process.
        faults=memory_from_dict(data.get("faults")),
        holds=holds_from_list(data.get("holds", [])),
    )


def _instance_from_dict(data: dict[str, Any]) -> Instance:
    parts = {
        **data,
        "phase": Phase(data["phase"]),
        "ports": tuple(data["ports"]),
        "args": tuple(data["args"]),
        "keys": tuple(Key(**key) for key in data["keys"]),
        "compute": tuple(Segment(**segment) for segment in data["compute"]),
        # States from before traffic was billed have none.
        "traffic": tuple(Traffic(**one) for one in data.get("traffic", ())),
        "earlier_disk": tuple(Segment(**one) for one in data.get("earlier_disk", ())),
        "pod": pod_from_dict(data.get("pod")),
        "vm": vm_from_dict(data.get("vm")),
        "core": core_from_dict(data.get("core")),
        "deposits": tuple((at, amount) for at, amount in data.get("deposits", ())),
    }
    return Instance(**parts)
