# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Renders docs/platforms.md, and the part of docs/platforms/NAME.md that says what a profile says, from the platform
profiles and their schema, so that no page can disagree with them.

``python -m gpu_tenant.profile_docs`` writes the pages of a checkout; ``--check`` only says whether they are up to date.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.tenant.gpu.plugins.module_utils import (
    platform_groups,
    profile_rules,
    profile_schema,
    yaml_lines,
)
from ansible_collections.tenant.gpu.plugins.module_utils.schema_check import is_template

_INTRODUCTION = """\
<!-- Rendered from inventories/profiles/group_vars/ by `python -m gpu_tenant.profile_docs`. Edit those files. -->

# Platforms

A platform is an inventory group. Its profile is that group's variables, and everything that is true of one platform
only lives there: paths, users, verbs, clocks. A new platform that is reached by ssh is one more YAML file.

## Use a profile

Put the box into the group, and enable the profiles by a two-line file `profiles.yml` in your inventory:

```yaml
---
plugin: tenant.gpu.profiles
```

Where your `ansible.cfg` limits the inventory plugins, `enable_plugins` needs `tenant.gpu.profiles` or `auto` among
them; by default `auto` is.

Your own `group_vars/` and `host_vars/` win over a profile, whatever the order of the inventories. Most keys are plain
values, so that you override one without repeating the others; only `platform_verbs`, `platform_clocks`,
`platform_storage`, `platform_mirrors`, `platform_ssh_proxies` and `platform_spot` are nested and are replaced as a
whole. An empty value means none.

The one place that loses is `vars:` of the group `all` written inside an inventory file, because Ansible ranks a
platform's group above `all` there; write such values into `group_vars/all.yml`.

A box gets neither your ssh agent nor your screen, whatever your `~/.ssh/config` says of every host: a profile's ssh
arguments end with `ForwardAgent=no` and `ForwardX11=no`. For a machine of your own, `ansible_ssh_args` may say
otherwise.

A box is in exactly one platform group. A profile of your own goes into a folder that `profiles.yml` names by `path:`.

The facts were checked in the month given. Prices and rules change: where money or data depend on one, look at the
source that the platform's page names. That page also has the platform's known traps; those of every platform are on
[a page of their own](traps.md).
"""

# What lies between these lines of a platform's page is rendered; the rest is written by hand.
BEGIN = "<!-- Rendered from the profile by `python -m gpu_tenant.profile_docs`. Edit that file. -->"
END = "<!-- End of what is rendered. -->"
HEADING = "## What its profile says"


def profiles_in(folder: Path) -> dict[str, dict[str, Any]]:
    """Every profile of a folder by its group. ValueError names file, line, key and fix for one that is not valid."""
    found = {}
    for path in platform_groups.profile_files(str(folder)):
        name = platform_groups.group_name(path)
        lines = yaml_lines.Lines(Path(path).read_text(encoding="utf-8"))
        problems = profile_rules.problems_as_written(lines.document, name)
        if problems:
            raise ValueError("\n".join(one.sentence(f"{path}:{lines.line_of(one.key)}") for one in problems))
        found[name] = lines.document
    return found


def render(profiles: dict[str, dict[str, Any]]) -> str:
    """docs/platforms.md: all platforms beside each other, and what the keys of a profile mean."""
    parts = [_INTRODUCTION, "## At a glance\n", _overview(profiles), "## Every key\n", _keys()]
    return "\n".join(parts)


def _overview(profiles: dict[str, dict[str, Any]]) -> str:
    heads = [
        "platform",
        "kind",
        "a pause",
        "the full stop",
        "which keeps",
        "results outlive it by",
        "taken away",
        "as of",
    ]
    return table(heads, [_in_one_line(profiles[name]) for name in sorted(profiles)])


