# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The market: its parts, put together, and what time alone brings about.

State changes happen under the lock of :mod:`.books` and are pure transitions of :mod:`.instances`; engines are
called outside it, by :mod:`.boxes`.
"""

from __future__ import annotations

import threading
from concurrent.futures import Executor
from typing import Any

from .auction import Auction
from .books import Books
from .boxes import Boxes
from .clock import MarketClock
from .config import MarketplaceConfig
from .contracts import Contracts
from .engines.base import Engine
from .incidents import Incidents
from .instances import Phase
from .lambda_cloud.file_systems import FileSystems
from .listing import Listing
from .metering import Metering
from .money import Money
from .moving_bids import MovingBids
from .paperspace.machines import Machines
from .price_rises import PriceRises
from .reservations import Reservations
from .runpod.dead_man import DeadMan
from .solvency import Solvency
from .ssh_keys import SshKeys
from .state import StateDirectory

TICK_S = 0.05
SAVE_INTERVAL_S = 2.0


class Market:
    """:param clock: in place of the wall's.
    :param work: what does the work on boxes; threads of the market's own when not given.
    """

    def __init__(
        self,
        config: MarketplaceConfig,
        engine: Engine,
        directory: StateDirectory,
        clock: MarketClock | None = None,
        work: Executor | None = None,
    ) -> None:
        self.books = Books(config, directory, clock)
        self.boxes = Boxes(self.books, engine, work)
        self.auction = Auction(self.books, self.boxes)
        self.contracts = Contracts(self.books, self.boxes, self.auction)
        self.incidents = Incidents(self.books, self.boxes, self.auction, self.contracts)
        self.ssh_keys = SshKeys(self.books, self.boxes)
        self.money = Money(self.books)
        self.file_systems = FileSystems(self.books)
        self.core_machines = Machines(self.books, self.contracts)
        self.rises = PriceRises(self.books, self.boxes)
        self.reservations = Reservations(self.books, self.money)
        self.moving_bids = MovingBids(self.books, self.auction)
        self.metering = Metering(self.boxes, self.money)
        self.solvency = Solvency(self.books, self.boxes, self.contracts, self.money)
        self.dead_man = DeadMan(self.books, self.contracts)
        self.listing = Listing(self.books)
        self._ticker = threading.Thread(target=self._tick_until_closed, name="market", daemon=True)

    @property
    def config(self) -> MarketplaceConfig:
        return self.books.config

    @property
    def clock(self) -> MarketClock:
        return self.books.clock

    def open(self) -> None:
        """Take up the remembered state: no process lived through the time without a server."""
        with self.books.lock:
            for instance in self.books.all_stood(self.books.state.now or self.clock.now()):
                if instance.phase is Phase.UNLOADED:
                    self.boxes.remove(instance.id)
            self.books.save()
        self.books.flush()
        self._ticker.start()

    def close(self) -> None:
        """End every box's processes; what ran is remembered as stopped."""
        self.boxes.closing.set()
        if self._ticker.is_alive():
            self._ticker.join()
        self.boxes.close()
        self.metering.read()
        with self.books.lock:
            self.books.all_stood(self.clock.now())
            self.books.save()
        self.books.flush()

    def tick(self) -> None:
        """What time alone brings about."""
        self.incidents.end_expired()
        self.moving_bids.move()
        self.rises.end_due()
        self.reservations.end_due()
        self.metering.look()
        self.file_systems.look()
        self.solvency.look()
        self.dead_man.look()
        self.boxes.find_the_dead()
        self.core_machines.look()

    def _tick_until_closed(self) -> None:
        unsaved = 0.0
        while not self.boxes.closing.wait(TICK_S):
            self.tick()
            unsaved += TICK_S
            if unsaved >= SAVE_INTERVAL_S:
                unsaved = 0.0
                self.books.save()
            self.books.flush()

    def control_state(self) -> dict[str, Any]:
        """What a rehearsal may see of the market that no tenant sees."""
        with self.books.reading() as (state, now):
            living = [one for one in state.instances.values() if one.phase is not Phase.GONE]
            return {
                "now": now,
                "speed": self.config.speed,
                "seed": self.config.seed,
                "engine": self.boxes.describe_engine(),
                "keys": len(state.keys),
                "raised_prices": {str(machine): price for machine, price in state.raised.items()},
                "instances": [
                    {
                        "id": one.id,
                        "phase": one.phase.value,
                        "label": one.label,
                        "offer_id": one.offer_id,
                        "machine_id": one.machine_id,
                        "price": one.price,
                        "market_price": self.books.floor(self.books.machine(one.machine_id)),
                        "ports": list(one.ports),
                        "boots": one.boot,
                        "wants_card": one.wants_card,
                        "status_msg": one.status_msg,
                    }
                    for one in living
                ],
            }
