# SPDX-License-Identifier: MIT
"""The stamp finds our boxes again, and only ours."""

from __future__ import annotations

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box.names import UnsafeName
from ansible_collections.tenant.gpu.plugins.module_utils.stamp import new_stamp, parse_stamp
from hypothesis import given
from hypothesis import strategies as st

NAME = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", fullmatch=True)


@given(NAME, NAME, st.integers(min_value=1, max_value=999_999_999))
def test_a_stamp_reads_back(project: str, box: str, generation: int) -> None:
    stamp = new_stamp(project, box, generation)
    assert parse_stamp(str(stamp)) == stamp


@given(st.one_of(st.text(), st.none(), st.integers()))
def test_a_strangers_label_is_never_ours_and_never_an_error(label: object) -> None:
    assert parse_stamp(label) is None


@pytest.mark.parametrize(
    "label",
    [
        "gt1/demo/box/g0/0123456789abcdef",
        "gt1/demo/box/g1/0123",
        "gt2/demo/box/g1/0123456789abcdef",
        "gt1/../box/g1/0123456789abcdef",
        "gt1/demo/{{ x }}/g1/0123456789abcdef",
        "x gt1/demo/box/g1/0123456789abcdef",
    ],
)
def test_near_misses(label: str) -> None:
    assert parse_stamp(label) is None


def test_two_stamps_differ() -> None:
    assert new_stamp("p", "b", 1) != new_stamp("p", "b", 1)


def test_generation_starts_at_one() -> None:
    with pytest.raises(UnsafeName, match="generation"):
        new_stamp("p", "b", 0)
