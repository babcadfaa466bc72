# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import watch_scene
from ansible_collections.tenant.gpu.plugins.module_utils.vast.transformations import to_box
from go_world import SPEC, Said, World

from gpu_tenant import go, hosts
from gpu_tenant.progress import Progress
from gpu_tenant.workspace import History

make = watch_scene.make


@pytest.fixture
def vast_row() -> dict[str, Any]:
    return {
        "id": 4242,
        "label": "gt1/demo/digits-1/g2/0123456789abcdef",
        "actual_status": "running",
        "intended_status": "running",
        "cur_state": "running",
        "public_ipaddr": "127.0.0.1",
        "ports": {"22/tcp": [{"HostPort": "2222"}]},
        "dph_total": 0.31,
        "is_bid": True,
        "dph_base": 0.3,
        "min_bid": 0.2,
        "machine_id": 7,
    }


@pytest.fixture
def vast_item(vast_row: dict[str, Any]) -> Any:
    return to_box(vast_row)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def said() -> Said:
    return Said()


@pytest.fixture
def drive(world: World, said: Said, tmp_path: Path) -> Callable[..., go.GoResult]:
    def start(names: Sequence[str] = ("b1",), spec: Mapping[str, Any] | None = None, **options: Any) -> go.GoResult:
        variables = {
            "tenant_project": "demo", "tenant_state_dir": world.store.root, "tenant_results_dir": "/results",
            "platform_driver": "vast", **world.variables,
        }  # fmt: skip
        boxes = tuple(hosts.BoxHost(name, variables, groups=world.groups.get(name, ())) for name in names)

        class Runner:
            inventory = hosts.Inventory(boxes, "", (), (), world.declared)
            interrupts = world
            run = staticmethod(world.run)

        settings = go.GoOptions(**{"pull_every_s": 0.0, **options})
        history = History(tmp_path / "history" / "demo.digits.jsonl")
        driver = go.Go(Runner(), world, spec or SPEC, settings, Progress(said), history, world.clock)  # type: ignore[arg-type]  # the world plays all parts
        return driver.run()

    return start
