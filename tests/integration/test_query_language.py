# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Our reading of the market's query language beside the official client's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.vast.query_text import filters_in

pytestmark = pytest.mark.integration

QUERIES = [
    "num_gpus=1",
    "reliability > 0.98  num_gpus=1 gpu_name=RTX_3090 rented=False",
    "compute_cap > 610 total_flops < 5 datacenter=True",
    "reliability > 0.99 num_gpus>=4 verified=False rented=any",
    "cpu_arch=arm64 dph<=0.5 cuda_vers>=12.4 dlperf_usd > 3",
    "gpu_ram>=20 cpu_ram<64.5 duration > 3.5 gpu_total_ram gte 48",
    'gpu_name="RTX 4090" geolocation in [DE,SE]',
    "geolocation notin [CN,VN] gpu_name in [RTX_4090, RTX_5090]",
    "geolocation not in CN,VN num_gpus noteq 3",
    "driver_version >= 535.86.05 verified=any external=*",
    "num_gpus gt 1 num_gpus lte 4 static_ip=true",
]
OFFICIAL = """
import json, sys
from vastai.api.query import offers_alias, offers_fields, offers_mult, parse_query
print(json.dumps([parse_query(one, {}, offers_fields, offers_alias, offers_mult) for one in json.load(sys.stdin)]))
"""


def as_text(value: Any) -> Any:
    """The official client leaves numbers as they were written; the server reads both."""
    if isinstance(value, dict):
        return {name: as_text(one) for name, one in value.items()}
    if isinstance(value, list):
        return [as_text(one) for one in value]
    if isinstance(value, bool) or value is None:
        return value
    try:
        return float(value)
    except ValueError:
        return value


def test_the_official_client_reads_the_same(tmp_path: Path) -> None:
    homes = {f"XDG_{kind}_HOME": str(tmp_path) for kind in ("CONFIG", "CACHE", "STATE", "DATA")}
    done = subprocess.run(
        [sys.executable, "-c", OFFICIAL],
        input=json.dumps(QUERIES),
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **homes},
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    for text, official in zip(QUERIES, json.loads(done.stdout), strict=True):
        ours = {column: one for column, one in filters_in(text).items() if one is not None}
        assert as_text(ours) == as_text(official), text
