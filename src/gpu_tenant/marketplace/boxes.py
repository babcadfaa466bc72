# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The work on boxes that the books call for: starts, ends and removals, on threads of their own.

Engines are called without the books' lock, one call at a time per box, and a start reports back only if it is still
the newest.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import instances, volumes
from .books import Books
from .engines.base import LOOPBACK, BoxSpec, Engine, EngineError
from .holds import LINGERING, Held
from .instances import HOLDING_A_CARD, Instance, Phase
from .lambda_cloud.terms import LOGIN as VM_LOGIN
from .lambda_cloud.terms import VmTerms
from .link import Link
from .offers import Machine
from .paperspace.terms import LOGIN as CORE_LOGIN
from .paperspace.terms import CoreTerms
from .refusals import MarketError
from .runpod import pods
from .runpod.terms import PodTerms

log = logging.getLogger(__name__)

# Of Vast's images: whoever logs in lands in tmux, unless ~/.no_auto_tmux is there. A command that is given to ssh does
# not.
AUTO_TMUX = """\
# auto-tmux
if [ -n "$PS1" ] && [ -z "$TMUX" ] && [ ! -e ~/.no_auto_tmux ] && command -v tmux >/dev/null; then
    exec tmux new-session -A -s ssh_tmux
fi
"""