def _in_one_line(profile: dict[str, Any]) -> list[str]:
    name, verbs, spot = profile["platform_name"], profile["platform_verbs"], profile["platform_spot"]
    kept = [set(one["keeps"]) for one in verbs["full_stop"]]
    grace = "at once" if not spot["grace_s"] else f"after {spot['grace_s']} s"
    return [
        f"[{name}](platforms/{name}.md)",
        _scalar(profile, "platform_kind"),
        _in_order(verbs["park"]) or "none",
        _in_order(verbs["full_stop"]) or "none",
        _cell(sorted(set.intersection(*kept)) if kept else []),
        "as set" if is_template(profile["platform_durable_kind"]) else _scalar(profile, "platform_durable_kind"),
        grace if spot["available"] else "no",
        _scalar(profile, "platform_verified"),
    ]


def _in_order(operations: list[dict[str, Any]]) -> str:
    return ", then ".join(_cell(one["verb"]) for one in operations)


def render_page(profile: dict[str, Any], current: str) -> str:
    """The page of a platform with its rendered part made anew; a page that is not there begins with its name.

    :raises ValueError: the page has no place for the rendered part.
    """
    name = profile["platform_name"]
    part = f"{BEGIN}\n\n{HEADING}\n\n{_platform(profile)}\n{END}\n"
    if not current:
        return f"# {name}\n\n{part}"
    before, begins, rest = current.partition(BEGIN + "\n")
    _rendered, ends, after = rest.partition(END + "\n")
    if not begins or not ends or BEGIN in after or END in before + after:
        raise ValueError(f"docs/platforms/{name}.md needs these two lines, once and in this order: {BEGIN} and {END}")
    return before + part + after


def _platform(profile: dict[str, Any]) -> str:
    name = profile["platform_name"]
    source = _scalar(profile, "platform_source")
    parts = [
        f"From `inventories/profiles/group_vars/{name}.yml`, checked in {_scalar(profile, 'platform_verified')}. "
        f"Source: {source}\n",
        "What happens by itself, the danger clocks:\n",
        _clocks(profile),
        "How charges end:\n",
        _verbs(profile),
        "Where data lies:\n",
        _storage(profile),
    ]
    spot = profile["platform_spot"]
    taken = "It cannot be taken away while it runs."
    if spot["available"]:
        signal = f", told by {spot['signal']}" if spot["signal"] else ", without a word"
        grace = f"after {spot['grace_s']} s of grace" if spot["grace_s"] else "at once"
        taken = f"It can be taken away {grace}{signal}."
    parts.append(taken + "\n")
    if profile.get("platform_proxy_hosts"):
        parts.append(
            f"Its proxy lets through {_cell(profile['platform_proxy_hosts'])} and what lies below them only.\n"
        )
    if profile["platform_ssh_proxies"]:
        parts += ["No large file goes through its ssh proxy:\n", _proxies(profile)]
    if profile["platform_mirrors"]:
        parts += ["Measured from each box against the direct source ([mirrors](../mirrors.md)):\n", _mirrors(profile)]
    if profile["platform_conveniences"]:
        parts += ["It saves you work:\n", "\n".join(f"- {line}" for line in profile["platform_conveniences"]) + "\n"]
    parts += ["The plain values ([what each key means](../platforms.md#every-key)):\n", _plain_values(profile)]
    return "\n".join(parts)


def _plain_values(profile: dict[str, Any]) -> str:
    shown = [key for key in profile_schema.PLATFORM_KEYS if _is_scalar(key)]
    return table(["key", "value"], [[f"`{key}`", _scalar(profile, key)] for key in shown])


def _mirrors(profile: dict[str, Any]) -> str:
    rows = [[each["class"], each["name"], f"`{each['url']}`", each["source"]] for each in profile["platform_mirrors"]]
    return table(["class", "mirror", "address", "source"], rows)


def _proxies(profile: dict[str, Any]) -> str:
    rows = [[proxy["host"], _cell(proxy["instead"])] for proxy in profile["platform_ssh_proxies"]]
    return table(["host", "instead"], rows)


def _clocks(profile: dict[str, Any]) -> str:
    rows = [
        [clock["starts_at"], _after(clock["after"]), _cell(clock["effect"])] for clock in profile["platform_clocks"]
    ]
    return table(["from", "after", "effect"], rows)


