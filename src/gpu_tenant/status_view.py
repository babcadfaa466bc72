# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A status for a terminal: a table where there is room, a block per box where there is not.

Alarms are told by a word and not by colour alone; colour goes where ``NO_COLOR`` is set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.box.wording import duration, size
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

from gpu_tenant import verdicts
from gpu_tenant.progress import training_text

# Below this a table folds words letter by letter.
TABLE_WIDTH = 120
ALARM = "ALARM"
_GOOD = (verdicts.RUNNING, verdicts.FINISHED)
_WAITING = (verdicts.STARTING, verdicts.BARE, verdicts.NOT_RENTED, verdicts.STOPPED, verdicts.UNREACHABLE)


class StatusView:
    """Renders as wide as the console is, so that a live view follows a terminal that is resized."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], accounts: Sequence[Mapping[str, Any]] = ()) -> None:
        self._rows, self._accounts = rows, accounts

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        if options.max_width >= TABLE_WIDTH:
            yield table(self._rows)
        else:
            yield from blocks(self._rows)
        yield from alarms(self._rows, self._accounts)


def line(values: Mapping[str, Any]) -> dict[str, str]:
    """A row as the cells of a table."""
    return {name: _cell(tell, values) for name, tell in _COLUMNS.items()}


def _cell(tell: Callable[[Mapping[str, Any]], str], values: Mapping[str, Any]) -> str:
    """What stands in a cell. One that cannot be told says so, and everything else is shown."""
    try:
        return tell(values)
    except Exception as error:  # whatever it is, no other cell and no other box ends with it
        return f"cannot be shown ({type(error).__name__}), see --json"


def notes(values: Mapping[str, Any]) -> list[str]:
    """What else a person should know of the box; the clock that comes next has a column of its own."""
    counted = {clock["text"] for clock in values["countdowns"]}
    later = map(clock_text, values["countdowns"][1:])
    found = [values["problem"], *values["warnings"], *later, *(one for one in values["clocks"] if one not in counted)]
    if values["verdict"] not in (verdicts.RUNNING, verdicts.NOT_RENTED, verdicts.STOPPED):
        found.insert(0, values["why"])
    if values["budget"]:
        found.insert(0, values["budget"])
    if values["superseded"]:
        found.insert(0, f"superseded and billing: {', '.join(values['superseded'])}")
    left, waits_for = values["not_pulled"], values["waits_for"]
    if left["files"]:
        found.append(f"{left['files']} files ({size(left['bytes'])}) were not pulled, see its receipt")
    if waits_for:
        found.append(f"its sharded results wait for {', '.join(waits_for)}")
    return list(dict.fromkeys(note for note in found if note))


def gpu_text(gpu: Mapping[str, Any]) -> str:
    """``2 x RTX 4090, 18.2 of 24.0 GiB``; only what is known."""
    if not gpu["name"]:
        return ""
    name = f"{gpu['count']} x {gpu['name']}" if gpu["count"] and gpu["count"] > 1 else gpu["name"]
    if gpu["used_mib"] is None or not gpu["memory_mib"]:
        return str(name)
    return f"{name}, {gpu['used_mib'] / 1024:.1f} of {gpu['memory_mib'] / 1024:.1f} GiB"


def disk_text(values: Mapping[str, Any]) -> str:
    free, full_in_s = values["disk_free_bytes"], values["disk_full_in_s"]
    if free is None:
        return ""
    return size(free) + (f", full in {duration(full_in_s)}" if full_in_s is not None else "")


def risk_text(values: Mapping[str, Any]) -> str:
    if values["at_risk_s"] is None:
        return ""
    money = "cost unknown" if values["at_risk_usd"] is None else f"${values['at_risk_usd']:.2f}"
    most = "" if values["rpo_s"] is None else f" (RPO {duration(values['rpo_s'])})"
    return f"{duration(values['at_risk_s'])}, {money}{most}"


def clock_text(clock: Mapping[str, Any] | None) -> str:
    if clock is None:
        return ""
    if clock["left_s"] is None:
        return f"{clock['text']}: nobody says when"
    return f"{ALARM + ' ' if clock['alarm'] else ''}{clock['left']}: {clock['effect']}"


def _instance_text(values: Mapping[str, Any]) -> str:
    generation = f" g{values['generation']}" if values["generation"] else ""
    instance = f"{values['provider_id']}{generation}" if values["provider_id"] else ""
    return f"{values['provider']} {instance}".strip()


def _price_text(values: Mapping[str, Any]) -> str:
    return "" if values["price_per_hour"] is None else f"{values['price_per_hour']:.4f}"


def _spent_text(values: Mapping[str, Any]) -> str:
    return "unknown" if values["spent_usd"] is None else f"{values['spent_usd']:.2f}"


_COLUMNS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "box": lambda values: str(values["box"]),
    "verdict": lambda values: str(values["verdict"]),
    "instance": _instance_text,
    "progress": lambda values: training_text({**values, "at_risk_s": None}),
    "GPU": lambda values: gpu_text(values["gpu"]),
    "disk free": disk_text,
    "$/hour": _price_text,
    "spent $": _spent_text,
    "at risk": risk_text,
    "next clock": lambda values: clock_text(next(iter(values["countdowns"]), None)),
    "watch out": lambda values: "; ".join(notes(values)),
}


def account_text(account: Mapping[str, Any]) -> str:
    credit = "unknown" if account["credit"] is None else f"${account['credit']:.2f}"
    burn = "unknown" if account["burn_per_hour"] is None else f"${account['burn_per_hour']:.4f} an hour"
    money = f"account: credit {credit}, burns {burn}, left: {account['left']}"
    why = f" ({'; '.join(account['unknown'])})" if account["unknown"] else ""
    return f"{ALARM} {money}; then {account['effect']}" if account["alarm"] else money + why


def style_of(column: str, values: Mapping[str, Any]) -> str:
    if column == "verdict":
        verdict = values["verdict"]
        return "green" if verdict in _GOOD else "" if verdict in _WAITING else "bold red"
    if column == "next clock":
        return "bold red" if any(clock["alarm"] for clock in values["countdowns"]) else ""
    return "bold" if column == "box" else ""


def table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A line per box. Columns in which no box has anything to say are left out."""
    drawn = Table(box=None, padding=(0, 2, 0, 0))
    cells = [line(values) for values in rows]
    shown = [name for name in (cells[0] if cells else ()) if any(each[name] for each in cells)]
    for name in shown:
        drawn.add_column(name, overflow="fold")
    for values, each in zip(rows, cells, strict=True):
        # As text, not as markup: a box chooses some of these words.
        drawn.add_row(*(Text(each[name], style=style_of(name, values)) for name in shown))
    return drawn


def blocks(rows: Iterable[Mapping[str, Any]]) -> Iterator[Text]:
    """The same for a narrow terminal: what is known of each box, a line each."""
    for values in rows:
        cells = line(values)
        head = Text(cells.pop("box"), style="bold")
        head.append(f"  {cells['verdict']}", style=style_of("verdict", values))
        yield head
        cells.pop("verdict")
        for name, text in cells.items():
            if text:
                yield Text(f"  {name}: {text}", style=style_of(name, values))


def alarms(rows: Iterable[Mapping[str, Any]], accounts: Iterable[Mapping[str, Any]]) -> Iterator[Text]:
    """Below all boxes: what their project has spent, the accounts' money, and every clock that is about to ring."""
    rows = list(rows)
    for told in dict.fromkeys(values["project_budget"] for values in rows if values.get("project_budget")):
        yield Text(str(told), style="bold red")
    for account in accounts:
        yield Text(account_text(account), style="bold red" if account["alarm"] else "")
    for values in rows:
        for clock in values["countdowns"]:
            if clock["alarm"]:
                yield Text(f"{ALARM} {values['box']}: {clock['left']}: {clock['effect']}", style="bold red")
