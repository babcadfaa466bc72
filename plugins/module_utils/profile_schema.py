# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The schema of a platform profile: every key, its type, its meaning, and what to write where it is wrong.

A profile is the vars of one inventory group: flat ``platform_*`` values plus the ``ansible_*`` values that reach its
boxes. ``SCHEMA`` is plain JSON Schema (draft 2020-12); the docs tables are rendered from its descriptions.
"""

from __future__ import annotations

from typing import Any

from . import batch_options
from .approvals import VERB
from .box.preemption import SOURCES
from .mirrors.kinds import CLASSES as MIRROR_CLASSES

KINDS = ("ssh-rental", "cloud-api", "slurm", "kubernetes")
DURABLE_KINDS = ("mount", "object", "pull", "none", "")
DETACH = ("onstart", "tmux", "setsid", "systemd", "sbatch", "k8s-job")
REBOOT_HOOKS = ("", "auto", "cron", "systemd")
TRANSPORTS = ("api", "cli", "console", "box", "none")
# When the clocks of a platform begin to run: in a state of the box, or with something that is no state of it and that
# the provider, a batch system, our records or nobody tells.
CLOCK_STATES = ("always", "created", "started", "stopped", "released")
CLOCK_DEADLINES = (
    "auto_shutdown", "idle", "job_deadline", "rental_end", "stop_after", "terminate_after", "time_limit", "unpaid",
)  # fmt: skip
CLOCK_STARTS = (*CLOCK_STATES, *CLOCK_DEADLINES)

_ABSOLUTE = r"^(|/\S*)$"
_HOME_OR_ABSOLUTE = r"^(|[/~]\S*)$"
_HTTP = r"^https?://\S+$"


def _path(description: str, fix: str) -> dict[str, Any]:
    return {"type": "string", "pattern": _ABSOLUTE, "description": description, "x-fix": fix}


def _yes_no_unknown(description: str) -> dict[str, Any]:
    return {
        "type": ["boolean", "null"],
        "description": description,
        "x-fix": "write true, false, or null when it differs from host to host (then it is measured)",
    }


_OPERATION: dict[str, Any] = {
    "type": "object",
    "required": ["verb", "transport", "stops_compute", "stops_storage", "keeps", "reversible"],
    "additionalProperties": False,
    "x-fix": "give each operation verb, transport, stops_compute, stops_storage, keeps and reversible",
    "properties": {
        "verb": {
            "type": "string",
            "pattern": f"^{VERB}$",
            "description": "the platform's own word for it",
            "x-fix": "one consents to it by this name: write letters, digits, blanks, '_', '.' and '-', at most 63",
        },
        "transport": {"type": "string", "enum": list(TRANSPORTS), "description": "who can do it"},
        "stops_compute": {"type": "boolean", "description": "the price per hour ends"},
        "stops_storage": {"type": "boolean", "description": "the price of the disk ends"},
        "keeps": {
            "type": "array",
            "items": {"type": "string", "minLength": 1},
            "description": "storage tiers that are still there afterwards",
        },
        "reversible": {"type": "boolean", "description": "the box comes back with what `keeps` names"},
        "command": {
            "type": "array",
            "items": {"type": "string", "minLength": 1},
            "description": "transport box: what is run on the box itself, word by word",
        },
    },
}
VERB_PLANS = ("compute_stop", "park", "full_stop")
_OPERATIONS: dict[str, Any] = {"type": "array", "items": _OPERATION, "x-fix": "write a list of operations, [] for none"}

SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "gpu-tenant platform profile",
    "type": "object",
    "additionalProperties": False,
    "patternProperties": {"^ansible_[a-z0-9_]+$": {}},
    "required": [],  # filled below: an empty value means none, and nothing else does
    "properties": {
        "platform_name": {
            "type": "string",
            "pattern": r"^[a-z][a-z0-9_]*$",
            "description": "the inventory group that carries this profile",
            "x-fix": "use the file's own name, lower case letters, digits and _",
        },
        "platform_kind": {"type": "string", "enum": list(KINDS), "description": "what sort of market it is"},
        "platform_driver": {
            "type": "string",
            "pattern": r"^(|[a-z][a-z0-9_]*)$",
            "description": "which of our drivers talks to its API; empty: no API is used",
            "x-fix": "name a driver (vast, runpod, lambda, paperspace, aws_spot) or leave it empty",
        },
        "platform_ssh_user": {
            "type": "string",
            "pattern": r"^(|[A-Za-z0-9_][A-Za-z0-9_.-]{0,63})$",
            "description": "login name on a fresh box",
            "x-fix": "write the login name, for example root",
        },
        "platform_python": _path(
            "the Python that trains: absolute path on the box",
            "write the absolute path of the interpreter that has torch",
        ),
        "platform_data_dir": _path(
            "folder for code, runs and caches; fast and large enough",
            "write an absolute path on the box",
        ),
        "platform_durable_kind": {
            "type": "string",
            "enum": list(DURABLE_KINDS),
            "description": "where results outlive the box: mount, object (S3), pull (to the controller), none",
        },
        "platform_durable_path": {
            "type": "string",
            "pattern": r"^(|/\S*|[a-z][a-z0-9]*://\S+)$",
            "description": "path of the durable mount or URI of the bucket; empty for pull and none",
            "x-fix": "write an absolute path or a URI such as s3://bucket/prefix",
        },
        "platform_hf_home": _path("HF_HOME on the box", "write an absolute path on the data disk"),
        "platform_proxy_hook": {
            "type": "string",
            "pattern": r"^(|/\S+|https?://\S+)$",
            "description": "shell file to source, or proxy URL, for processes that call out; empty: none",
            "x-fix": "write the path of the file itself (no `source`, no `|| true`) or the URL of the proxy",
        },
        "platform_proxy_hosts": {
            "type": "array",
            "items": {"type": "string", "pattern": r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$"},
            "description": "domains that its proxy lets through, where it refuses all others; empty: it refuses none",
            "x-fix": "write a list of domains such as github.com, which stands for all below it too, [] for none",
        },
        "platform_cred_file": {
            "type": "string",
            "pattern": _HOME_OR_ABSOLUTE,
            "description": "where a tracker key lies on the box (0600); empty: environment only",
            "x-fix": "write a path on a disk that no other tenant shares",
        },
        "platform_prune_globs": {
            "type": "array",
            "items": {"type": "string", "minLength": 1},
            "description": "scratch that may be deleted once its durable copy is verified",
            "x-fix": "write a list of globs, [] for none",
        },
        "platform_detach": {
            "type": "string",
            "enum": list(DETACH),
            "description": "what keeps a run alive after logout (onstart also revives it after a restart)",
        },
        "platform_batch": batch_options.SCHEMA,
        "platform_reboot_hook": {
            "type": "string",
            "enum": list(REBOOT_HOOKS),
            "description": "what goes on with a run after a reboot; auto: systemd or cron; empty: nothing, or onstart",
        },
        "platform_tensorboard_logdir": _path(
            "log folder that the platform's own TensorBoard shows", "write an absolute path or leave it empty"
        ),
        "platform_spot": {
            "type": "object",
            "required": ["available", "grace_s", "signal"],
            "additionalProperties": False,
            "description": "can it be taken away, after how long a warning, told by which signal",
            "x-fix": "write {available: bool, grace_s: seconds or null, signal: SIGTERM, a metadata service or ''}",
            "properties": {
                "available": {"type": "boolean"},
                "grace_s": {"type": ["number", "null"], "minimum": 0},
                # SIGTERM: the platform signals the job itself. A metadata service: the supervisor watches it.
                "signal": {"enum": ["", "SIGTERM", *SOURCES]},
            },
        },
        "platform_shared_fs": _yes_no_unknown("several boxes see one file system"),
        "platform_private_network": _yes_no_unknown("boxes reach each other on every port, without a NAT between them"),
        "platform_inode_cap": {
            "type": ["integer", "null"],
            "minimum": 1,
            "description": "known limit on the number of files of the durable mount",
            "x-fix": "write a whole number, or null when none is known",
        },
        "platform_durable_cap_gb": {
            "type": ["number", "null"],
            "minimum": 0.001,
            "description": "quota of the durable mount (10^9 bytes), which the mount itself may not tell",
            "x-fix": "write a number of GB, or null when none is known",
        },
        "platform_free_egress": _yes_no_unknown("traffic costs nothing"),
        "platform_china_mirrors": _yes_no_unknown("package and model mirrors inside China are needed"),
        "platform_mirrors": {
            "type": "array",
            "description": "mirrors that are measured from a box there; the fastest is used, direct included",
            "x-fix": "write a list of {class, name, url, source}, [] for none",
            "items": {
                "type": "object",
                "required": ["class", "name", "url", "source"],
                "additionalProperties": False,
                "properties": {
                    "class": {"type": "string", "enum": list(MIRROR_CLASSES), "description": "what it has"},
                    "name": {"type": "string", "minLength": 1, "description": "name of its own within its class"},
                    "url": {"type": "string", "pattern": _HTTP, "description": "where it begins"},
                    "source": {"type": "string", "pattern": _HTTP, "description": "where that can be looked up"},
                    "archive": {"type": "string", "pattern": _HTTP, "description": "apt: the address it stands for"},
                    "suite": {"type": "string", "minLength": 1, "description": "apt: the suite that is measured"},
                },
            },
        },
        "platform_no_proxy": {
            "type": "array",
            "items": {"type": "string", "pattern": r"^[^\s,]+$"},
            "description": "hosts that its proxy only slows down and does not exempt by itself",
            "x-fix": "write a list of domains such as .modelscope.cn, [] for none",
        },
        "platform_cuda_max": {
            "type": "string",
            "pattern": r"^(|[0-9]+\.[0-9]+)$",
            "description": "highest CUDA that the hosts' driver runs; empty: differs, the probe reads it",
            "x-fix": "quote a version such as '12.4', or leave it empty",
        },
        "platform_local_nvme": _yes_no_unknown("the data folder is local flash"),
        "platform_endpoint_stable": {
            "type": "boolean",
            "description": "host and port stay the same over stop and start",
        },
        "platform_instance_id": {
            "type": "object",
            "additionalProperties": False,
            "description": "where a box says which instance it is: {env: variable of its first process, hostname: "
            "pattern of its name}; with it a box stays the same one at another address",
            "x-fix": "write {env: NAME, hostname: pattern}, either may be left out, or {} for nowhere",
            "properties": {
                "env": {"type": "string", "pattern": r"^(|[A-Za-z_][A-Za-z0-9_]*)$"},
                "hostname": {"type": "string", "pattern": r"^[A-Za-z0-9*?._-]*$"},
            },
        },
        "platform_ssh_proxies": {
            "type": "array",
            "description": "hosts of the platform's ssh proxy, which carries no large file, and what to use instead",
            "x-fix": "write a list of {host, instead}, [] for none",
            "items": {
                "type": "object",
                "required": ["host", "instead"],
                "additionalProperties": False,
                "properties": {
                    "host": {
                        "type": "string",
                        "pattern": r"^[A-Za-z0-9*?.-]+$",
                        "description": "name of the host; * and ? stand for any characters and for one",
                        "x-fix": "write a host name such as ssh*.vast.ai",
                    },
                    "instead": {"type": "string", "minLength": 1, "description": "what to do for a direct connection"},
                },
            },
        },
        "platform_storage": {
            "type": "array",
            "description": "storage tiers and what each survives; tier `disk` holds the data folder",
            "x-fix": "write a list of tiers",
            "items": {
                "type": "object",
                "required": ["tier", "path", "survives_stop", "survives_destroy", "cap", "locked_to"],
                "additionalProperties": False,
                "properties": {
                    "tier": {"type": "string", "pattern": r"^[a-z][a-z0-9_]*$", "description": "name used by `keeps`"},
                    "path": {"type": "string", "description": "where it is mounted; empty: not on the box"},
                    "survives_stop": {"type": ["boolean", "null"]},
                    "survives_destroy": {"type": ["boolean", "null"]},
                    "cap": {"type": "string", "description": "size or file limit, in words"},
                    "locked_to": {"type": "string", "description": "machine, region or zone; empty: nothing"},
                },
            },
        },
        "platform_verbs": {
            "type": "object",
            "required": list(VERB_PLANS),
            "additionalProperties": False,
            "description": "how charges end: compute_stop (compute only), park (comes back), full_stop (in order); "
            "repair (may be left out) restarts a box that goes on billing",
            "x-fix": "give compute_stop, park and full_stop, each a list of operations ([] for none)",
            "properties": dict.fromkeys((*VERB_PLANS, "repair"), _OPERATIONS),
        },
        "platform_clocks": {
            "type": "array",
            "description": "what happens by itself: after how long, starting when",
            "x-fix": "write a list of {after, effect, starts_at}",
            "items": {
                "type": "object",
                "required": ["after", "effect", "starts_at"],
                "additionalProperties": False,
                "properties": {
                    "after": {
                        "type": "string",
                        "pattern": r"^(|[0-9]+(s|m|h|d))$",
                        "description": "'0s': at once, '15d': after 15 days, '': nobody says",
                        "x-fix": "write a number and one of s, m, h, d, for example '15d'",
                    },
                    "effect": {"type": "string", "minLength": 1},
                    "starts_at": {"type": "string", "enum": list(CLOCK_STARTS)},
                    "alarm": {
                        "type": "string",
                        "pattern": r"^[0-9]+(s|m|h|d)$",
                        "description": "with less left it is an alarm; 24h where it is not said, '0s' for never",
                        "x-fix": "write a number and one of s, m, h, d, for example '2h'",
                    },
                },
            },
        },
        "platform_conveniences": {
            "type": "array",
            "items": {"type": "string", "minLength": 1},
            "description": "what the platform offers that saves work",
            "x-fix": "write a list of sentences, [] for none",
        },
        "platform_gotchas": {
            "type": "array",
            "items": {"type": "string", "pattern": r"^[A-Z][A-Z0-9-]*$"},
            "description": "ids of known traps",
            "x-fix": "write a list of ids such as VAST1, [] for none",
        },
        "platform_verified": {
            "type": "string",
            "pattern": r"^20[0-9]{2}-(0[1-9]|1[0-2])$",
            "description": "month in which somebody last checked these facts",
            "x-fix": "quote a month, for example '2026-11'",
        },
        "platform_source": {
            "type": "string",
            "pattern": r"^https?://\S+$",
            "description": "where the facts can be looked up",
            "x-fix": "write a URL",
        },
    },
}
# What few platforms have may be left out, so that a team's own profile does not end with a new release.
OPTIONAL = (
    "platform_batch",
    "platform_proxy_hosts",
    "platform_reboot_hook",
    "platform_durable_cap_gb",
    "platform_instance_id",
)
SCHEMA["required"] = [key for key in SCHEMA["properties"] if key not in OPTIONAL]
PLATFORM_KEYS = tuple(SCHEMA["properties"])
