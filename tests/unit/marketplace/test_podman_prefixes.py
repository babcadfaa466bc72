# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What of this machine a container sees: the Python that its image lacks, and never the machine's programs."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpu_tenant.marketplace.engines import podman


@pytest.mark.parametrize(
    ("found", "mounted"),
    [
        # A virtual environment of the system's Python: the image has that one.
        (["/srv/it/.venv", "/usr", "/srv/it/.venv", "/usr"], ["/srv/it/.venv"]),
        (["/srv/it/.venv", "/root/.pyenv/versions/3.11.7"], ["/root/.pyenv/versions/3.11.7", "/srv/it/.venv"]),
        (["/srv/it/.venv", "/usr/local"], ["/srv/it/.venv", "/usr/local"]),
        (["/opt/py", "/opt/py/envs/it"], ["/opt/py"]),
        (["/usr"], []),
        (["/"], []),
    ],
)
def test_a_container_has_the_programs_of_its_image(
    found: list[str], mounted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(podman, "python_prefixes", lambda: [Path(path) for path in found])
    assert [str(path) for path in podman._prefixes()] == mounted
