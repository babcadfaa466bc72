# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A box of each platform that is shipped, in each state that its clocks start in: on the embedded market where the
platform has an interface, else as our records and a look at the box tell of it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jinja2
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils import accrual
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from faulty_market import FaultyMarket
from machine_market import MachineMarket
from pod_market import PodMarket
from small_cloud import SmallCloud
from small_cluster import URL, SmallCluster
from vm_market import VmMarket

from gpu_tenant.box_ssh import Endpoint
from gpu_tenant.hosts import BoxHost
from gpu_tenant.observation import Observation
from gpu_tenant.observe import Observer
from gpu_tenant.question import Asked

PROFILES = Path(__file__).parents[3] / "inventories/profiles/group_vars"
SHIPPED = sorted(path.stem for path in PROFILES.glob("*.yml"))
# What the orders of these boxes say, as far as a profile counts by it.
ORDERED = {
    "provision_stop_after_s": 40 * 3600,
    "provision_terminate_after_s": 60 * 3600,
    "provision_auto_shutdown_hours": 40,
}
_TIMES = ("created_at", "parked_at", "started_at", "admitted_at", "destroyed_at")


def profile_of(platform: str) -> dict[str, Any]:
    """The profile as it is shipped, with the templates of its clocks resolved."""
    read: dict[str, Any] = yaml.safe_load((PROFILES / f"{platform}.yml").read_text())
    environment = jinja2.Environment()  # noqa: S701 - no page is made of it
    for clock in read["platform_clocks"]:
        clock["after"] = environment.from_string(clock["after"]).render(ORDERED)
    return read


# Those that an account pays for.
RENTED = [name for name in SHIPPED if profile_of(name)["platform_driver"]]


class Killed(BaseException):
    """The controller dies here."""


@dataclass
class World:
    """One box of one platform, by hand."""

    platform: str
    folder: Path
    name: str = "box-a"
    contact: str = "answered"
    batch: Mapping[str, Any] = field(default_factory=dict)
    aged: float = 0.0

    def __post_init__(self) -> None:
        self.profile = profile_of(self.platform)
        self.store = StateStore(str(self.folder / "state"))

    @property
    def host(self) -> BoxHost:
        facts = {"tenant_project": "digits", "tenant_state_dir": self.store.root}
        return BoxHost(self.name, {**self.profile, **facts})

    def observer(self, *_unused: Any, **_options: Any) -> Observer:
        """The real one; only the connection to the box is not made."""
        return _Eyes(self)

    def client(self) -> Any:
        raise AssertionError("there is no interface to ask")

    # -- what comes to pass ----------------------------------------------------------------------------------------

    def rent(self) -> None:
        self._note(provider_id="ssh:h:22", platform=self.platform, admitted_at=records.utc_now())

    def begin(self, starts_at: str) -> None:
        """Bring the box there where the clocks of this start run."""
        if starts_at == "stopped":
            self.contact = "unreachable"
            self._note(parked_at=records.utc_now())
        elif starts_at == "released":
            self.contact = "unreachable"
            self._note(destroyed_at=records.utc_now())

    def tell(self, deadline: str, left_s: float) -> bool:
        """Let whoever knows it tell when a deadline is; whether there is anybody."""
        if deadline == "time_limit":
            self.batch = {"job": "12", "state": "RUNNING", "left_s": left_s}
        return deadline == "time_limit"

    def age_to(self, ago: float) -> None:
        """All that our records know was so long ago, and not when it was written."""
        seconds, self.aged = ago - self.aged, ago
        path = Path(self.store.journal_path)
        if path.exists():
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            path.write_text("".join(json.dumps({**line, "at": earlier(line["at"], seconds)}) + "\n" for line in lines))
        record = self.record()
        self._note(**{name: earlier(record[name], seconds) for name in _TIMES if record.get(name)})

    def forget(self) -> None:
        """An empty disk: nobody of ours knows since when."""
        self.store = StateStore(str(self.folder / "another"))

    def record(self) -> dict[str, Any]:
        return self.store.read_box("digits", self.name, 1) or {}

    def _note(self, **changes: Any) -> None:
        self.store.update_box("digits", self.name, 1, **changes)


class _Eyes(Observer):
    def __init__(self, world: World) -> None:
        super().__init__([world.host], "")
        self._world = world

    def client(self, box: str) -> Any:
        return self._clients.setdefault((self._world.platform, "one"), self._world.client())

    def _ask(self, host: BoxHost, seen: Observation, endpoint: Endpoint, asked: Asked) -> Observation:
        return replace(seen, contact=self._world.contact, batch=self._world.batch)


class Rented(World):
    """On a market in this process."""

    market: Any
    ROW = "instance"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.store = self.market.store

    def rent(self) -> None:
        self.bring("started")

    def bring(self, state: str, check: bool = False, **order: Any) -> Any:
        """What the module of this market returns."""
        return self.market.bring(state, check=check, **order)

    def begin(self, starts_at: str) -> None:
        if starts_at == "stopped":
            self.bring("stopped")
        elif starts_at == "released":
            self.bring("absent")


