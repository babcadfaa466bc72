# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Renting a Spot Instance: one request at a time, within the cap, until it is filled or taken back.

EC2 answers a request at once and fills it later, or never. One that was not filled within the deadline is cancelled,
and the cancelled request is read once more: EC2 may have filled it in that moment.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Mapping, Sequence

from ..budget import budget_problem
from ..creation import Creation
from ..dollar_budgets import NO_BUDGETS, Budgets
from ..endpoint import check_endpoint
from ..failures import TenantFailure
from ..named_rental import NamedRental
from ..rental_waiters import DeadlinePassed, wait_for
from ..rest_client import AmbiguousAnswer, RestError
from ..stamp import Stamp
from .actions import SpotAccount
from .api import ENDED_REQUESTS, LOGIN_TAG, STAMP_TAG
from .transformations import LOGIN, SSH_PORT, SpotBox, disk_rate

# A lost answer: EC2 takes the same token for the same request, so that sending again makes no second one.
_SENDS = 3
_REQUEST = "sir-"


@dataclass(frozen=True)
class SpotOrder:
    """What to rent. ``instance_types`` are tried in their order.

    :param image: the id of a machine image of the region.
    :param public_key: what is let in, as it stands in a ``.pub`` file.
    :param ssh_user, ssh_port: how one logs in there, which the image decides.
    :param disk_gb: the root disk.
    :param budget_per_hour: the most that all of the project may cost an hour together; None for no limit.
    :param budgets: what the run and the project may cost in all.
    :param price_cap: the most that an hour may cost, in dollars, root disk included.
    :param capacity_wait_s: for how long a request of one type may stay unfilled.
    """

    project: str
    name: str
    instance_types: Sequence[str] = ()
    image: str = ""
    public_key: str = ""
    ssh_user: str = LOGIN
    ssh_port: int = SSH_PORT
    security_groups: Sequence[str] = ()
    subnet: str = ""
    disk_gb: int = 0
    price_cap: float | None = None
    budget_per_hour: float | None = None
    budgets: Budgets = NO_BUDGETS
    capacity_wait_s: float = 300.0
    wait_s: float = 900.0

    @property
    def max_price(self) -> float:
        """What is left of the cap for the instance, once its disk is paid."""
        return round((self.price_cap or 0.0) - disk_rate(self.disk_gb), 4)

    @property
    def key_name(self) -> str:
        """A key pair is known by the key that it holds, so that two teams never share a name."""
        return f"gpu-tenant-{hashlib.sha256(' '.join(self.public_key.split()[:2]).encode()).hexdigest()[:12]}"


