# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Profiles of platforms that are not shipped yet, to prove that the schema has room for them."""

from __future__ import annotations

import copy
from typing import Any


def operation(verb: str, keeps: list[str], **changes: Any) -> dict[str, Any]:
    known = {
        "verb": verb,
        "transport": "api",
        "stops_compute": True,
        "stops_storage": False,
        "keeps": keeps,
        "reversible": False,
    }
    return {**known, **changes}


def tier(
    name: str, path: str, stop: bool | None, destroy: bool | None, cap: str = "", lock: str = ""
) -> dict[str, Any]:
    return {
        "tier": name,
        "path": path,
        "survives_stop": stop,
        "survives_destroy": destroy,
        "cap": cap,
        "locked_to": lock,
    }


MIRRORS = [{"class": "hf", "name": "hf-mirror", "url": "https://hf-mirror.com", "source": "https://hf-mirror.com/"}]

BASE: dict[str, Any] = {
    "platform_name": "base",
    "platform_kind": "ssh-rental",
    "platform_driver": "",
    "platform_ssh_user": "root",
    "platform_python": "/usr/bin/python3",
    "platform_data_dir": "/data",
    "platform_durable_kind": "pull",
    "platform_durable_path": "",
    "platform_hf_home": "",
    "platform_proxy_hook": "",
    "platform_cred_file": "",
    "platform_prune_globs": [],
    "platform_detach": "setsid",
    "platform_tensorboard_logdir": "",
    "platform_spot": {"available": False, "grace_s": None, "signal": ""},
    "platform_shared_fs": False,
    "platform_private_network": None,
    "platform_inode_cap": None,
    "platform_free_egress": True,
    "platform_china_mirrors": False,
    "platform_mirrors": [],
    "platform_no_proxy": [],
    "platform_cuda_max": "",
    "platform_local_nvme": None,
    "platform_endpoint_stable": True,
    "platform_ssh_proxies": [],
    "platform_storage": [tier("disk", "/data", True, False)],
    "platform_verbs": {"compute_stop": [], "park": [], "full_stop": []},
    "platform_clocks": [],
    "platform_conveniences": [],
    "platform_gotchas": [],
    "platform_verified": "2026-11",
    "platform_source": "https://example.org/",
}


def profile(name: str, **changes: Any) -> dict[str, Any]:
    values = {f"platform_{key}": value for key, value in changes.items()}
    return {**copy.deepcopy(BASE), "platform_name": name, **values}


