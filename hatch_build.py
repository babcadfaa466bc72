# SPDX-License-Identifier: MIT
"""Put the collection into the wheel, and only into a real wheel.

An editable install reaches the checkout through ``dev-mode-dirs``; files copied into site-packages
would go stale there and be imported first.
"""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

COLLECTION = "ansible_collections/tenant/gpu"
COLLECTION_CONTENT = (
    "galaxy.yml",
    "LICENSE.md",
    "LICENSES",
    "README.md",
    "meta",
    "playbooks",
    "plugins",
    "roles",
    "inventories/profiles",
    "inventories/demo",
    "inventories/example",
    "examples",
)


class CollectionInWheel(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        for entry in COLLECTION_CONTENT:
            build_data["force_include"][entry] = f"{COLLECTION}/{entry}"
        build_data["force_include"]["roles/deploy/files/tenant_checkpoint.py"] = "tenant_checkpoint.py"