class SpotRental(NamedRental[SpotBox]):
    MOST_NAME = 256
    SOLD_OUT = "name more instance_types, another subnet (zone) or region, raise price_cap, or try again later"
    TOO_DEAR = "raise price_cap, or name other instance_types"
    TRY_ELSEWHERE = "run again, or name other instance_types or another subnet"

    def __init__(self, account: SpotAccount, order: SpotOrder) -> None:
        super().__init__(account, order)
        self.account = account
        self.order = order
        self._root_device = ""

    def terms(self) -> dict[str, Any]:
        order = self.order
        return {"instance_types": list(order.instance_types), "max_price": order.max_price, "disk_gb": order.disk_gb}

    def rent(self) -> tuple[SpotBox, bool]:
        self.checked_order()
        self.account.client.ensure_key(self.order.key_name, self.order.public_key)
        return super().rent()

    def checked_order(self) -> None:
        """TenantFailure for what could not be rented whatever is free."""
        order, client = self.order, self.account.client
        image = client.get_image(order.image)
        if image is None:
            raise self._refused(f"{client.region} has no machine image {order.image} for this account", "correct image")
        self._root_device = str(image.get("RootDeviceName") or "")
        needed = _root_gb(image, self._root_device)
        if order.disk_gb < needed:
            raise self._refused(
                f"the root disk of {order.image} has {needed} GB, and disk_gb is {order.disk_gb}",
                f"set disk_gb (resources.disk_gb of the run spec) to at least {needed}",
            )
        unknown = [kind for kind in order.instance_types if not client.get_kind(kind)]
        if unknown:
            raise self._refused(
                f"{client.region} has no instance type {', '.join(unknown)}", "correct instance_types or the region"
            )

    # -- one request ---------------------------------------------------------------------------------------------

    def send(self, stamp: Stamp) -> str:
        """The instance that came of it. RestError ``no_capacity`` where no type was to be had; none is left asked."""
        said = []
        for kind in self.order.instance_types:
            Creation(self.account, stamp).note_sending()
            try:
                return self.settled(self._request(stamp, kind))
            except AmbiguousAnswer:
                raise
            except RestError as refusal:
                if refusal.code != "no_capacity":
                    raise
                said.append(f"{kind}: {refusal.what}")
        raise RestError("; ".join(said), 400, "no_capacity", "nothing was rented")

    def _request(self, stamp: Stamp, kind: str) -> str:
        body = request_body(self.order, stamp, kind, self._root_device)
        for _again in range(_SENDS - 1):
            try:
                return self.account.client.request_spot(body)
            except AmbiguousAnswer:
                continue
        return self.account.client.request_spot(body)

    def settled(self, request_id: str) -> str:
        """The instance of a request, within the deadline. RestError once the request is ended without one.

        AmbiguousAnswer where EC2 does not say what became of it: then the stamp is looked for.
        """
        client = self.account.client
        told: list[str] = []

        def answered() -> Mapping[str, Any] | None:
            request = client.get_request(request_id)
            if request is None:
                return None
            status = request.get("Status") or {}
            told[:] = [f"{status.get('Code', '')}: {status.get('Message', '')}"[:200]]
            return request if request.get("InstanceId") or request["State"] in ENDED_REQUESTS else None

        try:
            request = wait_for(client, answered, self.order.capacity_wait_s)
        except DeadlinePassed:
            request = self._taken_back(request_id)
        except RestError as error:
            raise AmbiguousAnswer(
                f"what became of {request_id} is not known ({error.what})", error.status, "unanswered"
            ) from None
        if request.get("InstanceId"):
            return str(request["InstanceId"])
        why = told[0] if told else "EC2 does not say why"
        raise RestError(f"request {request_id} was not filled ({why})", 400, "no_capacity", "it is cancelled")

    def _taken_back(self, request_id: str) -> Mapping[str, Any]:
        client = self.account.client

        def ended() -> Mapping[str, Any] | None:
            request = client.get_request(request_id)
            if request is None:
                return {"State": "cancelled"}
            return request if request.get("InstanceId") or request["State"] in ENDED_REQUESTS else None

        try:
            client.cancel_request(request_id)
            return wait_for(client, ended, self.order.wait_s)
        except (RestError, DeadlinePassed) as error:
            what = f"request {request_id} was not filled in time, and that it is cancelled is not known ({error})"
            raise AmbiguousAnswer(what, 0, "unanswered") from None

    def _sent(self, creation: Creation[SpotBox]) -> str:
        """As the base class; a request that only its stamp told of is waited for in its turn."""
        found = super()._sent(creation)
        return self._settled_or_refused(found) if found.startswith(_REQUEST) else found

    def _settled_or_refused(self, request_id: str) -> str:
        try:
            return self.settled(request_id)
        except RestError as refusal:
            kind = "no_offer" if refusal.code == "no_capacity" else "provider"
            raise self.nothing_rented(refusal.what, kind) from None

    def resumed(self, waiting: SpotBox) -> SpotBox:
        """What comes of a request that a process left behind which did not live to see it filled."""
        if waiting.stamp is None:
            raise AssertionError("only stamped requests are listed")
        with self.account.lock():
            found = self._settled_or_refused(waiting.provider_id)
            box = Creation(self.account, waiting.stamp).shown(found)
            # The record is the request's so far, and no line tells of an instance.
            self.account.remember(box)
        return self.running(box, is_new=True)

    # -- what came of it -----------------------------------------------------------------------------------------

    def running(self, box: SpotBox, is_new: bool) -> SpotBox:
        """As the base class. One that another process asked for is as far as that came: a request that may yet be
        filled, or an instance without its tags."""
        if box.is_waiting:
            return self.resumed(box)
        if not is_new:
            self.account.ensure_tagged(box)
        return super().running(box, is_new)

    def refuse_dearer(self, box: SpotBox) -> None:
        """By the request's own limit, as :meth:`_price_problem`; EC2 forgets a request before its instance ends."""
        problem = self._price_problem(box) if box.max_price is not None else ""
        if problem:
            raise TenantFailure(
                "budget",
                f"instance {box.provider_id}: {problem}",
                box=self.order.name,
                safe="it was left as it is, and it bills",
                fix="consent to that price (raise price_cap), or harvest it and make it absent",
            )

    def checked(self, box: SpotBox) -> SpotBox:
        if box.lifecycle != "spot":
            raise TenantFailure("provider", f"{box.provider_id} is billed on demand, and not as a Spot Instance")
        self.account.ensure_tagged(box)
        return self.account.look(box) or box

    def _price_problem(self, box: SpotBox) -> str:
        """EC2 never bills more than the request's own limit, so that one is compared, and not the price of today."""
        if box.max_price is None:
            return f"EC2 does not say up to which price {box.provider_id} is billed"
        most, cap = box.max_price + (box.storage_per_hour or 0.0), self.order.price_cap
        if cap is not None and most > cap + 1e-3:
            return f"it may cost up to ${most:.4f} an hour with its disks, above the price_cap of ${cap}"
        return ""

    def _refused(self, what: str, fix: str) -> TenantFailure:
        return TenantFailure("config", what, box=self.order.name, safe="nothing was rented", fix=fix)


