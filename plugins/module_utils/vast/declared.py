# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Where a box that is there is not what is declared now. All of it is fixed when a box is rented, so none is mended.

The environment is compared by name: its values are shown nowhere.
"""

from __future__ import annotations

import re
from typing import Any, Iterator

from ..rented_box import Box
from ..stamp import ENVIRONMENT_NAME
from .attached import attached_in
from .onstart import as_written
from .ports import ports_asked_in
from .rental import Order

# The provider writes images with or without the registry that is meant by default.
_DEFAULT_REGISTRY = re.compile(r"\A(index\.)?docker\.io/(library/)?|\Alibrary/")


def differences(box: Box, order: Order) -> list[dict[str, Any]]:
    """Each aspect that differs: ``name``, what the box ``is`` and what is ``declared``.

    An order without an image declares no box, and what the provider does not say is not known to differ.
    """
    return [{"name": name, "is": there, "declared": wanted} for name, there, wanted in _compared(box, order)]


def warning_of(box: Box, differing: list[dict[str, Any]]) -> str:
    """What to do about them."""
    listed = "; ".join(f"{one['name']} is {_short(one['is'])}, declared {_short(one['declared'])}" for one in differing)
    return (
        f"instance {box.provider_id} is not what is declared, and was left as it is: {listed}. That is fixed when a "
        "box is rented: declare what it is, or harvest it and rent another (state: absent, then present; or replaces)"
    )


def _compared(box: Box, order: Order) -> Iterator[tuple[str, Any, Any]]:
    if not order.image:
        return
    if box.image and _plain_image(box.image) != _plain_image(order.image):
        yield "image", box.image, order.image
    if box.disk_gb is not None and abs(box.disk_gb - order.disk_gb) > 1e-6:
        yield "disk_gb", box.disk_gb, order.disk_gb
    if box.market != order.wanted.market:
        yield "market", box.market, order.wanted.market
    onstart = None if box.onstart is None else as_written(box.onstart)
    if onstart is not None and onstart.strip() != order.onstart.strip():
        yield "onstart", _script(onstart), _script(order.onstart)
    if box.environment is not None:
        volumes = attached_in(box.environment)
        declared = {one.volume_id: one.path for one in order.volumes}
        if volumes != declared:
            yield "volumes", _mounted(volumes), _mounted(declared)
        asked = ports_asked_in(box.environment)
        if asked != order.ports:
            yield "ports", ", ".join(asked) or "none", ", ".join(order.ports) or "none"
        there = {name: value for name, value in box.environment.items() if _is_variable(name)}
        wanted = {name: value for name, value in order.env.items() if _is_variable(name)}
        names = sorted(name for name in {*there, *wanted} if there.get(name) != wanted.get(name))
        if names:
            yield "env", _names(names, there), _names(names, wanted)


def _is_variable(name: str) -> bool:
    """Docker's flags travel in the environment too."""
    return not name.startswith("-") and name != ENVIRONMENT_NAME


def _names(names: list[str], values: dict[str, str]) -> str:
    return ", ".join(f"{name} {'set' if name in values else 'not set'}" for name in names)


def _mounted(volumes: dict[str, str]) -> str:
    return ", ".join(f"V.{number} at {path}" for number, path in sorted(volumes.items())) or "none"


def _script(text: str) -> str:
    return f"a script of {len(text.strip())} characters" if text.strip() else "none"


def _plain_image(image: str) -> str:
    return _DEFAULT_REGISTRY.sub("", image)


def _short(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
