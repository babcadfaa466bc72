# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
from __future__ import annotations

import base64
import os
import re
import subprocess
from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import host_keys
from hypothesis import given
from hypothesis import strategies as st


def key(kind: str, seed: int) -> host_keys.HostKey:
    blob = len(kind).to_bytes(4, "big") + kind.encode() + bytes([seed]) * 36
    return host_keys.HostKey(kind, base64.b64encode(blob).decode())


ED1, ED2, RSA1, RSA2 = key("ssh-ed25519", 1), key("ssh-ed25519", 2), key("ssh-rsa", 1), key("ssh-rsa", 2)
KEYS = st.lists(st.sampled_from([ED1, ED2, RSA1, RSA2]), max_size=3, unique=True)


def test_a_known_fingerprint() -> None:
    data = "AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
    shown = host_keys.HostKey("ssh-ed25519", data).fingerprint
    assert shown == "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU"  # github.com's own, as it publishes it


def test_a_scan_is_read_and_junk_left_out() -> None:
    text = (
        "# 192.0.2.1:22 SSH-2.0-OpenSSH\n"
        f"[192.0.2.1]:40022 {ED1.type} {ED1.data}\n"
        f"[192.0.2.1]:40022 {RSA1.type} {ED1.data}\n"
        "[192.0.2.1]:40022 ssh-ed25519 not-base64!\n"
        "x ssh-dss AAAA\nshort line\n"
        f"[192.0.2.1]:40022 {ED1.type} {ED1.data}\n"
    )
    assert host_keys.parse_scan(text) == [ED1]


def test_pins_are_read_back_for_their_alias_only() -> None:
    text = host_keys.as_known_hosts("box.g1", [RSA1, ED1]) + host_keys.as_known_hosts("box.g11", [ED2])
    assert host_keys.pinned(text, "box.g1") == [ED1, RSA1]
    assert host_keys.pinned(text, "box.g2") == []


def test_first_contact_is_trusted_and_said_so() -> None:
    assert host_keys.judge([], [ED1, RSA1], []) == ([ED1, RSA1], "first contact", "")


def test_keys_of_the_last_start_are_read_from_a_log() -> None:
    def block(*keys: host_keys.HostKey) -> str:
        lines = "".join(f"{one.type} {one.data} root@box\n" for one in keys)
        return f"{host_keys.LOG_BEGINS}\n{lines}noise\n{host_keys.LOG_ENDS}\nmore\n"

    assert host_keys.parse_log("started\n" + block(ED2) + block(ED1, RSA1)) == [ED1, RSA1]
    assert host_keys.parse_log(block(ED1) + f"{host_keys.LOG_BEGINS}\n{ED2.type} {ED2.data}\n") == []
    assert host_keys.parse_log(f"{ED1.type} {ED1.data}\n{host_keys.LOG_ENDS}\n") == []


def test_what_the_role_prints_is_what_is_read(tmp_path: Path) -> None:
    text = (Path(__file__).resolve().parents[3] / "roles/provision/templates/onstart.sh.j2").read_text()
    for kind, one in (("ed25519", ED1), ("rsa", RSA1)):
        (tmp_path / f"ssh_host_{kind}_key.pub").write_text(f"{one.type} {one.data} root@box\n")
    script = re.sub(r"{[{].*?[}]}", "/nowhere", text)
    environment = {"HOME": str(tmp_path), "SSH_HOST_KEYS": str(tmp_path), "PATH": os.environ["PATH"]}
    said = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True, check=False).stdout
    assert host_keys.parse_log(said) == [ED1, RSA1]


def test_the_first_pin_is_what_the_log_says_and_the_box_shows() -> None:
    assert host_keys.judge([], [ED1, RSA1], [], [ED1]) == ([ED1], "instance log", "")
    refused = host_keys.judge([], [ED1], [], [ED2])
    assert refused.keys == []
    assert ED1.fingerprint in refused.refused
    assert ED2.fingerprint in refused.refused
    assert host_keys.judge([], [ED1, RSA2], [], [ED1, RSA1]).refused, "one key of two is another"
    assert host_keys.judge([ED1], [ED1], [], [ED2]).trust == "pinned", "a log says nothing of what is pinned"


def test_another_key_of_a_live_generation_is_refused_with_both_names() -> None:
    verdict = host_keys.judge([ED1], [ED2], [])
    assert verdict.keys == []
    assert ED1.fingerprint in verdict.refused
    assert ED2.fingerprint in verdict.refused


def test_an_additional_type_is_not_a_change() -> None:
    assert host_keys.judge([ED1], [ED1, RSA1], []).keys == [ED1]


def test_one_good_key_does_not_cover_a_bad_one() -> None:
    assert host_keys.judge([ED1, RSA1], [ED1, RSA2], []).refused


@given(KEYS, KEYS)
def test_only_a_known_key_is_accepted_without_a_word(
    known: list[host_keys.HostKey], shown: list[host_keys.HostKey]
) -> None:
    verdict = host_keys.judge(known, shown, [])
    if known and not verdict.refused:
        assert set(verdict.keys) == set(known)
        assert set(known) & set(shown)


@given(KEYS, KEYS, KEYS)
def test_an_expectation_lets_in_what_it_names_and_nothing_else(
    known: list[host_keys.HostKey], shown: list[host_keys.HostKey], wanted: list[host_keys.HostKey]
) -> None:
    expected = [one.fingerprint for one in wanted]
    verdict = host_keys.judge(known, shown, expected)
    if not expected:
        return
    if set(shown) & set(wanted):
        assert verdict.trust == "expected"
        assert set(verdict.keys) <= set(known) | (set(shown) & set(wanted))
        assert set(verdict.keys) & set(shown) & set(wanted)
    else:
        assert verdict.refused


def test_expectations_are_keys_or_fingerprints() -> None:
    fingerprints, whole = host_keys.parse_expected(
        [f"{ED1.type} {ED1.data} root@box", f"box {RSA1.type} {RSA1.data}", ED2.fingerprint]
    )
    assert fingerprints == [ED1.fingerprint, RSA1.fingerprint, ED2.fingerprint]
    assert whole == [ED1, RSA1]
    for junk in ("", "SHA256:short", "MD5:aa:bb", "ssh-ed25519 AAAA"):
        with pytest.raises(ValueError, match="neither a public host key nor a fingerprint"):
            host_keys.parse_expected([junk])