class Boxes:
    """:param work: what does the work; threads of its own when not given."""

    def __init__(self, books: Books, engine: Engine, work: Executor | None = None) -> None:
        self._books = books
        self._engine = engine
        self._links: dict[int, Link] = {}
        self._carried: dict[int, tuple[int, int]] = {}
        self._locks: defaultdict[int, threading.Lock] = defaultdict(threading.Lock)
        self._work = work or ThreadPoolExecutor(max_workers=8, thread_name_prefix="box")
        # Set once the market ends: whatever works for it must end too.
        self.closing = threading.Event()

    def close(self) -> None:
        """End every box's processes. :attr:`closing` is set by then."""
        self._work.shutdown(wait=True, cancel_futures=True)
        for instance_id in list(self._links):
            self._close_link(instance_id)
        self._engine.close()

    def in_background(self, work: Callable[..., None], *arguments: Any) -> None:
        if not self.closing.is_set():
            self._work.submit(work, *arguments)

    # --- starting -----------------------------------------------------------------------------------------------

    def launch(self, instance_id: int, wipe: bool = False) -> None:
        """Start the box, unless a fault keeps it down. The lock is held.

        :param wipe: on a new disk.
        """
        if not self.closing.is_set() and not self._books.holds.keeps_down(instance_id):
            self._work.submit(self._boot, instance_id, self._books.state.instances[instance_id].boot, wipe)

    def _boot(self, instance_id: int, boot: int, wipe: bool) -> None:
        try:
            self._start(instance_id, boot, wipe)
        except Exception as reason:
            if not isinstance(reason, EngineError):
                log.exception("instance %d", instance_id)
            message = str(reason)
            now = self._books.clock.now()
            self._if_current(instance_id, boot, lambda one: instances.failed(one, message, now))
            with contextlib.suppress(EngineError):
                self._engine.stop(instance_id)

    def _start(self, instance_id: int, boot: int, wipe: bool) -> None:
        pause_s = self._books.config.boot_s / 2
        self.closing.wait(pause_s)
        with self._locks[instance_id]:
            current = self._current(instance_id, boot)
            if current is None:
                return
            spec = self._spec(current)
            # What lies on a pod's container disk is gone with every start; its volume is a folder that stays.
            wipe = wipe or (current.pod is not None and current.ever_ran)
            self._close_link(instance_id)
            self._engine.stop(instance_id)
            if wipe:
                self._engine.destroy(spec)
            if wipe or not current.ever_ran:
                self._engine.create(spec)
                self._if_current(instance_id, boot, instances.loading)
        self.closing.wait(pause_s)
        with self._locks[instance_id]:
            current = self._current(instance_id, boot)
            if current is None:
                return
            self._start_engine(current)
            if not self._if_current(instance_id, boot, lambda one: instances.booted(one, self._books.clock.now())):
                self._engine.stop(instance_id)

    def _start_engine(self, instance: Instance) -> None:
        """Start the box, behind a link where it is to be slow or its bytes are to be billed. EngineError."""
        spec = self._spec(instance)
        kib_per_s = self._books.holds.amount(instance.id, Held.SLOW_LINK)
        # Only vast.ai bills traffic; what lives on other sides of the market has none to meter.
        metered = self._books.config.meter_ssh and instance.terms is None
        if kib_per_s is None and not metered:
            self._engine.start(spec)
            return
        inner = self._books.free_ports(instance.runtype)
        self._engine.start(replace(spec, ports=inner))
        pace = float("inf") if kib_per_s is None else 1024 * kib_per_s
        try:
            self._links[instance.id] = Link(spec.ports, inner, pace)
        except OSError as taken:
            raise EngineError(f"no link could be put on port {spec.ports[0]}: {taken.strerror}") from taken

    def _close_link(self, instance_id: int) -> None:
        link = self._links.pop(instance_id, None)
        if link is not None:
            link.close()
            self._note_carried(instance_id, link)

    def _note_carried(self, instance_id: int, link: Link) -> None:
        to_box, from_box = link.take_carried()
        with self._books.lock:
            down, up = self._carried.get(instance_id, (0, 0))
            self._carried[instance_id] = (down + to_box, up + from_box)

    def take_carried(self) -> dict[int, tuple[int, int]]:
        """Bytes that went to boxes and from them, by instance, since this was asked before: those behind links."""
        for instance_id, link in list(self._links.items()):
            self._note_carried(instance_id, link)
        with self._books.lock:
            carried, self._carried = self._carried, {}
        return {instance_id: moved for instance_id, moved in carried.items() if any(moved)}

    def lift_link(self, instance_id: int) -> None:
        """What was slow is as fast as any from now on."""
        link = self._links.get(instance_id)
        if link is not None:
            link.lift()

    def check_hampers(self, instance_id: int, state: Held) -> None:
        """MarketError (400) where the engine's boxes have no link, or no disk, that could be like this."""
        able = self._engine.has_links if state is Held.SLOW_LINK else self._engine.limits_room
        if not able:
            what = "link" if state is Held.SLOW_LINK else "disk of its own"
            raise MarketError(400, "invalid_args", f"instance {instance_id} has no {what} with this engine")

    def _current(self, instance_id: int, boot: int) -> Instance | None:
        with self._books.lock:
            instance = self._books.state.instances[instance_id]
            return instance if instance.boot == boot and not self.closing.is_set() else None

    def _if_current(self, instance_id: int, boot: int, change: Callable[[Instance], Instance]) -> bool:
        with self._books.lock:
            current = self._current(instance_id, boot)
            if current is None:
                return False
            self._books.put(change(current))
            self._books.save()
            return True

    # --- ending -------------------------------------------------------------------------------------------------

    def halt(self, instance_id: int) -> None:
        """Return once the processes of a box that has no card are dead."""
        with self._locks[instance_id]:
            with self._books.lock:
                if self._books.state.instances[instance_id].phase in HOLDING_A_CARD:
                    return  # It was started again meanwhile; that start ends what ran before.
            self._stop(instance_id)

    def end_processes(self, instance_id: int) -> None:
        """As :meth:`halt`, whoever has the card."""
        with self._locks[instance_id]:
            self._stop(instance_id)

    def _stop(self, instance_id: int) -> None:
        self._close_link(instance_id)
        try:
            self._engine.stop(instance_id)
        except EngineError as reason:
            log.error("instance %d: %s", instance_id, reason)

    def remove(self, instance_id: int) -> None:
        """The end of a destroyed instance, in its own time: its disk goes, then its row."""
        self._work.submit(self._remove, instance_id)

    def _remove(self, instance_id: int) -> None:
        books = self._books
        self.closing.wait(books.config.destroy_lag_s)
        with self._locks[instance_id]:
            try:
                self._engine.destroy(self._spec(books.state.instances[instance_id]))
            except EngineError as reason:
                log.error("instance %d: %s", instance_id, reason)
        with books.lock:
            if not books.holds.holds(instance_id, *LINGERING):
                books.put(instances.vanish(books.state.instances[instance_id]))
            books.save()

    def find_the_dead(self) -> None:
        """Notice the boxes whose processes ended by themselves."""
        with self._books.lock:
            running = [one for one in self._books.state.instances.values() if one.phase is Phase.RUNNING]
        for instance in running:
            if self._engine.alive(instance.id):
                continue
            if self._if_current(instance.id, instance.boot, instances.exited):
                log.warning("instance %d: its box ended by itself", instance.id)

    # --- what works on boxes beside their tenants ----------------------------------------------------------------

    def login_of(self, login: str) -> str:
        """Whom a box that lets in ``login`` really lets in."""
        return self._engine.login_of(login)

    def describe_engine(self) -> dict[str, Any]:
        return self._engine.describe()

    def check_volumes(self) -> None:
        """MarketError (400) where this engine's boxes cannot see a volume."""
        if not self._engine.mounts_volumes:
            raise MarketError(400, "invalid_args", "Boxes without namespaces of their own cannot mount volumes.")

    def log_text(self, instance_id: int) -> str:
        return self._engine.log(self._spec(self._books.instance(instance_id)))

    def execute(self, instance_id: int, words: Sequence[str]) -> str:
        """What a command prints in a running box. MarketError (400 invalid_args) for another, or another engine."""
        with self._locks[instance_id]:
            instance = self._books.instance(instance_id)
            if instance.phase is not Phase.RUNNING:
                raise MarketError(400, "invalid_args", f"Instance {instance_id} is not running.")
            try:
                return self._engine.execute(self._spec(instance), words)
            except EngineError as reason:
                raise MarketError(400, "invalid_args", str(reason)) from reason

    def disk(self, instance_id: int) -> contextlib.AbstractContextManager[Path]:
        """The root of an instance's disk on this machine, for the length of the block. EngineError."""
        return self._engine.disk(self._spec(self._books.instance(instance_id)))

    def rsync_daemon(self, instance_id: int) -> tuple[str, int] | None:
        """Where an rsync daemon answers over ssh for the instance; None where its engine has none."""
        instance = self._books.instance(instance_id)
        if not self._engine.has_rsync_daemon or instance.phase is not Phase.RUNNING:
            return None
        return LOOPBACK, instance.ports[0]

    def let_in(self, instance: Instance) -> None:
        """Let the instance's keys in from now on, and no others."""
        with self._locks[instance.id]:
            if instance.ever_ran:
                self._engine.set_keys(self._spec(instance))

    def renew_host_key(self, instance: Instance) -> None:
        """Another host key from the next start on. MarketError (400) without one."""
        if instance.pod is not None:
            raise MarketError(400, "invalid_args", f"Pod {instance.id} makes its host keys itself, at every start.")
        with self._locks[instance.id]:
            try:
                self._engine.renew_host_key(self._spec(instance))
            except EngineError as reason:
                raise MarketError(400, "invalid_args", str(reason)) from reason

    def cut_sessions(self, instance: Instance) -> None:
        """End the connections to a box, which runs on. MarketError (400) where the engine cannot."""
        try:
            self._engine.cut_sessions(self._spec(instance))
        except EngineError as reason:
            raise MarketError(400, "invalid_args", str(reason)) from reason

    def _pod_spec(self, instance: Instance, pod: PodTerms, machine: Machine) -> BoxSpec:
        given = pods.environment(instance, pod)
        mounted = pods.mounted(instance, pod, self._books.directory.volumes)
        for folder, _path in mounted if instance.live else ():
            folder.mkdir(parents=True, exist_ok=True)
        return BoxSpec(
            box_id=instance.id,
            directory=self._books.directory.boxes / str(instance.id),
            ports=instance.ports,
            card=replace(machine.card, count=pod.gpus),
            image=instance.image,
            keys=(*(key.public_key for key in instance.keys), *pods.own_keys(instance.env)),
            environment={**given, **instance.env},
            onstart=instance.onstart or pods.IMAGE_START,
            volumes=mounted,
            room_mib=self._books.holds.amount(instance.id, Held.DISK_FULL),
            starts_sshd=True,
        )

    def _vm_spec(self, instance: Instance, vm: VmTerms, machine: Machine) -> BoxSpec:
        """Its root disk is its own until it is deleted: neither a restart nor a shutdown wipes it."""
        return BoxSpec(
            box_id=instance.id,
            directory=self._books.directory.boxes / str(instance.id),
            ports=instance.ports,
            card=machine.card,
            image=instance.image,
            keys=tuple(key.public_key for key in instance.keys if key.named in vm.keys),
            volumes=vm.mounted(self._books.directory.volumes),
            room_mib=self._books.holds.amount(instance.id, Held.DISK_FULL),
            login=VM_LOGIN,
        )

    def _core_spec(self, instance: Instance, core: CoreTerms, machine: Machine) -> BoxSpec:
        """Its disk is its own until it is deleted. Whoever its startup script lets in is let in."""
        script = self._books.state.scripts.get(core.script, {})
        runs = bool(script) and not (script["once"] and instance.ever_ran)
        return BoxSpec(
            box_id=instance.id,
            directory=self._books.directory.boxes / str(instance.id),
            ports=instance.ports,
            card=machine.card,
            image=instance.image,
            keys=core.keys,
            onstart=script["script"] if runs else "",
            login=CORE_LOGIN,
            room_mib=self._books.holds.amount(instance.id, Held.DISK_FULL),
        )

    def _spec(self, instance: Instance) -> BoxSpec:
        machine = self._books.machine(instance.machine_id)
        if instance.pod is not None:
            return self._pod_spec(instance, instance.pod, machine)
        if instance.vm is not None:
            return self._vm_spec(instance, instance.vm, machine)
        if instance.core is not None:
            return self._core_spec(instance, instance.core, machine)
        given = {
            "CONTAINER_ID": str(instance.id),
            "CONTAINER_API_KEY": instance.api_key,
            "VAST_CONTAINERLABEL": f"C.{instance.id}",
            "PUBLIC_IPADDR": "127.0.0.1",
            "VAST_TCP_PORT_22": str(instance.ports[0]),
            **{
                f"VAST_{name.split('/')[1].upper()}_PORT_{name.split('/')[0]}": str(port)
                for name, port in instance.mapped.items()
            },
            "GPU_COUNT": str(machine.num_gpus),
        }
        return BoxSpec(
            box_id=instance.id,
            directory=self._books.directory.boxes / str(instance.id),
            ports=instance.ports,
            card=machine.card,
            image=instance.image,
            keys=tuple(key.public_key for key in instance.keys),
            environment={**given, **self._books.state.secrets, **instance.env},
            onstart=instance.onstart or "",
            volumes=tuple(
                (self._books.directory.volumes / str(number), path)
                for number, path in volumes.mounts(instance.env).items()
            ),
            room_mib=self._books.holds.amount(instance.id, Held.DISK_FULL),
            bashrc=AUTO_TMUX,
        )
