# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Public keys: told from private ones, compared by material."""

from __future__ import annotations

import base64
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.public_keys import parse_public_key, read_public_key
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from ansible_collections.tenant.gpu.plugins.module_utils.vast.actions import Account
from ansible_collections.tenant.gpu.plugins.module_utils.vast.keys import ensure_ssh_key
from ansible_collections.tenant.gpu.plugins.modules import vast_instance
from wire_market import WireMarket


def material(seed: int = 1, name: str = "ssh-ed25519") -> str:
    encoded = name.encode()
    blob = len(encoded).to_bytes(4, "big") + encoded + (32).to_bytes(4, "big") + bytes([seed]) * 32
    return f"{name} {base64.b64encode(blob).decode()}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/root/.ssh/id_ed25519.pub",
        "~/.ssh/id_ed25519",
        "ssh-ed25519",
        "ssh-ed25519 AAAA",
        "ssh-ed25519 !!!!",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjE=\n-----END OPENSSH PRIVATE KEY-----",
        material() + "\n" + material(2),
        'command="sh" ' + material(),
        material().replace("ssh-ed25519", "ssh-rsa", 1),
    ],
)
def test_what_is_not_one_public_key_is_refused_before_anything_is_sent(text: str) -> None:
    market = WireMarket()
    with pytest.raises(TenantFailure) as caught:
        ensure_ssh_key(market.client(), text, "present")
    assert caught.value.kind == "config"
    assert not market.requests
    if len(text) > 30:
        assert text not in str(caught.value)


def test_a_private_key_file_is_refused(tmp_path: Path) -> None:
    private = tmp_path / "id"
    private.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n")
    with pytest.raises(TenantFailure, match="is a private key"):
        read_public_key(str(private))
    with pytest.raises(TenantFailure, match="cannot read"):
        read_public_key(str(tmp_path / "absent"))
    public = tmp_path / "id.pub"
    public.write_text(material() + " me@home\n")
    assert parse_public_key(read_public_key(str(public))) == tuple(material().split())


def test_the_litany() -> None:
    market = WireMarket()
    client, key = market.client(), material() + " me@home"
    assert ensure_ssh_key(client, key, "present", check_mode=True)["changed"]
    assert not market.keys
    first = ensure_ssh_key(client, key, "present")
    assert first["changed"]
    assert first["diff"]["after"] == {"ssh_key": material()}
    assert first["ssh_key"]["id"] == 1
    assert not ensure_ssh_key(client, material() + " another comment", "present")["changed"]
    assert ensure_ssh_key(client, material(2), "present")["changed"]
    assert ensure_ssh_key(client, key, "absent", check_mode=True)["changed"]
    assert len(market.keys) == 2
    assert ensure_ssh_key(client, key, "absent")["changed"]
    assert not ensure_ssh_key(client, key, "absent")["changed"]
    assert [row["public_key"].strip() for row in market.keys] == [material(2)]


@pytest.mark.parametrize("effect_first", [True, False])
def test_a_lost_answer_is_settled_by_the_list(effect_first: bool) -> None:
    market = WireMarket()
    market.fault("POST", "ssh", raises=lambda: TimeoutError("t"), effect_first=effect_first)
    if effect_first:
        assert ensure_ssh_key(market.client(), material(), "present")["changed"]
        assert len(market.keys) == 1
    else:
        with pytest.raises(TenantFailure, match="not in the account's list"):
            ensure_ssh_key(market.client(), material(), "present")
        assert ensure_ssh_key(market.client(), material(), "present")["changed"]


def test_every_duplicate_of_a_key_goes() -> None:
    market = WireMarket()
    market.keys += [
        {"id": 1, "key": material() + " a"},
        {"id": 2, "public_key": material() + " b\n"},
        {"id": 3, "key": None},
    ]
    assert ensure_ssh_key(market.client(), material(), "absent")["changed"]
    assert [row["id"] for row in market.keys] == [3]


def test_a_box_is_rented_once_the_account_has_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    market, public = WireMarket(), tmp_path / "id.pub"
    market.offer(1001)
    public.write_text(material())
    account = Account(market.client(), StateStore(str(tmp_path / "state")), {})
    monkeypatch.setattr(vast_instance, "account_of", lambda _options: account)
    options = {name: option.get("default") for name, option in vast_instance.SPEC.items()}
    asked = {"project": "digits", "name": "vast-a", "state": "started", "offers": ["1001"], "image": "i"}
    asked |= {"price_cap": 1, "public_key_file": str(public)}
    caller = SimpleNamespace(params={**options, **asked}, check_mode=False)
    first = vast_instance.act(caller)
    assert first["changed"]
    assert first["diff"]["after"]["ssh_key"] == material()
    sent = [path for method, path, _body in market.requests if method in ("POST", "PUT")]
    assert "ssh" in sent[0]
    assert len(market.keys) == len(market.instances) == 1
    assert not vast_instance.act(caller)["changed"]
    # A key that somebody took away comes back, also beside a box that is there.
    market.keys.clear()
    again = vast_instance.act(caller)
    assert (again["changed"], len(market.keys), len(market.instances)) == (True, 1, 1)