def order_problem(order: SpotOrder) -> str:
    """Why an order cannot be one, whatever EC2 has; empty where it can."""
    if not order.instance_types or not order.image:
        return "instance_types and image say what to rent, and one of them is empty"
    if not order.security_groups:
        return "security_groups is empty: the default group lets nobody in by ssh, and the instance would bill unseen"
    if len(order.public_key.split()) < 2:
        return "public_key is not the text of a public key"
    try:
        check_endpoint("localhost", order.ssh_port, order.ssh_user)
    except TenantFailure:
        return f"ssh_user {order.ssh_user!r} and ssh_port {order.ssh_port} are no way to log in"
    if order.price_cap is None or not 0 < order.price_cap < float("inf"):
        return f"price_cap is {order.price_cap}: renting without one above 0 is not consented to"
    if budget_problem(order.budget_per_hour):
        return budget_problem(order.budget_per_hour)
    if order.max_price <= 0:
        return f"the price_cap of ${order.price_cap} an hour does not even pay for a disk of {order.disk_gb} GB"
    if order.capacity_wait_s <= 0 or order.wait_s <= 0:
        return "capacity_wait_s and wait_s must be above 0"
    return ""


def request_body(order: SpotOrder, stamp: Stamp, kind: str, root_device: str) -> dict[str, Any]:
    """One request, in the words of ``amazon.aws.ec2_spot_instance``."""
    token = hashlib.sha256(f"{stamp}\0{kind}\0{order.subnet}".encode()).hexdigest()
    disk = {"volume_size": order.disk_gb, "volume_type": "gp3", "delete_on_termination": True}
    placed = {"subnet_id": order.subnet} if order.subnet else {}
    return {
        "client_token": token,
        "spot_price": f"{order.max_price:.4f}",
        "spot_type": "one-time",
        "interruption": "terminate",
        "tags": {STAMP_TAG: str(stamp), LOGIN_TAG: f"{order.ssh_user}:{order.ssh_port}"},
        "launch_specification": {
            "image_id": order.image,
            "instance_type": kind,
            "key_name": order.key_name,
            "security_group_ids": list(order.security_groups),
            "block_device_mappings": [{"device_name": root_device, "ebs": disk}] if root_device else [],
            **placed,
        },
    }


def _root_gb(image: Mapping[str, Any], root_device: str) -> int:
    for one in image.get("BlockDeviceMappings") or []:
        if one.get("DeviceName") == root_device:
            return int((one.get("Ebs") or {}).get("VolumeSize") or 0)
    return 0
