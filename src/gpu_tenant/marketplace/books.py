# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The market's books: its state, its machines and its time, under one lock.

Whoever changes something holds the lock, puts whole instances back and saves. Engines are never called meanwhile.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from . import instances, offers
from .clock import MarketClock
from .config import MarketplaceConfig
from .engines.base import free_ports
from .holds import Holds
from .instances import Instance
from .offers import Machine
from .refusals import MarketError, no_such_offer
from .state import MarketState, StateDirectory

# How far a machine's next offer is from its last; more than there are ids of one catalogue.
OFFERED_ANEW = 10_000_000


class Books:
    """:param clock: in place of the wall's."""

    def __init__(self, config: MarketplaceConfig, directory: StateDirectory, clock: MarketClock | None = None) -> None:
        self.config = config
        self.directory = directory
        self.state = directory.load(config.seed)
        self.clock = clock or MarketClock(config.speed, self.state.now)
        self.lock = threading.RLock()
        self._writing = threading.Lock()
        self._unwritten = False
        self._unwritten_ids: set[int] = set()
        self.changes = 0
        self._by_offer: dict[int, Machine] | None = None
        self.moved: dict[int, float] = {}
        self._machines = {machine.machine_id: machine for machine in offers.generate(config.seed, config.machines)}
        for _number, one in sorted(self.state.instances.items()):
            self._offer_anew(one)

    @property
    def holds(self) -> Holds:
        return self.state.holds

    # --- machines -----------------------------------------------------------------------------------------------

    @property
    def machines(self) -> list[Machine]:
        return list(self._machines.values())

    @property
    def machines_by_id(self) -> Mapping[int, Machine]:
        """As they are at any time; not to be changed."""
        return self._machines

    def machine(self, machine_id: int) -> Machine:
        return self._machines[machine_id]

    def machine_of(self, instance_id: int) -> Machine:
        return self._machines[self.instance(instance_id).machine_id]

    def find_offer(self, offer_id: int) -> Machine | None:
        with self.lock:
            if self._by_offer is None:
                self._by_offer = {machine.offer_id: machine for machine in self._machines.values()}
            return self._by_offer.get(offer_id)

    def machine_of_offer(self, offer_id: int) -> Machine:
        """MarketError (404) for an offer that there never was."""
        machine = self.find_offer(offer_id)
        if machine is None:
            raise no_such_offer(offer_id)
        return machine

    def floor(self, machine: Machine) -> float:
        """What the market asks for the machine now, in dollars per hour: a lower bid has no card."""
        here = machine.machine_id
        return self.state.raised.get(here, self.moved.get(here, machine.min_bid))

    def prices(self) -> Mapping[int, float]:
        """What the market asks for machines now where that is not their own least bid, by machine id."""
        return {**self.moved, **self.state.raised} if self.moved else self.state.raised

    # --- instances ----------------------------------------------------------------------------------------------

    def instance(self, instance_id: int) -> Instance:
        """A live instance. MarketError (404 no_such_instance) for any other."""
        with self.lock:
            instance = self.state.instances.get(instance_id)
        if instance is None or not instance.live:
            raise MarketError(404, "no_such_instance", f"Instance {instance_id} not found.")
        return instance

    def living(self) -> list[int]:
        """The instances that something can happen to, the oldest first."""
        with self.lock:
            return sorted(one.id for one in self.state.instances.values() if one.live)

    def tenants(self, machine: Machine) -> list[Instance]:
        return [one for one in self.state.instances.values() if one.machine_id == machine.machine_id]

    def free_ports(self, runtype: str) -> tuple[int, ...]:
        """Ports for a box of this kind that no living box has."""
        taken = self._taken_ports()
        return free_ports(2 if "jupyter" in runtype else 1, taken)

    def map_ports(self, names: Iterable[str], beside: Iterable[int]) -> dict[str, int]:
        """A port of this machine for each of a box's own, none of which any living box has."""
        taken = self._taken_ports() | set(beside)
        mapped = {}
        for name in names:
            (mapped[name],) = free_ports(1, taken)
            taken.add(mapped[name])
        return mapped

    def _taken_ports(self) -> set[int]:
        living = [one for one in self.state.instances.values() if one.live]
        return {port for one in living for port in (*one.ports, *one.mapped.values())}

    def check_credit(self) -> None:
        """MarketError (400 missing_billing) for an account whose credit is used up."""
        if self.state.unpaid_since is not None:
            raise MarketError(400, "missing_billing", "Your account has no credit left. Please add credit.")

    # --- changes ------------------------------------------------------------------------------------------------

    def put(self, instance: Instance) -> None:
        """:attr:`changes` counts these, for who keeps what it made of instances."""
        self.state.instances[instance.id] = instance
        self._unwritten_ids.add(instance.id)
        self.changes += 1
        self._offer_anew(instance)

    def _offer_anew(self, instance: Instance) -> None:
        """In the dialect of that name, the machine of a destroyed box is offered by an id that it never had."""
        if self.config.dialect.offer_after == "same" or instance.live:
            return
        machine = self._machines[instance.machine_id]
        if machine.offer_id == instance.offer_id:
            self._machines[machine.machine_id] = replace(machine, offer_id=machine.offer_id + OFFERED_ANEW)
            self._by_offer = None

    def save(self) -> None:
        """Keep what was changed: it is durable after the next :meth:`flush`, which one write serves many of."""
        self._unwritten = True

    def flush(self) -> None:
        """Return once everything saved so far is durable. The lock must not be held, for others go on meanwhile."""
        with self._writing:
            with self.lock:
                if not self._unwritten:
                    return
                self._unwritten = False
                self.state.now = self.clock.now()
                changed, self._unwritten_ids = self._unwritten_ids, set()
                entry = self.directory.entry_of(self.state, changed)
                text = self.directory.text_of(self.state) if entry is None else ""
            try:
                if entry is None:
                    self.directory.write(text)
                else:
                    self.directory.append(entry)
            except OSError:
                # What is missing is no longer known one by one: the next write is of everything.
                self._unwritten = True
                raise

    @contextlib.contextmanager
    def reading(self) -> Iterator[tuple[MarketState, float]]:
        """The state and the time, while nothing else happens."""
        with self.lock:
            yield self.state, self.clock.now()

    @contextlib.contextmanager
    def changing(self) -> Iterator[tuple[MarketState, float]]:
        """As :meth:`reading`; what was changed is kept, unless the block fails."""
        with self.lock:
            yield self.state, self.clock.now()
            self.save()

    def all_stood(self, now: float) -> list[Instance]:
        """Every instance, as no process of it lived through a time without a server."""
        with self.lock:
            for instance in list(self.state.instances.values()):
                self.put(instances.market_stood(instance, now))
            return list(self.state.instances.values())