SAMPLES = [
    profile(
        "runpod",
        driver="runpod",
        private_network=False,
        data_dir="/workspace",
        spot={"available": True, "grace_s": 5, "signal": "SIGTERM"},
        endpoint_stable=False,
        ssh_proxies=[{"host": "ssh.runpod.io", "instead": "expose TCP port 22 of the pod"}],
        storage=[
            tier("container", "/", False, False, "20 GB"),
            tier("disk", "/workspace", True, False),
            tier("network_volume", "/workspace", True, True, "4 TB", "data centre"),
        ],
        verbs={
            "compute_stop": [operation("stop", ["disk", "network_volume"], reversible=True)],
            "park": [operation("stop", ["disk", "network_volume"], reversible=True)],
            "full_stop": [operation("terminate", ["network_volume"], stops_storage=True)],
        },
        clocks=[{"after": "30d", "effect": "a stopped pod is removed", "starts_at": "stopped"}],
        gotchas=["RP1", "RP14"],
    ),
    profile(
        "lambda",
        kind="cloud-api",
        driver="lambda",
        ssh_user="ubuntu",
        data_dir="/home/ubuntu",
        durable_kind="mount",
        durable_path="/lambda/nfs/checkpoints",
        cuda_max="12.8",
        shared_fs=True,
        endpoint_stable=False,
        storage=[tier("disk", "/", True, False), tier("nfs", "/lambda/nfs", True, True, "8 EB", "region")],
        verbs={
            "compute_stop": [operation("terminate", ["nfs"])],
            "park": [],
            "full_stop": [
                operation("terminate", ["nfs"]),
                operation("delete filesystem", [], stops_compute=False, stops_storage=True),
            ],
        },
        clocks=[{"after": "0s", "effect": "the file system bills until it is deleted", "starts_at": "always"}],
    ),
    profile(
        "paperspace",
        kind="cloud-api",
        driver="paperspace",
        ssh_user="paperspace",
        verbs={
            "compute_stop": [operation("shut-down", ["disk"], reversible=True)],
            "park": [operation("shut-down", ["disk"], reversible=True)],
            "full_stop": [
                operation("shut-down", ["disk"], reversible=True),
                operation("destroy machine", [], stops_storage=True),
                operation("release static IP", [], stops_compute=False, stops_storage=True),
                operation("delete snapshots", [], stops_compute=False, stops_storage=True, transport="cli"),
            ],
        },
    ),
    profile(
        "slurm",
        kind="slurm",
        private_network=True,
        ssh_user="",
        detach="sbatch",
        data_dir="/scratch/kim/project",
        durable_kind="mount",
        durable_path="/projects/kim",
        spot={"available": True, "grace_s": 30, "signal": "SIGTERM"},
        storage=[tier("disk", "/scratch", None, None), tier("tmp", "/tmp", False, False)],
        verbs={"compute_stop": [operation("scancel", ["disk"], transport="cli")], "park": [], "full_stop": []},
        clocks=[{"after": "30s", "effect": "SIGTERM, then SIGKILL", "starts_at": "rental_end"}],
    ),
    profile(
        "kubernetes",
        kind="kubernetes",
        private_network=True,
        ssh_user="",
        detach="k8s-job",
        data_dir="/checkpoints/work",
        durable_kind="mount",
        durable_path="/checkpoints",
        storage=[tier("scratch", "/", False, False), tier("disk", "/checkpoints", True, True, "", "cluster")],
        verbs={
            "compute_stop": [operation("delete job", ["disk"])],
            "park": [operation("scale node pool to 0", ["disk"], reversible=True, transport="cli")],
            "full_stop": [operation("delete PVC", [], stops_storage=True)],
        },
    ),
    profile(
        "matpool",
        data_dir="/root",
        private_network=False,
        durable_kind="mount",
        durable_path="/mnt",
        china_mirrors=True,
        mirrors=MIRRORS,
        storage=[tier("disk", "/root", False, False), tier("netdisk", "/mnt", True, True, "5 GB", "region")],
        verbs={
            "compute_stop": [operation("停止并释放", ["netdisk"], transport="console")],
            "park": [],
            "full_stop": [operation("停止并释放", ["netdisk"], transport="console", stops_storage=True)],
        },
    ),
    profile(
        "gpushare",
        data_dir="/hy-tmp",
        private_network=False,
        durable_kind="mount",
        durable_path="/hy-netdisk",
        proxy_hook="http://turbo.gpushare.com:30000",
        proxy_hosts=["github.com"],
        durable_cap_gb=5,
        reboot_hook="cron",
        china_mirrors=True,
        mirrors=MIRRORS,
        storage=[
            tier("system", "/", False, False),
            tier("disk", "/hy-tmp", None, False),
            tier("netdisk", "", True, True),
        ],
        verbs={
            "compute_stop": [operation("关机", ["disk", "netdisk"], transport="console", reversible=True)],
            "park": [operation("关机", ["disk", "netdisk"], transport="console", reversible=True)],
            "full_stop": [operation("释放", ["netdisk"], transport="console", stops_storage=True)],
        },
        clocks=[
            {"after": "24h", "effect": "/hy-tmp is cleared", "starts_at": "stopped"},
            {"after": "10d", "effect": "the box is released", "starts_at": "stopped"},
        ],
    ),
    profile(
        "aws_spot",
        kind="cloud-api",
        ssh_user="ubuntu",
        detach="systemd",
        durable_kind="object",
        durable_path="s3://bucket/prefix",
        spot={"available": True, "grace_s": 120, "signal": "aws_imds"},
        free_egress=False,
    ),
    profile(
        "gcp_spot",
        kind="cloud-api",
        durable_kind="object",
        durable_path="gs://bucket",
        spot={"available": True, "grace_s": 30, "signal": "gcp_metadata"},
        clocks=[{"after": "24h", "effect": "a preemptible machine ends", "starts_at": "created"}],
    ),
    profile(
        "azure_spot", kind="cloud-api", spot={"available": True, "grace_s": 30, "signal": "azure_scheduled_events"}
    ),
]
