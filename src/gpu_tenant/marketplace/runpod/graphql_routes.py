# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""RunPod's GraphQL, at ``/graphql`` as on api.runpod.io: what its Python SDK asks of pods, unmodified.

The language is graphql-core's work; here are the answers. As RunPod's server does it, what was asked well is answered
with 200 and its failures stand in ``errors``, another key with 401, and what the schema does not have with 400.
"""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..calls import Call, Route
from ..offers import Machine
from ..refusals import MarketError
from ..replies import Reply
from .desk import PodDesk, Seen, cloud_of
from .graphql_schema import SCHEMA
from .orders import PodOrder, bad, moment_in, pod_order
from .pods import DATA_CENTERS, GPU_TYPES, desired_status, pod_row, volume_row
from .terms import number_of

if TYPE_CHECKING:
    import graphql

PATH = "/graphql"
# The account that the market lets by its one key, as on vast.ai's side.
_USER = "user_100001"
# What faults call each field; see :data:`..faults.CALLS`.
_CALLS = {
    "pod": "show",
    "gpuTypes": "search",
    "podFindAndDeployOnDemand": "create",
    "deployCpuPod": "create",
    "podStop": "change",
    "podResume": "change",
    "podTerminate": "destroy",
    "updateUserSettings": "keys",
}


@dataclass
class Doing:
    """What is remembered of one request while its fields are answered."""

    rented: list[int] = field(default_factory=list)


class GraphqlRoutes:
    def __init__(self, desk: PodDesk) -> None:
        self._desk = desk

    def routes(self) -> list[Route]:
        return [Route("POST", PATH, self.answer, public=True, inner=self._inner)]

    def _inner(self, call: Call) -> tuple[Route, Call]:
        """The route of the first field that is asked for, about the pod that it names: what faults go by."""
        name, selected, pod = _first_field(call.body)
        kind = "list" if name == "myself" and "pods" in selected else "user" if name == "myself" else _CALLS.get(name)
        about = {"pod": pod} if pod else {}
        return Route("POST", PATH, self.answer, public=True, call=kind or ""), replace(call, parameters=about)

    def answer(self, call: Call) -> Reply:
        import graphql

        try:
            self._desk.authorize(call.token)
        except MarketError as refusal:
            return Reply(refusal.status, {"errors": [{"message": refusal.message}]})
        query, variables = call.body.get("query"), call.body.get("variables")
        if not isinstance(query, str) or not isinstance(variables or {}, Mapping):
            return _refused([{"message": "POST body missing, invalid Content-Type, or JSON object has no keys."}])
        try:
            document = graphql.parse(query)
        except graphql.GraphQLSyntaxError as error:
            return _refused([_shown(error, "GRAPHQL_PARSE_FAILED")])
        problems = graphql.validate(_schema(), document)
        if problems:
            return _refused([_shown(error, "GRAPHQL_VALIDATION_FAILED") for error in problems])
        doing = Doing()
        done = graphql.execute_sync(
            _schema(), document, root_value=self._root(doing), variable_values=dict(variables or {}),
            operation_name=call.body.get("operationName"),
        )  # fmt: skip
        body: dict[str, Any] = {"data": done.data}
        if done.errors:
            body["errors"] = [_shown(error, "RUNPOD") for error in done.errors]
        return Reply(200, body, rented=tuple(doing.rented))

    def _root(self, doing: Doing) -> dict[str, Callable[..., Any]]:
        desk = self._desk
        return {
            "myself": lambda _info: self._user(),
            "pod": lambda _info, input=None: self._pod(input),
            "gpuTypes": lambda _info, input=None: self._gpu_types(input or {}),
            "podFindAndDeployOnDemand": lambda _info, input=None: self._deploy(input or {}, doing),
            "deployCpuPod": _no_cpu_pods,
            "podStop": lambda _info, input: _row(desk.stop(number_of(input["podId"]))),
            "podResume": lambda _info, input: self._resume(input),
            "podTerminate": lambda _info, input: desk.terminate(number_of(input["podId"])),
            "updateUserSettings": lambda _info, input=None: self._set_keys(input or {}),
        }

    # --- pods ---------------------------------------------------------------------------------------------------

    def _pod(self, asked: Mapping[str, Any] | None) -> dict[str, Any] | None:
        try:
            return _row(self._desk.pod(number_of((asked or {}).get("podId", ""))))
        except MarketError:
            return None  # as RunPod answers for a pod that is not there

    def _deploy(self, asked: Mapping[str, Any], doing: Doing) -> dict[str, Any]:
        seen = self._desk.rent(_order(asked))
        doing.rented.append(seen.instance.id)
        return _row(seen)

    def _resume(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        number, wanted = number_of(asked["podId"]), asked.get("gpuCount")
        had = self._desk.pod(number).terms.gpu_count
        if wanted is not None and wanted != had:
            raise bad(f"gpuCount: a pod is resumed with the {had} GPUs that it was rented with")
        return _row(self._desk.start(number))

    # --- the account and the catalogue --------------------------------------------------------------------------

    def _user(self) -> dict[str, Any]:
        desk = self._desk
        return {
            "id": _USER,
            "pubKey": desk.public_keys(),
            "clientBalance": desk.balance(),
            "pods": lambda _info: [_row(one) for one in desk.pods()],
            "networkVolumes": lambda _info: [volume_row(one) for one in desk.volumes()],
        }

    def _set_keys(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        if asked.get("pubKey") is not None:
            self._desk.set_public_keys(asked["pubKey"])
        return self._user()

    def _gpu_types(self, asked: Mapping[str, Any]) -> list[dict[str, Any]]:
        wanted = [*(asked.get("ids") or []), *([asked["id"]] if asked.get("id") else [])]
        by_type: dict[str, list[Machine]] = {}
        for machine in self._desk.machines():
            by_type.setdefault(GPU_TYPES[machine.model.name], []).append(machine)
        free = {one.machine_id for one in self._desk.free_machines()}
        return [_gpu_type(name, machines, free) for name, machines in by_type.items() if not wanted or name in wanted]


@functools.cache
def _schema() -> graphql.GraphQLSchema:
    import graphql

    return graphql.build_schema(SCHEMA)


def _refused(errors: list[dict[str, Any]]) -> Reply:
    return Reply(400, {"errors": errors})


def _shown(error: Any, code: str) -> dict[str, Any]:
    """An error as Apollo's server, which RunPod's is, shows it. A mistake of ours is not told as the client's."""
    original = getattr(error, "original_error", None)
    if original is not None and not isinstance(original, MarketError):
        raise original
    message = original.message if isinstance(original, MarketError) else error.message
    shown = {"message": message, "extensions": {"code": code}}
    return {**shown, "path": error.path} if error.path else shown


