# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import probe_report
from hypothesis import given
from hypothesis import strategies as st

PYTHON = {"path": "/opt/python", "version": "3.11.4", "why": ""}
CPU = {"version": "2.13.0+cpu", "cuda_built": None, "cuda_available": False, "device": "cpu", "error": None}


def torch(**changes: Any) -> dict[str, Any]:
    return {**CPU, **changes}


def probe(**changes: Any) -> dict[str, Any]:
    known = {
        "training_python": PYTHON,
        "gpus": [{"index": 0, "name": "NVIDIA GeForce RTX 4090", "memory_mb": 24564}],
        "nvidia_smi": {"ok": True, "why": ""},
        "torch": torch(cuda_available=True),
        "mounts": [{"role": "data", "path": "/workspace", "free_bytes": 50 * 10**9, "free_inodes": 10**6}],
        "durable": {"kind": "pull", "path": "", "real": None, "why": ""},
        "statement": "torch runs",
    }
    return {**known, **changes}


@pytest.mark.parametrize(
    ("report", "driver", "said"),
    [
        (torch(version="2.13.0"), None, "torch 2.13.0 runs on the CPU: CUDA is not available"),
        (
            torch(version="2.13.0", cuda_built="12.6"),
            "12.4",
            "torch 2.13.0 runs on the CPU: it was built for CUDA 12.6, the driver runs at most 12.4",
        ),
        (
            torch(version="2.13.0", cuda_built="12.6"),
            "12.8",
            "torch 2.13.0 runs on the CPU: CUDA is not available although it was built for CUDA 12.6",
        ),
        (
            torch(version="2.13.0", cuda_built="12.6", cuda_available=True, device="cuda", device_name="NVIDIA L4"),
            "12.8",
            "torch 2.13.0 runs on the GPU: NVIDIA L4 (CUDA 12.6)",
        ),
        (
            torch(version="2.13.0", cuda_available=True, error="RuntimeError: no kernel image"),
            None,
            "torch 2.13.0 does not work: RuntimeError: no kernel image",
        ),
        (
            torch(version=None, error="torch is not installed"),
            None,
            "torch does not run in /opt/python: torch is not installed",
        ),
        (None, None, "torch was not looked at"),
    ],
)
def test_one_plain_sentence(report: Any, driver: Any, said: str) -> None:
    assert probe_report.statement(report, PYTHON, driver) == said


def test_a_python_that_is_not_there_comes_first() -> None:
    missing = {"path": "/x/python", "version": None, "why": "it does not exist or cannot be executed"}
    assert probe_report.statement(CPU, missing, None).startswith("/x/python cannot train: it does not exist")
    (refusal,) = probe_report.refusals(probe(training_python=missing, python={"path": "/usr/bin/python3"}), {})
    assert "/usr/bin/python3 is there" in refusal


@pytest.mark.parametrize(
    ("sold_gb", "memory_mb", "admitted"),
    [
        (24, 24564, True),
        (24, 23028, True),
        (16, 15360, True),
        (80, 81559, True),
        (24, 16376, False),
        (24, 22528, False),
    ],
)
def test_memory_with_the_share_that_ecc_takes(sold_gb: int, memory_mb: int, admitted: bool) -> None:
    found = probe_report.refusals(probe(gpus=[{"name": "x", "memory_mb": memory_mb}]), {"min_gpu_ram_gb": sold_gb})
    assert (found == []) is admitted


def test_the_lie_in_the_demo_has_this_sentence() -> None:
    lying = probe(gpus=[{"name": "NVIDIA GeForce RTX 4090", "memory_mb": 16376}])
    assert probe_report.refusals(lying, {"min_gpu_ram_gb": 24}) == ["offered 24 GB, nvidia-smi reports 16 GB"]


