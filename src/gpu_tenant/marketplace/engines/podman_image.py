# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The image of the podman engine, built from Debian packages: no registry has to be reachable."""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure

PACKAGES = ("bash", "ca-certificates", "openssh-server", "procps", "python3", "rsync", "sudo", "tmux")
# What makes a box of them a login node and a compute node of its own.
SLURM_PACKAGES = ("munge", "slurm-client", "slurm-wlm-basic-plugins", "slurmctld", "slurmd")
BUILD_DEADLINE_S = 1200
DEFAULT_SUITE = "bookworm"


def suite(os_release: Path = Path("/etc/os-release")) -> str:
    """This machine's Debian release, so that its Python finds the C library it was built for."""
    known = dict(
        line.partition("=")[::2] for line in os_release.read_text(encoding="utf-8").splitlines() if "=" in line
    )
    if known.get("ID", "").strip('"') != "debian":
        return DEFAULT_SUITE
    return known.get("VERSION_CODENAME", DEFAULT_SUITE).strip('"')


def image_name(release: str, more: Sequence[str] = ()) -> str:
    digest = hashlib.sha256(" ".join((release, *PACKAGES, *more)).encode()).hexdigest()
    return f"localhost/gpu-tenant-box:{digest[:12]}"


def build_image(environment: dict[str, str], more: Sequence[str] = ()) -> str:
    """The name of the image, built on first use (about a minute, from the machine's Debian mirror).

    :param more: packages besides :data:`PACKAGES`.
    :raises TenantFailure: (config) when it cannot be built.
    """
    release = suite()
    name = image_name(release, more)
    known = subprocess.run(["podman", "image", "exists", name], env=environment, check=False, capture_output=True)
    if known.returncode == 0:
        return name
    with tempfile.TemporaryDirectory(prefix="gpu-tenant-image-") as directory:
        archive = Path(directory) / "root.tar"
        included = f"--include={','.join((*PACKAGES, *more))}"
        _run(["mmdebstrap", "--quiet", "--variant=minbase", included, release, str(archive)], environment)
        _run(["podman", "import", "--quiet", str(archive), name], environment)
    return name


def _run(command: list[str], environment: dict[str, str]) -> None:
    """TenantFailure (config). An interruption ends the command too, and lets it clean up."""
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            _unused, errors = process.communicate(timeout=BUILD_DEADLINE_S)
        except subprocess.TimeoutExpired as slow:
            process.terminate()
            raise _not_built(command[0], f"it did not finish within {BUILD_DEADLINE_S} s") from slow
        except BaseException:
            process.terminate()
            raise
    if process.returncode != 0:
        said = errors.strip().splitlines()
        raise _not_built(command[0], said[-1] if said else f"it ended with {process.returncode}")


def _not_built(tool: str, reason: str) -> TenantFailure:
    return TenantFailure(
        "config",
        f"the box image could not be built: {tool}: {reason}",
        safe="Nothing was started",
        fix="See whether the Debian mirror is reachable, or name an image with --image",
    )
