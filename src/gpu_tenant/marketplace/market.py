# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The market: who has which machine, what it costs, and the work that makes it so.

State changes happen under one lock and are pure transitions of :mod:`.instances`; engines are called outside it, one
call at a time per box, and report back only if their start is still the newest.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from . import billing, instances, offers
from .clock import MarketClock
from .config import MarketplaceConfig
from .engines.base import LOOPBACK, BoxSpec, Engine, EngineError, free_ports
from .holds import LINGERING, NOT_BOOTING, Held, Hold, Holds
from .instances import HOLDING_A_CARD, Instance, Key, Phase
from .offer_table import OfferTable
from .offers import Machine
from .rows import instance_row, stored_row
from .state import MarketState, StateDirectory

log = logging.getLogger(__name__)

TICK_S = 0.05
SAVE_INTERVAL_S = 2.0
OVERBID_FACTOR = 1.25


class MarketError(Exception):
    """A request that the market refuses."""

    def __init__(self, status: int, code: str, message: str, **extra: Any) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.extra = extra


@dataclass(frozen=True)
class Order:
    """What a tenant asks for when renting. Disk in GB, price in dollars per hour or None for on-demand."""

    offer_id: int
    image: str
    runtype: str
    disk_gb: float
    price: float | None = None
    label: str | None = None
    env: dict[str, str] = field(default_factory=dict)
    onstart: str | None = None
    args: tuple[str, ...] = ()
    stopped: bool = False
    cancel_unavailable: bool = False


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
        self._config = config
        self._engine = engine
        self._directory = directory
        self._state = directory.load(config.seed)
        self._holds = Holds()
        self.clock = clock or MarketClock(config.speed, self._state.now)
        self._machines = {machine.machine_id: machine for machine in offers.generate(config.seed, config.machines)}
        self._offer_table = OfferTable(list(self._machines.values()))
        self._stored_rows: dict[int, tuple[Instance, dict[str, Any]]] = {}
        self._by_offer = {machine.offer_id: machine for machine in self._machines.values()}
        self._lock = threading.RLock()
        self._box_locks: defaultdict[int, threading.Lock] = defaultdict(threading.Lock)
        self._closing = threading.Event()
        self._work = work or ThreadPoolExecutor(max_workers=8, thread_name_prefix="box")
        self._ticker = threading.Thread(target=self._tick_until_closed, name="market", daemon=True)

    def open(self) -> None:
        """Take up the remembered state: no process lived through the time without a server."""
        now = self._state.now or self.clock.now()
        with self._lock:
            for instance in list(self._state.instances.values()):
                self._put(instances.market_stood(instance, now))
                if instance.phase is Phase.UNLOADED:
                    self._work.submit(self._remove, instance.id)
            self._save()
        self._ticker.start()

    def close(self) -> None:
        """End every box's processes; what ran is remembered as stopped."""
        self._closing.set()
        if self._ticker.is_alive():
            self._ticker.join()
        self._work.shutdown(wait=True, cancel_futures=True)
        self._engine.close()
        with self._lock:
            now = self.clock.now()
            for instance in list(self._state.instances.values()):
                self._put(instances.market_stood(instance, now))
            self._save()

    # --- what a search sees -------------------------------------------------------------------------------------

    def gpu_names(self) -> list[str]:
        return offers.gpu_names(list(self._machines.values()))

    def offer_rows(self, interruptible: bool, allocated_gb: float) -> list[dict[str, Any]]:
        with self._lock:
            now = self.clock.now()
            taken = {one.machine_id for one in self._state.instances.values() if one.live}
            return self._offer_table.rows(now, self._state.raised, taken, interruptible, allocated_gb)

    def stored_rows(self) -> list[dict[str, Any]]:
        """Every instance in the columns that a list filters and orders by; not to be changed."""
        with self._lock:
            return [self._stored_as_held(one) for one in self._state.instances.values() if one.phase is not Phase.GONE]

    def instance_rows(self, instance_ids: list[int] | None = None) -> list[dict[str, Any]]:
        """These instances as the API lists them, in the given order; all that it lists when none are given."""
        with self._lock:
            numbers = [row["id"] for row in self.stored_rows()] if instance_ids is None else instance_ids
            return [self._listed(self._state.instances[number]) for number in numbers]

    def find_row(self, instance_id: int) -> dict[str, Any] | None:
        with self._lock:
            instance = self._state.instances.get(instance_id)
            if instance is None or instance.phase is Phase.GONE or self._is_only_listed(instance):
                return None
            return self._row(instance)

    # --- what a tenant asks -------------------------------------------------------------------------------------

    def rent(self, order: Order) -> Instance:
        """A new instance.

        :raises MarketError: ``new_contract`` names the stopped instance that an insufficient bid leaves.
        """
        with self._lock:
            machine = self._by_offer.get(order.offer_id)
            if machine is None or not self._lets(machine, order):
                raise no_such_offer(order.offer_id)
            if order.disk_gb > machine.disk_space:
                raise MarketError(
                    400,
                    "invalid_args",
                    f"disk {order.disk_gb:g} GB: the machine has {machine.disk_space:g} GB",
                    ask_id=order.offer_id,
                )
            if order.cancel_unavailable and order.price is not None and order.price < self._floor(machine):
                message = "The bid does not win; nothing was created."
                raise MarketError(410, "no_such_ask", message, ask_id=order.offer_id)
            now = self.clock.now()
            instance = self._new_instance(order, machine, now)
            if not order.stopped:
                instance = replace(instance, wants_card=True)
            self._put(instance)
            loser = not order.stopped and self._holder(machine) is not instance
            if loser:
                self._put(instances.outbid(instance, now))
            self._save()
        self._settle(machine)
        if loser:
            raise MarketError(
                400,
                "invalid_price",
                f"Your bid of ${order.price:g} is below the ${self._floor(machine):g} that this machine costs now; "
                f"instance {instance.id} was created stopped",
                ask_id=order.offer_id,
                new_contract=instance.id,
            )
        return self.instance(instance.id)

    def instance(self, instance_id: int) -> Instance:
        """A live instance. MarketError (404 no_such_instance) for any other."""
        with self._lock:
            instance = self._state.instances.get(instance_id)
        if instance is None or not instance.live:
            raise MarketError(404, "no_such_instance", f"Instance {instance_id} not found.")
        return instance

    def start(self, instance_id: int) -> None:
        with self._lock:
            instance = self.instance(instance_id)
            machine = self._machines[instance.machine_id]
            wanting = instances.claim(instance)
            self._put(wanting)
            if wanting is not instance and self._holder(machine) is not wanting:
                self._put(instances.scheduling(wanting, self.clock.now()))
            elif instance.phase is Phase.EXITED:
                self._put(instances.restart(wanting, Phase.LOADING))
                self._launch(instance_id)
            self._save()
        self._settle(machine)

    def stop(self, instance_id: int) -> None:
        with self._lock:
            instance = self.instance(instance_id)
            self._put(instances.stop(instance, self.clock.now()))
            self._save()
        self._halt(instance_id)
        self._settle(self._machines[instance.machine_id])

    def destroy(self, instance_id: int) -> None:
        with self._lock:
            instance = self.instance(instance_id)
            self._put(instances.destroy(instance, self.clock.now()))
            self._save()
        self._halt(instance_id)
        self._work.submit(self._remove, instance_id)
        self._settle(self._machines[instance.machine_id])

    def restart(self, instance_id: int, phase: Phase) -> None:
        """Reboot or recycle a running box. MarketError (400 invalid_args) for another."""
        with self._lock:
            instance = self.instance(instance_id)
            if instance.phase not in (Phase.RUNNING, Phase.EXITED):
                raise MarketError(400, "invalid_args", f"Instance {instance_id} is not running.")
            self._put(instances.restart(instance, phase))
            self._save()
            self._launch(instance_id, wipe=phase is Phase.RECYCLING)

    def label(self, instance_id: int, label: str) -> None:
        with self._lock:
            self._put(replace(self.instance(instance_id), label=label or None))
            self._save()

    def change_bid(self, instance_id: int, price: float | None) -> None:
        """A new bid, None for one that wins now. MarketError (400 invalid_args) for an on-demand instance."""
        with self._lock:
            instance = self.instance(instance_id)
            if not instance.is_bid:
                raise MarketError(400, "invalid_args", f"Instance {instance_id} is on-demand; it has no bid.")
            machine = self._machines[instance.machine_id]
            winning = self._floor(machine) if price is None else price
            self._put(instances.change_bid(instance, winning, self.clock.now()))
            self._save()
        self._settle(machine)

    # --- keys ---------------------------------------------------------------------------------------------------

    def account_keys(self) -> tuple[Key, ...]:
        with self._lock:
            return self._state.keys

    def add_key(self, public_key: str) -> Key:
        with self._lock:
            key = Key(self._state.take_key_id(), public_key, self.clock.now())
            self._state.keys = (*self._state.keys, key)
            self._save()
            return key

    def change_key(self, key_id: int, public_key: str) -> Key:
        with self._lock:
            old = self._account_key(key_id)
            changed = replace(old, public_key=public_key)
            self._state.keys = tuple(changed if key is old else key for key in self._state.keys)
            self._save()
            return changed

    def delete_key(self, key_id: int) -> None:
        with self._lock:
            old = self._account_key(key_id)
            self._state.keys = tuple(key for key in self._state.keys if key is not old)
            self._save()

    def attach_key(self, instance_id: int, public_key: str) -> Key:
        with self._lock:
            instance = self.instance(instance_id)
            key = Key(self._state.take_key_id(), public_key, self.clock.now())
            changed = replace(instance, keys=(*instance.keys, key))
            self._put(changed)
            self._save()
        self._let_in(changed)
        return key

    def detach_key(self, instance_id: int, key_id: int) -> None:
        with self._lock:
            instance = self.instance(instance_id)
            kept = tuple(key for key in instance.keys if key.id != key_id)
            if len(kept) == len(instance.keys):
                raise MarketError(404, "no_such_ssh_key", f"Instance {instance_id} has no SSH key {key_id}.")
            changed = replace(instance, keys=kept)
            self._put(changed)
            self._save()
        self._let_in(changed)

    # --- money --------------------------------------------------------------------------------------------------

    def charges(self, since: float = 0.0, until: float | None = None) -> list[billing.Charge]:
        with self._lock:
            now = self.clock.now()
            accounts = [one.account() for one in self._state.instances.values()]
        return billing.charges(accounts, now if until is None else min(until, now), since)

    def bill(self) -> dict[str, Any]:
        now = self.clock.now()
        bill = billing.bill_as_dict(self.charges(until=now), now)
        lines = self.volume_charges(until=now)
        stored = [{"id": line.instance_id, "label": line.label, "amount": line.amount} for line in lines]
        return {**bill, "total": bill["total"] + billing.total(lines), "volumes": stored, "speed": self._config.speed}

    def volume_charges(self, since: float = 0.0, until: float | None = None) -> list[billing.Charge]:
        with self.reading() as (state, now):
            accounts = [one.account() for one in state.volumes.values()]
        return billing.charges(accounts, now if until is None else min(until, now), since)

    def credit(self) -> float:
        return self._config.credit - billing.total(self.charges()) - billing.total(self.volume_charges())

    # --- what works on boxes beside their tenants ----------------------------------------------------------------

    @property
    def config(self) -> MarketplaceConfig:
        return self._config

    @property
    def closing(self) -> threading.Event:
        """Set once the market ends: whatever works for it must end too."""
        return self._closing

    @property
    def machines(self) -> list[Machine]:
        return list(self._machines.values())

    def machine(self, machine_id: int) -> Machine:
        return self._machines[machine_id]

    def machine_of_offer(self, offer_id: int) -> Machine:
        """MarketError (404) for an offer that there never was."""
        machine = self._by_offer.get(offer_id)
        if machine is None:
            raise no_such_offer(offer_id)
        return machine

    @contextlib.contextmanager
    def reading(self) -> Iterator[tuple[MarketState, float]]:
        """The state and the time, while nothing else happens."""
        with self._lock:
            yield self._state, self.clock.now()

    @contextlib.contextmanager
    def changing(self) -> Iterator[tuple[MarketState, float]]:
        """As :meth:`reading`; what was changed is kept, unless the block fails."""
        with self._lock:
            yield self._state, self.clock.now()
            self._save()

    def in_background(self, work: Callable[..., None], *arguments: Any) -> None:
        if not self._closing.is_set():
            self._work.submit(work, *arguments)

    def say(self, instance_id: int, message: str) -> None:
        """Show a status message on an instance, if it is still there."""
        with self._lock:
            instance = self._state.instances.get(instance_id)
            if instance is not None and instance.live:
                self._put(replace(instance, status_msg=message))

    def machine_of(self, instance_id: int) -> Machine:
        return self._machines[self.instance(instance_id).machine_id]

    def disk(self, instance_id: int) -> contextlib.AbstractContextManager[Path]:
        """The root of an instance's disk on this machine, for the length of the block. EngineError."""
        return self._engine.disk(self._spec(self.instance(instance_id)))

    def rsync_daemon(self, instance_id: int) -> tuple[str, int] | None:
        """Where an rsync daemon answers over ssh for the instance; None where its engine has none."""
        instance = self.instance(instance_id)
        if not self._engine.has_rsync_daemon or instance.phase is not Phase.RUNNING:
            return None
        return LOOPBACK, instance.ports[0]

    # --- rehearsal ----------------------------------------------------------------------------------------------

    def preempt(self, instance_id: int) -> float:
        """Raise the market's price above the instance's bid; returns the new price when its processes are dead."""
        with self._lock:
            instance = self.instance(instance_id)
            if instance.price is None:
                raise MarketError(400, "invalid_args", f"Instance {instance_id} is on-demand; nobody can outbid it.")
            machine = self._machines[instance.machine_id]
            raised = round(max(instance.price, self._floor(machine)) * OVERBID_FACTOR + 0.005, 4)
            self._state.raised[machine.machine_id] = raised
            self._save()
        self._settle(machine)
        return raised

    def meter(self, instance_id: int, kind: str, gigabytes: float) -> float:
        """Bill traffic to an instance, as its host would have counted it; the dollars."""
        with self._lock:
            instance = self.instance(instance_id)
            machine = self._machines[instance.machine_id]
            rate = machine.down_cost if kind == "bwd" else machine.up_cost
            moved = billing.Traffic(self.clock.now(), kind, gigabytes, rate)
            self._put(replace(instance, traffic=(*instance.traffic, moved)))
            self._save()
        return gigabytes * rate

    def release(self, instance_id: int) -> float:
        """The market's price falls to what it was; instances whose bid wins again come back."""
        with self._lock:
            machine = self._machines[self.instance(instance_id).machine_id]
            self._state.raised.pop(machine.machine_id, None)
            self._save()
        self._settle(machine)
        return machine.min_bid

    # --- faults of state ----------------------------------------------------------------------------------------

    def living(self) -> list[int]:
        """The instances that something can happen to, the oldest first."""
        with self._lock:
            return sorted(one.id for one in self._state.instances.values() if one.live)

    def held(self) -> list[dict[str, Any]]:
        with self._lock:
            return self._holds.as_dicts(self.clock.now())

    def hold(self, instance_id: int, state: Held, seconds: float | None, cause: int) -> None:
        """Hold an instance in a state, for seconds of market time or until :meth:`let_go`.

        :raises MarketError: (400) for an on-demand instance that shall be outbid.
        """
        if state is Held.OUTBID:
            self.preempt(instance_id)
        with self._lock:
            instance = self.instance(instance_id)
            until = float("inf") if seconds is None else self.clock.now() + seconds
            self._holds.add(Hold(instance_id, state, until, cause))
            down = self._holds.keeps_down(instance_id) and instance.phase in HOLDING_A_CARD
            if down:
                self._put(instances.waiting_to_boot(instance, self.clock.now()))
            elif state is Held.SCHEDULING and instance.phase in HOLDING_A_CARD:
                self._put(instances.scheduling(instance, self.clock.now()))
            self._save()
        if down:
            self._end_processes(instance_id)
        else:
            self._halt(instance_id)
            self._settle(self._machines[instance.machine_id])

    def let_go(self, cause: int) -> None:
        """End what a fault holds; the instances do then what they were told last."""
        with self._lock:
            ended = self._end_holds(self._holds.caused_by(cause))
        self._go_on_after(ended)

    def revive(self, instance_id: int) -> None:
        """A box that was at rest starts, though nobody asked for it."""
        self.release(instance_id)
        self.start(instance_id)

    def move_ports(self, instance_id: int) -> None:
        """The box answers on other ports from now on. What runs in it is lost, as by a reboot."""
        with self._lock:
            instance = self.instance(instance_id)
            self._put(replace(instance, ports=self._free_ports(instance.runtype)))
            self._save()
            if instance.phase is Phase.RUNNING:
                self.restart(instance_id, Phase.REBOOTING)

    def renew_host_key(self, instance_id: int) -> None:
        """The box has another host key from now on. MarketError (400) without one."""
        with self._lock:
            instance = self.instance(instance_id)
        with self._box_locks[instance_id]:
            try:
                self._engine.renew_host_key(self._spec(instance))
            except EngineError as reason:
                raise MarketError(400, "invalid_args", str(reason)) from reason
        if instance.phase is Phase.RUNNING:
            self.restart(instance_id, Phase.REBOOTING)

    def cut_sessions(self, instance_id: int) -> None:
        """End the connections to a box, which runs on. MarketError (400) where the engine cannot."""
        try:
            self._engine.cut_sessions(self._spec(self.instance(instance_id)))
        except EngineError as reason:
            raise MarketError(400, "invalid_args", str(reason)) from reason

    def tick(self) -> None:
        """What time alone brings about."""
        with self._lock:
            ended = self._end_holds(self._holds.expired(self.clock.now()))
        self._go_on_after(ended)
        self._find_the_dead()

    def _end_holds(self, ending: list[Hold]) -> list[Hold]:
        """Let boxes boot and rows vanish that nothing else holds; these holds. The lock is held."""
        ended = self._holds.take(ending)
        for hold in ended:
            instance = self._state.instances[hold.instance_id]
            if instance.phase is Phase.UNLOADED and hold.state in LINGERING:
                self._put(instances.vanish(instance))
            elif hold.state in NOT_BOOTING and instance.phase in HOLDING_A_CARD:
                self._put(instances.begin_start(instance))
                self._launch(instance.id)
        if ended:
            self._save()
        return ended

    def _go_on_after(self, ended: list[Hold]) -> None:
        """What prices and cards come to after holds ended. Calls engines, so the lock must not be held."""
        for hold in ended:
            instance = self._state.instances[hold.instance_id]
            if hold.state is Held.OUTBID and instance.live:
                self.release(instance.id)
            else:
                self._settle(self._machines[instance.machine_id])

    def control_state(self) -> dict[str, Any]:
        with self._lock:
            living = [one for one in self._state.instances.values() if one.phase is not Phase.GONE]
            return {
                "now": self.clock.now(),
                "speed": self._config.speed,
                "seed": self._config.seed,
                "engine": self._engine.describe(),
                "keys": len(self._state.keys),
                "raised_prices": {str(machine): price for machine, price in self._state.raised.items()},
                "instances": [
                    {
                        "id": one.id,
                        "phase": one.phase.value,
                        "label": one.label,
                        "offer_id": one.offer_id,
                        "machine_id": one.machine_id,
                        "price": one.price,
                        "market_price": self._floor(self._machines[one.machine_id]),
                        "ports": list(one.ports),
                        "boots": one.boot,
                        "wants_card": one.wants_card,
                        "status_msg": one.status_msg,
                    }
                    for one in living
                ],
            }

    def log_text(self, instance_id: int) -> str:
        return self._engine.log(self._spec(self.instance(instance_id)))

    # --- inside -------------------------------------------------------------------------------------------------

    def _put(self, instance: Instance) -> None:
        self._state.instances[instance.id] = instance

    def _save(self) -> None:
        self._state.now = self.clock.now()
        self._directory.save(self._state)

    def _floor(self, machine: Machine) -> float:
        return self._state.raised.get(machine.machine_id, machine.min_bid)

    def _row(self, instance: Instance) -> dict[str, Any]:
        machine = self._machines[instance.machine_id]
        row = instance_row(instance, machine, self.clock.now(), self._floor(machine), self._config.stopped_as)
        unheard = self._holds.unheard_as(instance.id)
        return {**row, "actual_status": unheard, "ports": {}} if unheard else row

    def _listed(self, instance: Instance) -> dict[str, Any]:
        row = self._row(instance)
        return {**row, **instances.AS_IT_RAN} if self._is_only_listed(instance) else row

    def _is_only_listed(self, instance: Instance) -> bool:
        return instance.phase is Phase.UNLOADED and self._holds.holds(instance.id, Held.ONLY_LISTED)

    def _stored_as_held(self, instance: Instance) -> dict[str, Any]:
        """As :meth:`_listed` shows it, in the stored columns."""
        row = self._stored_row(instance)
        unheard = self._holds.unheard_as(instance.id)
        if unheard:
            row = {**row, "actual_status": unheard}
        return {**row, **instances.AS_IT_RAN} if self._is_only_listed(instance) else row

    def _stored_row(self, instance: Instance) -> dict[str, Any]:
        known = self._stored_rows.get(instance.id)
        if known is None or known[0] is not instance:
            machine = self._machines[instance.machine_id]
            known = (instance, stored_row(instance, machine, self._config.stopped_as))
            self._stored_rows[instance.id] = known
        return known[1]

    def _tenants(self, machine: Machine) -> list[Instance]:
        return [one for one in self._state.instances.values() if one.machine_id == machine.machine_id]

    def _holder(self, machine: Machine) -> Instance | None:
        able = [one for one in self._tenants(machine) if not self._holds.holds(one.id, Held.SCHEDULING)]
        return instances.holder_of_card(able, self._floor(machine))

    def _lets(self, machine: Machine, order: Order) -> bool:
        """Whether an offer is open to an order: free, or held by one that the order beats."""
        holding = [one for one in self._tenants(machine) if one.live]
        if not holding:
            return True
        if order.price is None:
            return all(one.is_bid for one in holding)
        return all(one.price is not None and one.price < order.price for one in holding)

    def _free_ports(self, runtype: str) -> tuple[int, ...]:
        taken = {port for one in self._state.instances.values() if one.live for port in one.ports}
        return free_ports(2 if "jupyter" in runtype else 1, taken)

    def _new_instance(self, order: Order, machine: Machine, now: float) -> Instance:
        return Instance(
            id=self._state.take_id(),
            offer_id=order.offer_id,
            machine_id=machine.machine_id,
            created_at=now,
            price=order.price,
            base_price=machine.price if order.price is None else order.price,
            storage_cost=machine.storage_cost,
            disk_gb=order.disk_gb,
            image=order.image,
            runtype=order.runtype,
            ports=self._free_ports(order.runtype),
            label=order.label,
            env=order.env,
            onstart=order.onstart,
            args=order.args,
            keys=self._state.keys,
            api_key=secrets.token_hex(32),
        )

    def _account_key(self, key_id: int) -> Key:
        for key in self._state.keys:
            if key.id == key_id:
                return key
        raise MarketError(400, "no_ssh_key", f"SSH key {key_id} not found.")

    def _settle(self, machine: Machine) -> None:
        """Give the machine's card to whom it belongs now; returns when every loser's processes are dead."""
        with self._lock:
            now = self.clock.now()
            holder = self._holder(machine)
            losers = [one for one in self._tenants(machine) if one.phase in HOLDING_A_CARD and one is not holder]
            for loser in losers:
                self._put(instances.outbid(loser, now))
            if holder is not None and holder.phase not in HOLDING_A_CARD:
                self._put(instances.begin_start(holder))
                self._launch(holder.id)
            if losers or holder is not None:
                self._save()
        for loser in losers:
            log.info("instance %d was outbid", loser.id)
            self._halt(loser.id)

    def _launch(self, instance_id: int, wipe: bool = False) -> None:
        if not self._closing.is_set() and not self._holds.keeps_down(instance_id):
            self._work.submit(self._boot, instance_id, self._state.instances[instance_id].boot, wipe)

    def _boot(self, instance_id: int, boot: int, wipe: bool) -> None:
        try:
            self._start_box(instance_id, boot, wipe)
        except Exception as reason:
            if not isinstance(reason, EngineError):
                log.exception("instance %d", instance_id)
            message = str(reason)
            self._if_current(instance_id, boot, lambda one: instances.failed(one, message, self.clock.now()))
            with contextlib.suppress(EngineError):
                self._engine.stop(instance_id)

    def _start_box(self, instance_id: int, boot: int, wipe: bool) -> None:
        self._closing.wait(self._config.boot_s / 2)
        with self._box_locks[instance_id]:
            current = self._current(instance_id, boot)
            if current is None:
                return
            spec = self._spec(current)
            self._engine.stop(instance_id)
            if wipe:
                self._engine.destroy(spec)
            if wipe or not current.ever_ran:
                self._engine.create(spec)
                self._if_current(instance_id, boot, instances.loading)
        self._closing.wait(self._config.boot_s / 2)
        with self._box_locks[instance_id]:
            current = self._current(instance_id, boot)
            if current is None:
                return
            self._engine.start(self._spec(current))
            if not self._if_current(instance_id, boot, lambda one: instances.booted(one, self.clock.now())):
                self._engine.stop(instance_id)

    def _current(self, instance_id: int, boot: int) -> Instance | None:
        with self._lock:
            instance = self._state.instances[instance_id]
            return instance if instance.boot == boot and not self._closing.is_set() else None

    def _if_current(self, instance_id: int, boot: int, change: Callable[[Instance], Instance]) -> bool:
        with self._lock:
            current = self._current(instance_id, boot)
            if current is None:
                return False
            self._put(change(current))
            self._save()
            return True

    def _halt(self, instance_id: int) -> None:
        with self._box_locks[instance_id]:
            with self._lock:
                if self._state.instances[instance_id].phase in HOLDING_A_CARD:
                    return  # It was started again meanwhile; that start ends what ran before.
            self._stop_engine(instance_id)

    def _end_processes(self, instance_id: int) -> None:
        with self._box_locks[instance_id]:
            self._stop_engine(instance_id)

    def _stop_engine(self, instance_id: int) -> None:
        try:
            self._engine.stop(instance_id)
        except EngineError as reason:
            log.error("instance %d: %s", instance_id, reason)

    def _remove(self, instance_id: int) -> None:
        """The end of a destroyed instance: its disk goes, then its row."""
        self._closing.wait(self._config.destroy_lag_s)
        with self._box_locks[instance_id]:
            try:
                self._engine.destroy(self._spec(self._state.instances[instance_id]))
            except EngineError as reason:
                log.error("instance %d: %s", instance_id, reason)
        with self._lock:
            if not self._holds.holds(instance_id, *LINGERING):
                self._put(instances.vanish(self._state.instances[instance_id]))
            self._save()

    def _let_in(self, instance: Instance) -> None:
        with self._box_locks[instance.id]:
            if instance.ever_ran:
                self._engine.set_keys(self._spec(instance))

    def _spec(self, instance: Instance) -> BoxSpec:
        machine = self._machines[instance.machine_id]
        given = {
            "CONTAINER_ID": str(instance.id),
            "CONTAINER_API_KEY": instance.api_key,
            "VAST_CONTAINERLABEL": f"C.{instance.id}",
            "PUBLIC_IPADDR": "127.0.0.1",
            "VAST_TCP_PORT_22": str(instance.ports[0]),
            "GPU_COUNT": str(machine.num_gpus),
        }
        return BoxSpec(
            box_id=instance.id,
            directory=self._directory.boxes / str(instance.id),
            ports=instance.ports,
            card=machine.card,
            image=instance.image,
            keys=tuple(key.public_key for key in instance.keys),
            environment={**given, **instance.env},
            onstart=instance.onstart or "",
        )

    def _tick_until_closed(self) -> None:
        unsaved = 0.0
        while not self._closing.wait(TICK_S):
            self.tick()
            unsaved += TICK_S
            if unsaved >= SAVE_INTERVAL_S:
                unsaved = 0.0
                with self._lock:
                    self._save()

    def _find_the_dead(self) -> None:
        with self._lock:
            running = [one for one in self._state.instances.values() if one.phase is Phase.RUNNING]
        for instance in running:
            if self._engine.alive(instance.id):
                continue
            if self._if_current(instance.id, instance.boot, instances.exited):
                log.warning("instance %d: its box ended by itself", instance.id)


def no_such_offer(offer_id: int) -> MarketError:
    return MarketError(
        404,
        "invalid_args",
        f"error 404/3603: no_such_ask Instance type by id {offer_id} is not available.",
        ask_id=offer_id,
    )
