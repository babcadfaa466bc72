# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""RunPod's REST, version 2: pods and network volumes, below ``/v2`` as on api.runpod.io.

Paths, statuses and fields follow RunPod's OpenAPI (runpod/docs ``api-reference-v2/openapi.json``, 2.0.0). Errors are
RFC 9457's, a field that a body may not have is a 422. Where it is silent: that no GPU is left is a 400 in the words of
the older API, and a pod that came back without GPUs has no ``gpu``, as those that never had one.
"""

from __future__ import annotations

import http
import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ..calls import Call, Route
from ..instances import Phase
from ..refusals import MarketError
from ..replies import Reply
from ..volumes import Volume
from .desk import PodDesk, Seen, cloud_of
from .orders import PodOrder, VolumeOrder, bad, pod_order
from .pods import pod_row, utc, volume_row
from .terms import number_of

PODS, VOLUMES = "/v2/pods", "/v2/network-volumes"
LEAST_VOLUME_GB, MOST_VOLUME_GB = 10, 4096
_CREATE = frozenset({
    "name", "image", "args", "disk", "ports", "env", "registry", "cloud", "cpu", "gpu", "dataCenterIds", "mounts",
    "globalNetworking", "startJupyter", "startSsh", "templateId",
})  # fmt: skip
_NOT_SIMULATED = ("registry", "cpu", "globalNetworking", "startJupyter", "templateId")
# A container whose command ended is started again by RunPod.
_BOOTING = (Phase.PROVISIONING, Phase.LOADING, Phase.REBOOTING, Phase.RECYCLING, Phase.EXITED)
_ACTIONS = {
    "RUNNING": ("stop", "restart", "terminate"),
    "EXITED": ("start", "terminate"),
    "ERROR": ("start", "terminate"),
    "PROVISIONING": ("stop", "terminate"),
    "STARTING": ("stop", "terminate"),
    "TERMINATED": (),
}
# What faults call each action; see :data:`..faults.CALLS`.
_CALLS = {"start": "change", "stop": "change", "restart": "reboot", "terminate": "destroy"}


class SecondRoutes:
    def __init__(self, desk: PodDesk) -> None:
        self._desk = desk

    def routes(self) -> list[Route]:
        one, volume = f"{PODS}/{{pod}}", f"{VOLUMES}/{{volume}}"
        return [
            self._route("GET", PODS, self.list_pods, "list"),
            self._route("POST", PODS, self.create, "create", 201),
            self._route("GET", one, self.show, "show"),
            self._route("DELETE", one, self.terminate, "destroy", 204),
            Route("POST", f"{one}/action", self.show, public=True, inner=self._action),
            self._route("GET", VOLUMES, self.list_volumes, "volumes"),
            self._route("POST", VOLUMES, self.create_volume, "volumes", 201),
            self._route("GET", volume, self.show_volume, "volumes"),
            self._route("DELETE", volume, self.delete_volume, "volumes", 204),
        ]

    def _route(self, method: str, path: str, handler: Callable[[Call], Any], call: str, done: int = 200) -> Route:
        def handle(request: Call) -> Reply:
            try:
                self._desk.authorize(request.token)
                body = handler(request)
            except MarketError as refusal:
                return _refused(refusal)
            if call == "create":
                return Reply(done, body, rented=(number_of(body["id"]),))
            return Reply(done, "" if done == 204 else body)

        return Route(method, path, handle, public=True, call=call)

    def _action(self, call: Call) -> tuple[Route, Call]:
        """The route that a transition is: faults tell them apart."""
        action = call.body.get("action")
        done = 204 if action == "terminate" else 200
        return self._route("POST", f"{PODS}/{{pod}}/action", self.act, _CALLS.get(str(action), ""), done), call

    # --- pods ---------------------------------------------------------------------------------------------------

    def list_pods(self, _call: Call) -> dict[str, Any]:
        return {"pods": [_row(seen) for seen in self._desk.pods()]}

    def show(self, call: Call) -> dict[str, Any]:
        return _row(self._desk.pod(_pod(call)))

    def create(self, call: Call) -> dict[str, Any]:
        order = _order(call.body)
        if call.body.get("startSsh") and "PUBLIC_KEY" not in order.env and self._desk.public_keys():
            order = replace(order, env={**order.env, "PUBLIC_KEY": self._desk.public_keys()})
        return _row(self._desk.rent(order))

    def act(self, call: Call) -> dict[str, Any] | None:
        action, number = call.body.get("action"), _pod(call)
        if set(call.body) != {"action"} or action not in _CALLS:
            raise _invalid(f"$.action: value must be one of {', '.join(map(repr, _CALLS))}")
        status = _status(self._desk.pod(number))
        if action not in _ACTIONS[status]:
            raise MarketError(409, "conflict", f"pod cannot {action} while it is {status}")
        if action == "terminate":
            self._desk.terminate(number)
            return None
        return _row({"start": self._desk.start, "stop": self._desk.stop, "restart": self._desk.restart}[action](number))

    def terminate(self, call: Call) -> None:
        self._desk.terminate(_pod(call))

    # --- network volumes ----------------------------------------------------------------------------------------

    def list_volumes(self, _call: Call) -> dict[str, Any]:
        return {"networkVolumes": [_volume_row(one) for one in self._desk.volumes()]}

    def show_volume(self, call: Call) -> dict[str, Any]:
        return _volume_row(self._desk.volume(number_of(call.parameters["volume"])))

    def create_volume(self, call: Call) -> dict[str, Any]:
        body = call.body
        _check_fields(body, frozenset({"name", "size", "dataCenter", "type"}), ("name", "size", "dataCenter"))
        size = body["size"]
        if isinstance(size, bool) or not isinstance(size, int) or not LEAST_VOLUME_GB <= size <= MOST_VOLUME_GB:
            raise _invalid(f"$.size: must be between {LEAST_VOLUME_GB} and {MOST_VOLUME_GB}")
        if body.get("type", "STANDARD") != "STANDARD":
            raise bad("type: only STANDARD volumes are simulated")
        return _volume_row(self._desk.make_volume(VolumeOrder(str(body["name"]), size, str(body["dataCenter"]))))

    def delete_volume(self, call: Call) -> None:
        self._desk.delete_volume(number_of(call.parameters["volume"]))


def _refused(refusal: MarketError) -> Reply:
    # That nothing is free is a refusal like any other here; version 1 calls it a mistake of the server's.
    status = 400 if refusal.code in ("no_instances", "no_gpu") else refusal.status
    title = http.HTTPStatus(status).phrase
    if refusal.code != "invalid_fields":
        return Reply(status, {"title": title, "status": status, "detail": refusal.message})
    detail = {"detail": "Request validation failed.", "errors": [refusal.message]}
    return Reply(422, {"title": "Unprocessable Entity", "status": 422, **detail})


def _invalid(problem: str) -> MarketError:
    return MarketError(422, "invalid_fields", problem)


def _check_fields(body: Mapping[str, Any], allowed: frozenset[str], needed: tuple[str, ...], place: str = "$") -> None:
    for name in needed:
        if not body.get(name):
            raise _invalid(f"{place}: missing property {name!r}")
    for name in body:
        if name not in allowed:
            raise _invalid(f"{place}: additional properties {name!r} not allowed")


def _part(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = body.get(name)
    if not isinstance(part, Mapping):
        raise _invalid(f"$.{name}: must be an object")
    return part


def _order(body: Mapping[str, Any]) -> PodOrder:
    """The order in a body, by way of version 1's words for it. MarketError (400, 422)."""
    _check_fields(body, _CREATE, ("name",))
    for name in _NOT_SIMULATED:
        if body.get(name):
            raise bad(f"{name}: not simulated")
    if not body.get("image") or "gpu" not in body:
        raise bad("image, and exactly one of gpu or cpu, are required")
    gpu = _part(body, "gpu")
    _check_fields(gpu, frozenset({"id", "count", "allowedCudaVersions", "minCudaVersion"}), ("id",), "$.gpu")
    if gpu.get("minCudaVersion"):
        raise bad("gpu.minCudaVersion: not simulated")
    try:
        command = shlex.split(body.get("args") or "")
    except ValueError as reason:
        raise bad(f"args: {reason}") from reason
    words = {
        "name": body["name"],
        "imageName": body["image"],
        "gpuTypeIds": [gpu["id"]],
        "gpuCount": gpu.get("count"),
        "allowedCudaVersions": gpu.get("allowedCudaVersions"),
        "cloudType": body.get("cloud"),
        "containerDiskInGb": body.get("disk"),
        "ports": body.get("ports") or [],
        "env": body.get("env"),
        "dataCenterIds": body.get("dataCenterIds"),
        "dockerStartCmd": command,
        "supportPublicIp": True,
        **_mounts(body),
    }
    return pod_order({name: value for name, value in words.items() if value is not None})


