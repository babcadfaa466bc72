# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The marketplace as an HTTP server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import uvicorn
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as HttpRoute
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from .api import Api
from .calls import Call, Route
from .config import MarketplaceConfig
from .engines.base import Engine
from .engines.none import NoEngine
from .engines.podman import PodmanEngine
from .engines.process import ProcessEngine
from .market import Market
from .ready_rows import json_text
from .refusals import MarketError
from .replies import Reply, refusal_reply
from .requests import read_body, read_query, token_in
from .state import StateDirectory

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Served:
    """A marketplace that answers: where, with whose key, and what holds its boxes."""

    url: str
    engine: dict[str, Any]


def build_engine(config: MarketplaceConfig) -> Engine:
    if config.engine == "process":
        return ProcessEngine()
    if config.engine == "podman":
        return PodmanEngine(config.image, config.state)
    if config.engine == "none":
        return NoEngine()
    raise TenantFailure("config", f"there is no engine {config.engine!r}", fix="Take process, podman or none")


def build_application(api: Api, market: Market) -> Starlette:
    """Routes with and without a trailing slash; nothing redirects, a redirected PUT would become a GET."""
    routes = []
    for route in api.routes():
        endpoint = _endpoint(api, market, route)
        routes += [HttpRoute(path, endpoint, methods=[route.method]) for path in (route.path, route.path + "/")]
    routes += [HttpRoute("/{path:path}", _unknown(market), methods=["GET", "POST", "PUT", "DELETE"])]
    application = Starlette(routes=_merged(routes))
    application.router.redirect_slashes = False
    return application


def serve(config: MarketplaceConfig, announce: Callable[[Served], None] | None = None) -> None:
    """Serve until interrupted or terminated; then end every box's processes.

    :param announce: called once the marketplace answers.
    :raises TenantFailure: (config) for a port in use, a missing tool or a state that another server holds.
    """
    engine = build_engine(config)
    engine.check()
    directory = StateDirectory(config.state)
    with _listening(config) as listener:
        directory.acquire()
        try:
            market = Market(config, engine, directory)
            application = build_application(Api(market, config.api_key, config.rate_limits), market)
            server = _Server(
                uvicorn.Config(
                    application, log_level="warning", access_log=False, date_header=False, server_header=False,
                    timeout_graceful_shutdown=2, lifespan="off", http=_OpenHandedProtocol,
                ),
                lambda: announce(Served(_url(listener), engine.describe())) if announce else None,
            )  # fmt: skip
            market.open()
            try:
                server.run(sockets=[listener])
            finally:
                with _undisturbed():
                    market.close()
        finally:
            directory.release()


class _OpenHandedProtocol(H11Protocol):
    """Shows an application the connection that its request came by, so that it can end it without an answer."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


class _CutConnection(Response):
    """No answer: the connection ends instead."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        transport = scope.get("state", {}).get("transport")
        if transport is None:  # a client in this process
            raise ConnectionResetError("a fault of the marketplace ended the connection")
        transport.close()
        while (await receive())["type"] != "http.disconnect":
            pass


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._started()


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """A second Ctrl-C must not leave half of the boxes alive; ending them has deadlines of its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@contextlib.contextmanager
def _listening(config: MarketplaceConfig) -> Iterator[socket.socket]:
    # asyncio sets TCP_NODELAY only where the protocol is named; without it each small answer waits 40 ms for an
    # acknowledgement of its head.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((config.host, config.port))
        except OSError as reason:
            raise TenantFailure(
                "config",
                f"the marketplace cannot listen on {config.host} port {config.port}: {reason.strerror}",
                safe="Nothing was started",
                fix="End what uses the port, or choose another with --port",
            ) from reason
        yield listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{host}:{port}"


def _endpoint(api: Api, market: Market, route: Route) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        try:
            body = read_body(await request.body())
        except MarketError as refusal:
            return _response(refusal_reply(refusal), market)
        call = Call(
            method=request.method,
            path=request.url.path,
            parameters={name: str(value) for name, value in request.path_params.items()},
            query=read_query(request.url.query),
            body=body,
            base_url=f"{request.url.scheme}://{request.url.netloc}",
            token=_token(request),
        )
        reply = await run_in_threadpool(api.answer, route, call)
        await asyncio.sleep(reply.delay_s)
        return _response(reply, market)

    return endpoint


def _unknown(market: Market) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        message = f"{request.method} {request.url.path} is not part of this marketplace"
        return _response(Reply(404, {"success": False, "error": "not_found", "msg": message}), market)

    return endpoint


def _token(request: Request) -> str | None:
    """The key of a request: a header's, or the query parameter of old clients."""
    header = request.headers.get("authorization")
    return request.query_params.get("api_key") if header is None else token_in(header)


def _response(reply: Reply, market: Market) -> Response:
    if reply.cut:
        return _CutConnection()
    if isinstance(reply.body, bytes):
        content, kind = reply.body, "application/json"
    elif isinstance(reply.body, str):
        content, kind = reply.body.encode(), "text/plain; charset=utf-8"
    else:
        # Bare on purpose: the official client compares the header exactly.
        content, kind = json_text(reply.body).encode(), "application/json"
    headers = {"content-type": kind, **reply.headers, "date": market.clock.http_date()}
    return Response(content, status_code=reply.status, headers=headers)


def _merged(routes: list[HttpRoute]) -> list[HttpRoute]:
    """Fixed paths before parameters and the catch-all last, so that order of declaration does not matter."""
    return sorted(routes, key=lambda route: (route.path.startswith("/{path"), "{" in route.path))