def _first_field(body: Mapping[str, Any]) -> tuple[str, frozenset[str], str]:
    """The first field of a request, what of it is wanted, and the pod that it names; nothing for no request."""
    import graphql

    try:
        document = graphql.parse(str(body.get("query") or ""))
    except graphql.GraphQLSyntaxError:
        return "", frozenset(), ""
    for operation in document.definitions:
        if not isinstance(operation, graphql.OperationDefinitionNode):
            continue
        for one in operation.selection_set.selections:
            if isinstance(one, graphql.FieldNode):
                below = one.selection_set.selections if one.selection_set else ()
                names = frozenset(part.name.value for part in below if isinstance(part, graphql.FieldNode))
                return one.name.value, names, _pod_named(one, body.get("variables") or {})
    return "", frozenset(), ""


def _pod_named(asked: graphql.FieldNode, variables: Mapping[str, Any]) -> str:
    import graphql

    for argument in asked.arguments or ():
        given = graphql.value_from_ast_untyped(argument.value, dict(variables))
        if isinstance(given, Mapping) and isinstance(given.get("podId"), str):
            return str(given["podId"])
    return ""


def _no_cpu_pods(_info: Any, input: Any = None) -> None:
    raise bad("deployCpuPod: only GPU pods are simulated")


def _order(asked: Mapping[str, Any]) -> PodOrder:
    """The order in an input, by way of the REST's words for it. MarketError for what is not simulated."""
    for name in ("templateId", "countryCode", "minCudaVersion", "minDownload", "minUpload", "startJupyter"):
        if asked.get(name):
            raise bad(f"{name}: not simulated")
    types = [*(asked.get("gpuTypeIdList") or []), *([asked["gpuTypeId"]] if asked.get("gpuTypeId") else [])]
    if not types:
        raise bad("gpuTypeId: is required")
    cloud = asked.get("cloudType") or "ALL"
    try:
        command = shlex.split(asked.get("dockerArgs") or "")
    except ValueError as reason:
        raise bad(f"dockerArgs: {reason}") from reason
    words = {
        "name": asked.get("name"),
        "imageName": asked.get("imageName"),
        "gpuTypeIds": types,
        "gpuCount": asked.get("gpuCount"),
        "cloudType": "SECURE" if cloud == "ALL" else cloud,
        "supportPublicIp": asked.get("supportPublicIp", True),
        "containerDiskInGb": asked.get("containerDiskInGb"),
        "volumeInGb": asked.get("volumeInGb") or 0,
        "volumeMountPath": asked.get("volumeMountPath"),
        "networkVolumeId": asked.get("networkVolumeId"),
        "ports": [one for one in (asked.get("ports") or "").split(",") if one],
        "env": {one["key"]: one["value"] for one in asked.get("env") or []},
        "dataCenterIds": [asked["dataCenterId"]] if asked.get("dataCenterId") else [],
        "allowedCudaVersions": asked.get("allowedCudaVersions") or [],
        "dockerStartCmd": command,
    }
    order = pod_order({name: value for name, value in words.items() if value is not None})
    return replace(
        order,
        cloud_type=cloud,
        stop_after=moment_in("stopAfter", asked.get("stopAfter")),
        terminate_after=moment_in("terminateAfter", asked.get("terminateAfter")),
    )


