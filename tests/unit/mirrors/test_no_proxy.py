# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""no_proxy: what anybody exempted stays exempted, in words that urllib and requests read."""

from __future__ import annotations

from urllib.request import proxy_bypass_environment

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import no_proxy
from hypothesis import given, settings
from hypothesis import strategies as st

TURBO = "127.0.0.1,localhost,modelscope.com,aliyuncs.com,*.tencentyun.com"
ENTRIES = st.lists(st.sampled_from([".a.example", "b.example", "*.c.example", "10.0.0.1", "*", "x"]), max_size=5)


@settings(max_examples=100)
@given(
    texts=st.lists(ENTRIES, max_size=3), hosts=st.lists(st.sampled_from(["h.example", "::1", "10.9.9.9"]), max_size=2)
)
def test_nothing_is_lost_nothing_stands_twice_and_merging_again_changes_nothing(
    texts: list[list[str]], hosts: list[str]
) -> None:
    merged = no_proxy.merged([", ".join(each) for each in texts], hosts)
    found = merged.split(",")
    assert len(found) == len(set(found))
    assert {word.replace("*.", ".", 1) for each in texts for word in each} <= set(found)
    assert set(no_proxy.LOOPBACK) <= set(found)
    assert no_proxy.merged([merged], hosts) == merged


@pytest.mark.parametrize("host", ["modelscope.cn", "www.modelscope.cn", "modelscope.com", "localhost", "127.0.0.1"])
def test_the_hosts_of_autodl_and_ours_are_reached_past_the_proxy(host: str) -> None:
    merged = no_proxy.merged([TURBO], [".modelscope.cn"])
    assert proxy_bypass_environment(host, {"no": merged})
    assert not proxy_bypass_environment("huggingface.co", {"no": merged})
    # requests compares ends of names and knows no star.
    assert any(host.endswith(entry) for entry in merged.split(","))
    assert "*" not in merged
