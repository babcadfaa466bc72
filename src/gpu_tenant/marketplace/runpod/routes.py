# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""RunPod's REST, version 1: pods and network volumes, below ``/v1`` as on rest.runpod.io.

Paths, statuses and fields follow RunPod's OpenAPI (runpod/docs ``api-reference/openapi.json``). Where it is silent: an
error is ``{"error", "status"}``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..calls import Call, Route
from ..refusals import MarketError
from ..replies import Reply
from .desk import PodDesk, Seen
from .orders import pod_order, volume_order
from .pods import pod_row, volume_row
from .terms import number_of

PODS, VOLUMES = "/v1/pods", "/v1/networkvolumes"


class RunpodRoutes:
    def __init__(self, desk: PodDesk) -> None:
        self._desk = desk

    def routes(self) -> list[Route]:
        one, volume = f"{PODS}/{{pod}}", f"{VOLUMES}/{{volume}}"
        return [
            self._route("GET", PODS, self.list_pods, "list"),
            self._route("POST", PODS, self.create, "create", 201),
            self._route("GET", one, self.show, "show"),
            self._route("DELETE", one, self.terminate, "destroy", 204),
            self._route("POST", f"{one}/start", self.start, "change"),
            self._route("POST", f"{one}/stop", self.stop, "change"),
            self._route("POST", f"{one}/restart", self.restart, "reboot"),
            self._route("GET", VOLUMES, self.list_volumes, "volumes"),
            self._route("POST", VOLUMES, self.create_volume, "volumes", 201),
            self._route("GET", volume, self.show_volume, "volumes"),
            self._route("DELETE", volume, self.delete_volume, "volumes", 204),
        ]

    def _route(self, method: str, path: str, handler: Callable[[Call], Any], call: str, done: int = 200) -> Route:
        """A route with RunPod's own check of the key and its own errors, in place of vast.ai's."""

        def handle(request: Call) -> Reply:
            try:
                self._desk.authorize(request.token)
                body = handler(request)
            except MarketError as refusal:
                return Reply(refusal.status, {"error": refusal.message, "status": refusal.status})
            if call == "create":
                return Reply(done, body, rented=(number_of(body["id"]),))
            return Reply(done, "" if done == 204 else body)

        return Route(method, path, handle, public=True, call=call)

    # --- pods ---------------------------------------------------------------------------------------------------

    def list_pods(self, call: Call) -> list[dict[str, Any]]:
        rows = [_row(seen, call) for seen in self._desk.pods()]
        wanted = {name: call.query[name] for name in ("name", "desiredStatus", "id") if name in call.query}
        return [row for row in rows if all(row[name] == value for name, value in wanted.items())]

    def show(self, call: Call) -> dict[str, Any]:
        return _row(self._desk.pod(_pod(call)), call)

    def create(self, call: Call) -> dict[str, Any]:
        return _row(self._desk.rent(pod_order(call.body)), call)

    def start(self, call: Call) -> dict[str, Any]:
        return _row(self._desk.start(_pod(call)), call)

    def stop(self, call: Call) -> dict[str, Any]:
        return _row(self._desk.stop(_pod(call)), call)

    def restart(self, call: Call) -> dict[str, Any]:
        return _row(self._desk.restart(_pod(call)), call)

    def terminate(self, call: Call) -> None:
        self._desk.terminate(_pod(call))

    # --- network volumes ----------------------------------------------------------------------------------------

    def list_volumes(self, _call: Call) -> list[dict[str, Any]]:
        return [volume_row(one) for one in self._desk.volumes()]

    def show_volume(self, call: Call) -> dict[str, Any]:
        return volume_row(self._desk.volume(number_of(call.parameters["volume"])))

    def create_volume(self, call: Call) -> dict[str, Any]:
        return volume_row(self._desk.make_volume(volume_order(call.body)))

    def delete_volume(self, call: Call) -> None:
        self._desk.delete_volume(number_of(call.parameters["volume"]))


def _pod(call: Call) -> int:
    return number_of(call.parameters["pod"])


def _row(seen: Seen, call: Call) -> dict[str, Any]:
    asked = [call.query.get(name, "").lower() for name in ("includeMachine", "includeNetworkVolume")]
    row = pod_row(seen.instance, seen.terms, seen.machine, seen.volume, seen.reachable, whole="true" in asked)
    return {**row, "desiredStatus": "RUNNING"} if seen.is_shown_alive else row