def _row(seen: Seen) -> dict[str, Any]:
    row = pod_row(seen.instance, seen.terms, seen.machine, seen.volume, seen.reachable, whole=True)
    runs = desired_status(seen.instance) == "RUNNING" and seen.reachable
    uptime = int(seen.uptime_s) if runs else 0
    return {
        **row,
        "desiredStatus": "RUNNING" if seen.is_shown_alive else row["desiredStatus"],
        "imageName": row["image"],
        "gpuCount": seen.terms.gpus,
        "networkVolumeId": (row["networkVolume"] or {}).get("id"),
        "dockerArgs": seen.instance.onstart or "",
        "dockerId": None,
        "env": [f"{name}={value}" for name, value in row["env"].items()],
        "ports": ",".join(row["ports"]),
        "port": None,
        "podType": "RESERVED",
        "uptimeSeconds": uptime,
        "runtime": {"uptimeInSeconds": uptime, "ports": _ports(row)} if runs else None,
        "machine": {
            **row["machine"],
            "podHostId": f"{row['id']}-{seen.machine.machine_id:08x}",
            "gpuDisplayName": seen.machine.model.name,
            "location": seen.machine.geolocation[-2:],
        },
    }


def _ports(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"ip": row["publicIp"], "isIpPublic": True, "privatePort": int(own), "publicPort": public, "type": "tcp"}
        for own, public in row["portMappings"].items()
    ]


def _gpu_type(name: str, machines: list[Machine], free: set[int]) -> dict[str, Any]:
    model = machines[0].model
    prices = {
        cloud: min((one.price / one.num_gpus for one in machines if cloud_of(one) == cloud), default=None)
        for cloud in ("SECURE", "COMMUNITY")
    }

    def lowest(_info: Any, input: Mapping[str, Any] | None = None) -> dict[str, Any]:
        asked = input or {}
        cloud = {True: "SECURE", False: "COMMUNITY"}.get(asked.get("secureCloud"))  # type: ignore[arg-type]
        place = asked.get("dataCenterId")
        fitting = [
            one.price / one.num_gpus
            for one in machines
            if one.machine_id in free
            and one.num_gpus >= (asked.get("gpuCount") or 1)
            and cloud in (None, cloud_of(one))
            and place in (None, DATA_CENTERS[one.geolocation])
        ]
        stock = "High" if len(fitting) > 2 else "Low" if fitting else "None"
        return {"minimumBidPrice": None, "uninterruptablePrice": min(fitting, default=None), "stockStatus": stock}

    return {
        "id": name,
        "displayName": model.name,
        "manufacturer": "Nvidia",
        "memoryInGb": round(model.memory_mb / 1024),
        "maxGpuCount": max(one.num_gpus for one in machines),
        "secureCloud": prices["SECURE"] is not None,
        "communityCloud": prices["COMMUNITY"] is not None,
        "securePrice": prices["SECURE"],
        "communityPrice": prices["COMMUNITY"],
        "lowestPrice": lowest,
    }