@pytest.mark.parametrize(
    ("changes", "wish", "said"),
    [
        ({}, {"num_gpus": 2}, "offered 2 GPUs, nvidia-smi reports 1"),
        (
            {"gpus": [], "nvidia_smi": {"ok": False, "why": "nvidia-smi: no answer within 20 s"}},
            {"num_gpus": 1},
            "no answer",
        ),
        ({}, {"gpu_name": "RTX 3090"}, "offered RTX 3090, nvidia-smi reports NVIDIA GeForce RTX 4090"),
        ({"torch": CPU, "statement": "torch runs on the CPU"}, {"cuda": True}, "torch runs on the CPU"),
        ({}, {"min_free_gb": 60}, "60 GB are needed in /workspace, free: 50.0 GB"),
        ({}, {"min_free_inodes": 10**7}, "free inodes: 1000000"),
        ({"mounts": []}, {"min_free_gb": 1}, "could not be measured"),
        ({"durable": {"kind": "mount", "real": False, "why": "/fs is not there"}}, {}, "/fs is not there"),
        ({"gpus": [{"name": "x", "memory_mb": None}]}, {"min_gpu_ram_gb": 8}, "does not say how much memory"),
    ],
)
def test_refusals_are_sentences(changes: dict[str, Any], wish: dict[str, Any], said: str) -> None:
    (refusal,) = probe_report.refusals(probe(**changes), wish)
    assert said in refusal


def test_nothing_asked_for_is_nothing_refused() -> None:
    assert probe_report.refusals(probe(torch=CPU, gpus=[]), {"cuda": False, "gpu_name": None, "num_gpus": None}) == []
    uncounted = [{"role": "data", "path": "/w", "free_bytes": 10**12, "free_inodes": None}]
    assert probe_report.refusals(probe(mounts=uncounted), {"min_free_gb": 1, "min_free_inodes": 5}) == []


@pytest.mark.parametrize(
    ("wanted", "reported", "same"),
    [
        ("RTX 4090", "NVIDIA GeForce RTX 4090", True),
        ("RTX_4090", "NVIDIA GeForce RTX 4090", True),
        ("RTX 4090", "NVIDIA GeForce RTX 4090 D", False),
        ("RTX 4090D", "NVIDIA GeForce RTX 4090 D", True),
        ("RTX 4090", "NVIDIA GeForce RTX 4090 Laptop GPU", False),
        ("RTX 4070 Ti", "NVIDIA GeForce RTX 4070", False),
        ("RTX 4070", "NVIDIA GeForce RTX 4070 Ti SUPER", False),
        ("A100 SXM4", "NVIDIA A100-SXM4-80GB", True),
        ("A100 PCIE", "NVIDIA A100-SXM4-40GB", False),
        ("H100 SXM", "NVIDIA H100 80GB HBM3", True),
        ("H100 PCIE", "NVIDIA H100 PCIe", True),
        ("H100", "NVIDIA H100 NVL", True),
        ("RTX 6000Ada", "NVIDIA RTX 6000 Ada Generation", True),
        ("RTX 6000Ada", "Quadro RTX 6000", False),
        ("Tesla V100", "Tesla V100-SXM2-16GB", True),
        ("L4", "NVIDIA L40S", False),
        ("", "NVIDIA L4", False),
    ],
)
def test_one_card_has_many_names(wanted: str, reported: str, same: bool) -> None:
    assert probe_report.same_gpu(wanted, reported) is same


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*probe(), "memory_mb", "name", "role", "path", "kind", "real", "version", "why"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
WISH = {"gpu_name": "L4", "num_gpus": 1, "min_gpu_ram_gb": 8, "cuda": True, "min_free_gb": 1, "min_free_inodes": 1}


@given(ANYTHING, st.sampled_from(sorted(probe())))
def test_a_hostile_box_never_breaks_the_judge(junk: Any, key: str) -> None:
    for reading in (junk, probe(**{key: junk}), {key: junk}):
        for sentence in probe_report.refusals(reading, WISH):
            assert isinstance(sentence, str)
            assert "\n" not in sentence
    assert probe_report.statement(junk, junk, junk)


@given(ANYTHING)
def test_a_box_of_junk_is_never_admitted(junk: Any) -> None:
    assert probe_report.refusals(junk, WISH)
