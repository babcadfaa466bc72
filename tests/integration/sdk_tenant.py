# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A tenant who uses the released client's SDK, unmodified: every step's result as one JSON object on stdout.

A program of its own, because ``vastai`` reads its environment and makes its folders when it is imported.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import sys
import time
from typing import Any

from vastai import AsyncClient, SyncClient, VastAI
from vastai.data.instance import InstanceConfig
from vastai.data.query import Query

URL, KEY = os.environ["VAST_URL"], os.environ["VAST_API_KEY"]
DEADLINE_S = 600.0
CARD = "gpu_name=RTX_4090 num_gpus=1"


def wait_for(client: VastAI, number: int, status: str) -> dict[str, Any]:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        row = client.show_instance(number)
        if row and row["actual_status"] == status:
            return dict(row)
        if time.monotonic() > deadline:
            raise TimeoutError(f"{number} is {row and row['actual_status']}, not {status}")
        time.sleep(0.05)


def listing(client: VastAI, number: int) -> str:
    """What is in the folder that onstart, which goes on beside the box, makes."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        found = client.execute(number, "ls sdk")
        if "given" in found or time.monotonic() > deadline:
            return str(found)


def with_vastai() -> dict[str, Any]:
    """The life of one box, and the account's variables."""
    client = VastAI(api_key=KEY, server_url=URL)
    offer = client.search_offers(f"{CARD} rentable=true", order="dph_total", type="bid")[0]
    variable = client.create_env_var(name="sdk_given", value="by the account")
    names = client.show_env_vars()
    made = client.create_instance(
        offer["id"], image="debian:12", disk=12, ssh=True, direct=True, bid_price=offer["min_bid"], label="of the sdk",
        onstart_cmd='mkdir sdk; echo "$SDK_GIVEN" >sdk/given; echo said by onstart',
    )  # fmt: skip
    number = made["new_contract"]
    running = wait_for(client, number, "running")
    told: dict[str, Any] = {
        "offer": offer["id"], "variable": variable, "names": names, "number": number, "running": running["label"],
        "ssh_url": client.ssh_url(number),
    }  # fmt: skip
    told["labelled"] = client.label_instance(number, "renamed")
    told["label"] = client.show_instance(number)["label"]
    told["listed"] = listing(client, number)
    told["missing"] = client.execute(number, "ls /no-such-folder")
    told["sized"] = client.execute(number, "du -b sdk/given")
    client.execute(number, "rm sdk/given")
    told["removed"] = client.execute(number, "ls sdk")
    told["log"] = client.logs(number, tail="5")
    client.stop_instance(number)
    told["stopped"] = wait_for(client, number, "exited")["intended_status"]
    client.start_instance(number)
    told["started"] = wait_for(client, number, "running")["intended_status"]
    told["destroyed"] = client.destroy_instance(number)
    client.delete_env_var(name="SDK_GIVEN")
    told["left"] = client.show_env_vars()
    return told


def with_sync_client() -> dict[str, Any]:
    client = SyncClient(api_key=KEY, vast_server=URL)
    offers = client.search(Query.search_defaults(), order=[["dph_total", "asc"]], limit=3)
    box = client.create_instance(offers[0].id, InstanceConfig(image="debian:12", disk=10, label="sync"))
    shown = [one.label for one in client.show_instances() if one.id == box.id]
    client.destroy_instance(box)
    return {"offers": len(offers), "shown": shown, "number": box.id}


async def with_async_client() -> dict[str, Any]:
    client = AsyncClient(api_key=KEY, vast_server=URL)
    # It would fetch the vendor's certificate, wherever it is pointed to; this market is not encrypted.
    client._ssl_context = ssl.create_default_context()
    async with client:
        offers = await client.search(Query.search_defaults(), limit=2)
        box = await client.create_instance(offers[0].id, InstanceConfig(image="debian:12", disk=10, label="async"))
        shown = [one.label for one in await client.show_instances() if one.id == box.id]
        await client.destroy_instance(box)
    return {"offers": len(offers), "shown": shown, "number": box.id}


if __name__ == "__main__":
    steps = {
        "VastAI": with_vastai,
        "SyncClient": with_sync_client,
        "AsyncClient": lambda: asyncio.run(with_async_client()),
    }
    print(json.dumps(steps[sys.argv[1]]()))
