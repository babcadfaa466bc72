# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""An onstart of any length: what is sent fits, does the same, and reads back as what was written."""

from __future__ import annotations

import random
import string
import subprocess
from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.vast.onstart import LIMIT, as_sent, as_written, problem_of
from faulty_market import FaultyMarket
from hypothesis import given, settings
from hypothesis import strategies as st

LONG = "#!/bin/sh\n" + "".join(f"echo 'line {number} of $HOME'\n" for number in range(400)) + "exit 7\n"


def test_a_short_script_is_sent_as_it_is() -> None:
    script = "x" * LIMIT
    assert as_sent(script) == as_written(script) == script


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_a_long_script_fits_and_does_the_same(shell: str) -> None:
    sent = as_sent(LONG)
    assert len(LONG) > LIMIT >= len(sent)
    assert sent.startswith("#!/bin/sh\n")
    plain, packed = (
        subprocess.run([shell, "-c", script], capture_output=True, text=True, check=False, timeout=600)
        for script in (LONG, sent)
    )
    assert (packed.stdout, packed.returncode) == (plain.stdout, plain.returncode)
    assert packed.returncode == 7
    assert as_written(sent) == LONG


def test_a_script_that_cannot_be_unfolded_fails_aloud() -> None:
    broken = as_sent(LONG).replace("echo H4sI", "echo AAAA")
    done = subprocess.run(["sh", "-c", broken], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 1
    assert "gzip" in done.stderr
    assert as_written(broken) == broken


@settings(max_examples=25)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60), st.integers(200, 900))
def test_what_is_sent_reads_back(line: str, times: int) -> None:
    script = f"{line}\n" * times
    assert as_written(as_sent(script)) == script


def test_beyond_what_gzip_makes_fit_it_is_refused_with_both_lengths() -> None:
    noise = "".join(random.Random(0).choices(string.ascii_letters, k=9000))
    assert "onstart has 9000 characters" in problem_of(noise)
    assert str(LIMIT) in problem_of(noise)
    assert problem_of(LONG) == ""


def test_a_long_onstart_is_rented_with_and_found_again_as_declared(tmp_path: Path) -> None:
    market = FaultyMarket(tmp_path)
    made = market.converge("started", onstart=LONG)
    row = market.rows()[int(made["instance"]["provider_id"])]
    assert len(row["onstart"]) <= LIMIT
    again = market.converge("started", onstart=LONG)
    assert (again["changed"], again["differs"]) == (False, [])
    other = market.converge("started", onstart=LONG + "true\n")
    assert [one["name"] for one in other["differs"]] == ["onstart"]
