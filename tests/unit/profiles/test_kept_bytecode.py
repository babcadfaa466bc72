# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Under Ansible's own loader of collections our modules have their bytecode, and its packages stay its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
LOOK = """
import importlib, json, sys
from ansible.utils.collection_loader._collection_finder import _AnsibleCollectionFinder
_AnsibleCollectionFinder(paths=[sys.argv[1]])._install()
ours = "ansible_collections.tenant.gpu.plugins."
if sys.argv[2] == "kept":
    importlib.import_module(ours + "plugin_utils.kept_bytecode").install()
names = ["module_utils.failures", "module_utils.box.names", "module_utils.vast", "module_utils.vast.api"]
found = {name: importlib.import_module(ours + name).__spec__ for name in names}
print(json.dumps({name: [type(spec.loader).__name__, spec.cached] for name, spec in found.items()}))
"""


def loaders(how: str) -> dict[str, tuple[str, str | None]]:
    argv = [sys.executable, "-c", LOOK, str(ROOT / "collections"), how]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": ""})
    found: dict[str, tuple[str, str | None]] = json.loads(done.stdout)
    return found


def test_modules_have_bytecode_and_packages_are_left_alone() -> None:
    kept = loaders("kept")
    for name in ("module_utils.failures", "module_utils.box.names", "module_utils.vast.api"):
        loader, cached = kept[name]
        assert loader == "SourceFileLoader"
        assert cached is not None
        assert f"{name.rpartition('.')[2]}.cpython-" in cached
    assert kept["module_utils.vast"] == loaders("not")["module_utils.vast"]
    assert loaders("not")["module_utils.failures"][0] != "SourceFileLoader"
