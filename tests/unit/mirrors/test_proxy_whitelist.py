# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A proxy that lets only some hosts through: blocked is told apart from slow, and no other host is asked for there."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import calling, http_get, http_wire, proxy_hook
from ansible_collections.tenant.gpu.plugins.module_utils.box.http_get import Call, HttpProblem
from ansible_collections.tenant.gpu.plugins.module_utils.mirrors import choice, probe, task

DATA = b"the very file"
# Addresses of this machine that no list of loopback entries exempts from a proxy.
ALLOWED, REFUSED = "127.0.0.2", "127.0.0.3"


class Origin(BaseHTTPRequestHandler):
    """Any path gives the file; in the place of a proxy it refuses hosts that are not on the list."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        absolute = urlsplit(self.path)
        status = self.server.status if absolute.netloc and absolute.hostname != ALLOWED else 200  # type: ignore[attr-defined]
        self.send_response(status)
        self.send_header("Content-Length", str(len(DATA)))
        self.end_headers()
        self.wfile.write(DATA)

    def do_CONNECT(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        self.send_error(self.server.status)  # type: ignore[attr-defined]

    def log_message(self, *_words: object) -> None:
        return


def served(host: str, status: int = 403) -> ThreadingHTTPServer:
    server = ThreadingHTTPServer((host, 0), Origin)
    server.asked, server.status = [], status  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    return server


def url_of(server: ThreadingHTTPServer) -> str:
    return f"http://{server.server_address[0]!s}:{server.server_address[1]}"


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.fixture
def servers(
    quiet: pytest.MonkeyPatch,
) -> Iterator[tuple[ThreadingHTTPServer, ThreadingHTTPServer, ThreadingHTTPServer]]:
    """The proxy, an origin that it lets through, and one that it does not."""
    known = served("127.0.0.1"), served(ALLOWED), served(REFUSED)
    yield known
    for each in known:
        each.shutdown()
        each.server_close()


def source(url: str) -> probe.Source:
    told = {"way": "file", "path": "f", "sha256": hashlib.sha256(DATA).hexdigest()}
    return probe.Source("pip", "direct", url, told)


def measured(url: str, routes: tuple[str, ...] = (http_wire.PLAIN, http_wire.PROXIED)) -> dict[str, str]:
    limits = probe.Limits(stall_s=60, within_s=120)
    return {
        each.route: each.outcome
        for each in choice.with_blame(probe.measure(source(url), route, limits) for route in routes)
    }


def test_a_host_that_the_proxy_refuses_is_blocked_and_not_slow(servers, quiet) -> None:
    proxy, allowed, refused = servers
    quiet.setenv("http_proxy", url_of(proxy))
    assert measured(url_of(allowed)) == {"plain": "good", "proxied": "good"}
    assert measured(url_of(refused)) == {"plain": "good", "proxied": "blocked"}


def test_who_refused_is_not_guessed(servers, quiet) -> None:
    """Without its own word, and with a host that gives nothing directly either, a 403 may be the host's."""
    proxy, _allowed, refused = servers
    quiet.setenv("http_proxy", url_of(proxy))
    nowhere = f"http://{REFUSED}:9"
    assert measured(nowhere)["proxied"] == "no_file"
    proxy.status = 503
    assert measured(url_of(refused))["proxied"] == "unreachable"


@pytest.mark.parametrize(
    ("status", "kind"), [(403, "blocked"), (405, "blocked"), (407, "blocked"), (502, "unreachable")]
)
def test_a_tunnel_that_is_never_opened(servers, quiet, status: int, kind: str) -> None:
    proxy, _allowed, _refused = servers
    proxy.status = status
    quiet.setenv("https_proxy", url_of(proxy))
    with pytest.raises(HttpProblem) as problem, http_get.opened(Call(f"https://{REFUSED}/f", {}, {}, 60)):
        pass
    assert problem.value.kind == kind
    assert f"the proxy does not connect to it (HTTP {status})" in str(problem.value)
    assert problem.value.again == (kind == "unreachable")


def test_a_proxy_with_a_list_is_asked_for_its_hosts_only(servers, quiet) -> None:
    proxy, allowed, refused = servers
    quiet.setenv(proxy_hook.LISTED_PROXY, url_of(proxy))
    quiet.setenv(proxy_hook.LISTED_HOSTS, f"github.com {ALLOWED}")
    for server in (allowed, refused):
        assert http_get.read(Call(f"{url_of(server)}/f", {}, {}, 60))[1] == DATA
    assert [urlsplit(path).hostname for path in proxy.asked] == [ALLOWED]
    assert allowed.asked == []
    assert refused.asked == ["/f"]
    assert task._routes(probe.Source("hf", "direct", url_of(allowed), {})) == ["plain", "proxied"]
    assert task._routes(probe.Source("hf", "direct", url_of(refused), {})) == ["plain"]
    # Docker's daemon is not told of the proxy.
    assert task._routes(probe.Source("docker", "direct", url_of(allowed), {})) == ["plain"]


@pytest.mark.parametrize(
    ("host", "listed"),
    [
        ("github.com", True),
        ("API.GitHub.com", True),
        ("objects.github.com.", True),
        ("evilgithub.com", False),
        ("github.com.evil.org", False),
        ("api.wandb.ai", False),
        ("", False),
    ],
)
def test_a_domain_stands_for_all_below_it(quiet, host: str, listed: bool) -> None:
    quiet.setenv(proxy_hook.LISTED_HOSTS, "github.com huggingface.co")
    assert http_wire.is_listed(host) is listed