def _after(span: str) -> str:
    if is_template(span):
        return "as set in the inventory"
    return {"": "unknown", "0s": "at once"}.get(span, re.sub(r"([0-9]+)([a-z])", r"\1 \2", span))


def _verbs(profile: dict[str, Any]) -> str:
    rows = []
    for plan in ("compute_stop", "park", "full_stop", "repair"):
        operations = profile["platform_verbs"].get(plan, [])
        for number, one in enumerate(operations, 1):
            rows.append(
                [
                    plan.replace("_", " ") + (f" {number}" if len(operations) > 1 else ""),
                    _cell(one["verb"]),
                    one["transport"],
                    _cell(one["stops_compute"]),
                    _cell(one["stops_storage"]),
                    _cell(one["keeps"]),
                    _cell(one["reversible"]),
                ]
            )
    heads = ["to", "verb", "by", "ends compute", "ends storage", "keeps", "reversible"]
    return table(heads, rows)


def _storage(profile: dict[str, Any]) -> str:
    rows = [
        [
            tier["tier"],
            _cell(tier["path"]),
            _cell(tier["survives_stop"]),
            _cell(tier["survives_destroy"]),
            _cell(tier["cap"]),
            _cell(tier["locked_to"]),
        ]
        for tier in profile["platform_storage"]
    ]
    return table(["tier", "path", "survives stop", "survives destroy", "limit", "bound to"], rows)


def _keys() -> str:
    rows = []
    for key, schema in profile_schema.SCHEMA["properties"].items():
        kinds = schema.get("type", "")
        kind = kinds if isinstance(kinds, str) else " or ".join(kinds)
        choices = ", ".join(f"`{choice}`" if choice else "empty" for choice in schema.get("enum", []))
        rows.append([f"`{key}`", kind, _cell(schema.get("description", "")) + (f" ({choices})" if choices else "")])
    return table(["key", "type", "meaning"], rows)


def _scalar(profile: dict[str, Any], key: str) -> str:
    """A plain value of a profile; a key that may be left out and is has none."""
    return _cell(profile[key]) if key in profile else "-"


def _is_scalar(key: str) -> bool:
    said_above = ("platform_name", "platform_verified", "platform_source")
    return key not in said_above and profile_schema.SCHEMA["properties"][key].get("type") not in ("object", "array")


def _cell(value: Any) -> str:
    """A value as a cell: nothing that Markdown would take for a column or a tag."""
    if value is None:
        return "differs"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(str(item) for item in value) or "nothing"
    text = str(value).replace("|", "\\|").replace("<", "&lt;").replace("\n", " ").strip()
    if not text:
        return "-"
    return f"`{text}`" if "{{" in text or text.startswith(("/", "~")) else text


def table(heads: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, or a line that says that there is nothing to show."""
    if not rows:
        return "Nothing.\n"
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def pages(root: Path) -> dict[Path, str]:
    """Every page of a checkout that is rendered, in part or as a whole, with what it shall hold."""
    profiles = profiles_in(root / "inventories" / "profiles" / "group_vars")
    wanted = {root / "docs" / "platforms.md": render(profiles)}
    for name, profile in sorted(profiles.items()):
        page = root / "docs" / "platforms" / f"{name}.md"
        wanted[page] = render_page(profile, _text(page))
    return wanted


def _text(page: Path) -> str:
    return page.read_text(encoding="utf-8") if page.exists() else ""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m gpu_tenant.profile_docs", description=__doc__)
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="the checkout (default: here)")
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 when a page is out of date")
    options = parser.parse_args(arguments)
    try:
        stale = {page: text for page, text in pages(options.root).items() if _text(page) != text}
        for page, text in stale.items():
            if options.check:
                print(f"{page} is out of date. Run: python -m gpu_tenant.profile_docs", file=sys.stderr)
                continue
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(text, encoding="utf-8")
            print(f"wrote {page}")
    except (OSError, ValueError, yaml.YAMLError) as error:
        print(f"cannot render the pages of {options.root}: {error}", file=sys.stderr)
        return 2
    return 1 if stale and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