class Vast(Rented):
    def __post_init__(self) -> None:
        self.name = "vast-a"
        self.market = FaultyMarket(self.folder, credit=50_000.0)
        super().__post_init__()

    def client(self) -> Any:
        return self.market.client()

    def bring(self, state: str, check: bool = False, **order: Any) -> Any:
        return self.market.converge(state, check=check, **order)

    def tell(self, deadline: str, left_s: float) -> bool:
        if deadline == "rental_end":
            market = self.market.market
            (rented,) = [one for one in market.books.state.instances.values() if one.live]
            market.books.put(replace(rented, ends_at=market.clock.now() + left_s))
        return deadline == "rental_end"


class Runpod(Rented):
    def __post_init__(self) -> None:
        self.name = "pod-a"
        self.market = PodMarket(self.folder)
        super().__post_init__()

    def client(self) -> Any:
        return self.market.pod_client()

    def tell(self, deadline: str, left_s: float) -> bool:
        noted = {"stop_after": "stops_at", "terminate_after": "terminates_at"}.get(deadline, "")
        if noted:
            now = self.market.pod_client()
            now.list_instances()
            self._note(**{noted: utc(now.provider_now() + left_s)})
        return bool(noted)


class Lambda(Rented):
    def __post_init__(self) -> None:
        self.market = VmMarket(self.folder)
        super().__post_init__()

    def client(self) -> Any:
        return self.market.vm_client()

    def begin(self, starts_at: str) -> None:
        if starts_at == "stopped":  # from inside, there is no other way
            self.market.shut_down(str(self.record()["provider_id"]))
        else:
            super().begin(starts_at)


class Paperspace(Rented):
    def __post_init__(self) -> None:
        self.market = MachineMarket(self.folder)
        super().__post_init__()

    def client(self) -> Any:
        return self.market.machine_client()

    def bring(self, state: str, check: bool = False, **order: Any) -> Any:
        return super().bring(state, check, auto_shutdown_h=ORDERED["provision_auto_shutdown_hours"], **order)

    def tell(self, deadline: str, left_s: float) -> bool:
        if deadline == "auto_shutdown":  # a list of machines does not say when they were started; our records do
            self.age_to(ORDERED["provision_auto_shutdown_hours"] * 3600 - left_s)
        return deadline == "auto_shutdown"


class AwsSpot(Rented):
    def __post_init__(self) -> None:
        self.market = SmallCloud(self.folder)
        super().__post_init__()

    def client(self) -> Any:
        return self.market.client()


class Cluster(World):
    """A run is a Job there: what our records would know of a box says nothing."""

    JOB = "digits"
    DEADLINE_S = 40 * 3600

    def __post_init__(self) -> None:
        super().__post_init__()
        self.cluster = SmallCluster(self.folder)
        self.store = self.cluster.store
        self.manifest = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                "name": self.JOB,
                "labels": {"app.kubernetes.io/managed-by": "gpu-tenant"},
                "annotations": {f"gpu-tenant/{name}": name for name in ("run", "spec-sha256", "code-sha256")},
            },
            "spec": {
                "activeDeadlineSeconds": self.DEADLINE_S,
                "backoffLimit": 2,
                "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "trainer"}]}},
            },
        }
        (self.folder / "job.yml").write_text(yaml.safe_dump(self.manifest))

    @property
    def host(self) -> BoxHost:
        told = {"kubernetes_manifests": str(self.folder / "job.yml"), "kubernetes_api_url": URL}
        return BoxHost(self.name, {**super().host.variables, **told})

    def client(self) -> Any:
        return self.cluster.client()

    def rent(self) -> None:
        made = json.loads(json.dumps(self.manifest))
        self.job = self.cluster.put("Job", self.JOB, metadata=made["metadata"], spec=made["spec"])
        labels = {"batch.kubernetes.io/job-name": self.JOB}
        self.cluster.put("Pod", "digits-x", metadata={"labels": labels}, status={"phase": "Running"})

    def begin(self, starts_at: str) -> None:
        if starts_at == "stopped":
            self.job["status"] = {"conditions": [{"type": "Complete", "status": "True"}], "succeeded": 1}
        elif starts_at == "released":
            self.job["spec"]["ttlSecondsAfterFinished"] = 3600

    def tell(self, deadline: str, left_s: float) -> bool:
        if deadline == "job_deadline":
            self.job["status"]["startTime"] = utc(time.time() + left_s - self.DEADLINE_S)
        return deadline == "job_deadline"


# By driver; a platform whose driver is not named here cannot be shown to be watched, and its test says so.
WORLDS: Mapping[str, type[World]] = {
    "": World,
    "vast": Vast,
    "runpod": Runpod,
    "lambda": Lambda,
    "paperspace": Paperspace,
    "aws_spot": AwsSpot,
}


def world_of(platform: str, folder: Path) -> World:
    profile = profile_of(platform)
    if profile["platform_kind"] == "kubernetes":
        return Cluster(platform, folder)
    return WORLDS[profile["platform_driver"]](platform, folder)


def earlier(moment: str, seconds: float) -> str:
    return utc(records.parse_utc(moment).timestamp() - seconds)


def utc(epoch: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch))


def account_states(world: Rented) -> dict[str, str]:
    """How the account of each machine stands, by the provider's id."""
    acts = accrual.acts_by_machine(Journal(world.store).lines())
    return {key[2]: accrual.intervals(held, records.utc_now())[1] for key, held in acts.items()}