def _mounts(body: Mapping[str, Any]) -> dict[str, Any]:
    """The storage in a body; where it asks for none there is none."""
    mounts = _part(body, "mounts") if body.get("mounts") is not None else {}
    _check_fields(mounts, frozenset({"persistent", "network"}), (), "$.mounts")
    if mounts.get("persistent") and mounts.get("network"):
        raise bad("mounts: persistent and network are mutually exclusive")
    if mounts.get("persistent"):
        own = _part(mounts, "persistent")
        _check_fields(own, frozenset({"size", "path"}), ("size", "path"), "$.mounts.persistent")
        if isinstance(own["size"], bool) or not isinstance(own["size"], int) or own["size"] < LEAST_VOLUME_GB:
            raise _invalid(f"$.mounts.persistent.size: must be at least {LEAST_VOLUME_GB}")
        return {"volumeInGb": own["size"], "volumeMountPath": own["path"]}
    network = mounts.get("network") or []
    if not isinstance(network, list) or len(network) > 1 or not all(isinstance(one, Mapping) for one in network):
        raise _invalid("$.mounts.network: must be a list of at most one object")
    for one in network:
        _check_fields(one, frozenset({"volumeId", "path"}), ("volumeId", "path"), "$.mounts.network[0]")
        return {"networkVolumeId": one["volumeId"], "volumeMountPath": one["path"]}
    return {"volumeInGb": 0}