def test_no_other_program_of_the_box_is_told(quiet, tmp_path: Path) -> None:
    """A trainer that logs to wandb through such a proxy logs nothing."""
    path = tmp_path / "mirrors.env"
    path.write_text("TENANT_PROXY_HOOK=http://turbo.example:30000\nTENANT_PROXY_HOSTS=github.com huggingface.co\nA=b\n")
    path.chmod(0o600)
    found = calling.variables(str(tmp_path), {}, {})
    assert not [name for name in found if name.lower().endswith("_proxy")]
    assert found[proxy_hook.LISTED_PROXY] == "http://turbo.example:30000"
    assert found[proxy_hook.LISTED_HOSTS] == "github.com huggingface.co"
    assert found["A"] == "b"


def test_without_a_list_it_is_everybodys() -> None:
    of_hook = proxy_hook.variables("http://turbo.example:30000", {})
    assert proxy_hook.listed(of_hook, []) == of_hook
    assert proxy_hook.listed({}, ["github.com"]) == {}
    assert proxy_hook.listed({**of_hook, "SSL_CERT_FILE": "/ca.pem"}, ["github.com"]) == {
        "SSL_CERT_FILE": "/ca.pem",
        proxy_hook.LISTED_PROXY: "http://turbo.example:30000",
        proxy_hook.LISTED_HOSTS: "github.com",
    }


def test_a_child_is_told_of_it_for_a_listed_host_only(quiet) -> None:
    quiet.setenv(proxy_hook.LISTED_PROXY, "http://turbo.example:30000")
    quiet.setenv(proxy_hook.LISTED_HOSTS, "huggingface.co")
    child = http_wire.for_child("https://cdn-lfs.huggingface.co/f", http_wire.PROXIED)
    assert child["https_proxy"] == child["http_proxy"] == "http://turbo.example:30000"
    assert http_wire.for_child("https://hf-mirror.com/f", http_wire.PROXIED) == {}
    assert http_wire.for_child("https://huggingface.co/f", http_wire.PLAIN) == {"no_proxy": "*", "NO_PROXY": "*"}


def order_params(folder: Path, direct: str, **more: object) -> dict[str, object]:
    told = {"way": "file", "path": "f", "sha256": hashlib.sha256(DATA).hexdigest()}
    known = {
        "tenant_root": str(folder / "root"), "state": "present", "classes": {"hf": {"direct": direct, "probe": told}},
        "candidates": [], "proxy_hook": "", "proxy_hosts": [], "no_proxy": [], "valid_s": 86400.0,
        "remeasure": False, "margin": 1.5, "stall_s": 60.0, "within_s": 120.0, "pip_conf": str(folder / "pip.conf"),
        "conda_file": str(folder / "conda"), "apt_dir": str(folder / "apt"), "docker_config": str(folder / "d" / "j"),
    }  # fmt: skip
    return {**known, **more}


def test_the_role_names_what_is_blocked_and_goes_past_the_proxy(servers, quiet, tmp_path: Path) -> None:
    proxy, _allowed, refused = servers
    saved = dict(os.environ)
    try:
        found = task.act(order_params(tmp_path, url_of(refused), proxy_hook=url_of(proxy)), False)["mirrors"]
    finally:
        os.environ.clear()
        os.environ.update(saved)
    assert found["blocked"] == [REFUSED]
    assert found["chosen"]["hf"]["route"] == "plain"
    assert REFUSED in found["environment"]["no_proxy"].split(",")


def test_the_environment_of_a_list_has_no_proxy_for_everybody(servers, quiet, tmp_path: Path) -> None:
    proxy, allowed, _refused = servers
    params = order_params(tmp_path, url_of(allowed), proxy_hook=url_of(proxy), proxy_hosts=[ALLOWED])
    saved = dict(os.environ)
    try:
        found = task.act(params, False)["mirrors"]
    finally:
        os.environ.clear()
        os.environ.update(saved)
    assert {each["route"]: each["outcome"] for each in found["samples"]} == {"plain": "good", "proxied": "good"}
    assert not [name for name in found["environment"] if name.lower() in ("http_proxy", "https_proxy", "no_proxy")]
    lines = (tmp_path / "root" / "mirrors.env").read_text().splitlines()
    assert f"TENANT_PROXY_HOSTS={ALLOWED}" in lines
    assert f"TENANT_PROXY_HOOK={url_of(proxy)}" in lines
    assert not [line for line in lines if line.lower().startswith(("no_proxy", "http"))]


@pytest.mark.parametrize(("route", "configured"), [("proxied", True), ("plain", False)])
def test_git_is_given_the_proxy_for_one_host(quiet, route: str, configured: bool) -> None:
    quiet.setenv(proxy_hook.LISTED_PROXY, "http://turbo.example:30000")
    found = task._of_git(None, choice.Choice("direct", "https://github.com", route))  # type: ignore[arg-type]
    assert (found.get("GIT_CONFIG_KEY_0") == "http.https://github.com/.proxy") is configured
    assert (found.get("GIT_CONFIG_VALUE_0") == "http://turbo.example:30000") is configured