def _pod(call: Call) -> int:
    return number_of(call.parameters["pod"])


def _status(seen: Seen) -> str:
    phase = seen.instance.phase
    if seen.is_shown_alive or phase is Phase.RUNNING:
        return "RUNNING"
    if phase is Phase.UNLOADED:
        return "TERMINATED"
    if phase in _BOOTING:
        return "PROVISIONING" if phase is Phase.PROVISIONING else "STARTING"
    return "EXITED"


def _row(seen: Seen) -> dict[str, Any]:
    first = pod_row(seen.instance, seen.terms, seen.machine, seen.volume, seen.reachable, whole=True)
    status, pod = _status(seen), seen.terms
    runs = status == "RUNNING" and seen.reachable
    public = first["portMappings"] if runs else {}
    gpu = {"gpu": {"id": pod.gpu_type, "count": pod.gpus}} if pod.gpus else {}
    return {
        "id": first["id"],
        "name": first["name"],
        "status": status,
        "actions": list(_ACTIONS[status]),
        "image": first["image"],
        "args": seen.instance.onstart or "",
        "disk": pod.container_gb,
        "mounts": _mounted(first),
        "ports": first["ports"],
        "env": first["env"],
        "registry": None,
        **gpu,
        "cloud": cloud_of(seen.machine),
        "dataCenterId": pod.data_center,
        "cudaVersion": f"{seen.machine.cuda:.1f}",
        "ssh": {"proxy": _proxy(first["id"]), "direct": _direct(first["publicIp"], public.get("22"))},
        "template": None,
        "cost": first["costPerHr"] if status not in ("EXITED", "TERMINATED") else 0.0,
        "locked": False,
        "globalNetworking": {"enabled": False},
        "runtime": _runtime(seen, first["publicIp"], public) if runs else None,
        "createdAt": utc(seen.instance.created_at),
        "startedAt": first["lastStartedAt"],
    }


def _mounted(first: Mapping[str, Any]) -> dict[str, Any]:
    if first["networkVolume"] is not None:
        return {"network": [{"volumeId": first["networkVolume"]["id"], "path": first["volumeMountPath"]}]}
    if first["volumeInGb"]:
        return {"persistent": {"size": first["volumeInGb"], "path": first["volumeMountPath"]}}
    return {}


def _proxy(pod: str) -> dict[str, Any]:
    login = f"{pod}-64411eb2"
    return {"host": "ssh.runpod.io", "port": 22, "username": login, "command": f"ssh {login}@ssh.runpod.io"}


def _direct(address: str, port: int | None) -> dict[str, Any] | None:
    if port is None:
        return None
    return {"host": address, "port": port, "username": "root", "command": f"ssh root@{address} -p {port}"}


def _runtime(seen: Seen, address: str, public: Mapping[str, int]) -> dict[str, Any]:
    ports = [{"private": int(own), "public": port, "type": "tcp", "ip": address} for own, port in public.items()]
    idle = {"util": 0}
    gpus = [{"util": 0, "memoryUtil": 0} for _one in range(seen.terms.gpus)]
    return {"uptime": int(seen.uptime_s), "gpus": gpus, "cpu": idle, "memory": idle, "ports": ports}


def _volume_row(volume: Volume) -> dict[str, Any]:
    first = volume_row(volume)
    return {"id": first["id"], "name": first["name"], "size": first["size"], "dataCenter": first["dataCenterId"],
            "type": "STANDARD"}  # fmt: skip
