# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Every command helps with examples that work, and the shell completes what a person would have to look up."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from click.shell_completion import BashComplete
from click.testing import CliRunner

from gpu_tenant import completion, examples, hosts
from gpu_tenant.cli import cli

PAGES = Path(__file__).resolve().parents[3] / "docs"


def commands(group: click.Group, above: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        path = f"{above} {name}".strip()
        if isinstance(command, click.Group):
            yield from commands(command, path)
        else:
            yield path, command


def test_every_command_has_examples_and_every_example_a_command() -> None:
    found = dict(commands(cli))
    assert sorted(found) == sorted(examples.EXAMPLES)
    for path in found:
        shown = CliRunner().invoke(cli, [*path.split(), "--help"], terminal_width=200)
        assert shown.exit_code == 0
        for line in examples.EXAMPLES[path]:
            assert line in shown.output
            assert f"gpu-tenant {path}" in line
        assert cli.get_short_help_str() or shown.output.splitlines()[2].strip()


def test_the_page_of_the_command_line_says_which_commands_have_the_common_options() -> None:
    def have(option: str) -> set[str]:
        return {path for path, command in commands(cli) if any(option in each.opts for each in command.params)}

    every = {path for path, _command in commands(cli)}
    of_one_or_all = {"approve", "logs", "ssh", "audit"}
    alone = {"completion", "demo", "export", "init", "marketplace serve"}
    assert have("-l") == every - of_one_or_all - alone
    assert have("-i") == have("-e") == every - alone
    assert have("--workspace") - {"demo"} == have("-l")
    assert have("--json") == every - {"completion", "ssh"}
    page = " ".join((PAGES / "command-line.md").read_text().split())
    assert "`approve`, `logs` and `ssh` are told their one box, `audit` looks at all" in page
    assert "`completion`, `demo`, `export`, `init` and `marketplace serve` need no inventory" in page
    assert "All but `completion` and `ssh` have `--json`" in page


def test_what_the_marketplace_can_be_told_is_on_its_page() -> None:
    page = (PAGES / "marketplace.md").read_text()
    told = {each for option in dict(commands(cli))["marketplace serve"].params for each in option.opts}
    for option in told - {"--port", "--api-key", "--json"}:
        assert f"`{option}" in page, option
    sources = "".join(path.read_text() for path in (PAGES.parent / "src/gpu_tenant/marketplace").glob("*_routes.py"))
    sources += (PAGES.parent / "src/gpu_tenant/marketplace/api.py").read_text()
    pages = page + (PAGES / "marketplace-faults.md").read_text()
    paths = set(re.findall(r'"(/control/[a-z_]+)"', sources))
    assert {"/control/preempt", "/control/release", "/control/bill", "/control/faults"} <= paths
    assert not [path for path in paths if path not in pages]


@pytest.mark.parametrize("line", [line for lines in examples.EXAMPLES.values() for line in lines])
def test_every_example_is_taken_by_the_parser(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").touch()
    words = shlex.split(line.split("#")[0].split(" > ")[0].removeprefix('eval "$(').rstrip().removesuffix(')"'))
    assert words.pop(0) == "gpu-tenant"
    command: click.Command = cli
    context = click.Context(cli, info_name="gpu-tenant")
    while isinstance(command, click.Group):
        name = words.pop(0)
        found = command.get_command(context, name)
        assert found is not None
        command = found
        context = click.Context(command, info_name=name, parent=context)
    # Refuses unknown options, missing ones, and values of the wrong kind.
    command.make_context(command.name, words, parent=context.parent)


def test_a_command_is_read_when_it_is_asked_for() -> None:
    """The marketplace's server and what ``go`` needs make every other command slow to begin."""
    code = "import sys; from gpu_tenant import cli; cli.cli.get_command(None, 'status'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600)
    read = set(done.stdout.split())
    assert "gpu_tenant.status_command" in read
    assert not read & {
        "gpu_tenant.marketplace.server",
        "gpu_tenant.go",
        "gpu_tenant.account",
        "sqlalchemy",
        "starlette",
    }


# --- completion -----------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/digits.yml").write_text("---\nid: digits-7\ncommand: [python, train.py]\n")
    (tmp_path / "runs/notes.yml").write_text("todo: none\n")
    boxes = tuple(hosts.BoxHost(name, {"platform_name": "vast"}) for name in ("box-1", "box-2", "other"))
    asked: list[tuple[str, ...]] = []

    def resolve(limit: str, sources: tuple[str, ...]) -> hosts.Inventory:
        asked.append(sources)
        if "broken" in sources:
            raise TenantFailure("config", "no such inventory")
        return hosts.Inventory(boxes, "", (), ())

    monkeypatch.setattr(completion.hosts, "resolve", resolve)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "incomplete", "offered"),
    [
        ("", "sta", ["status"]),
        ("logs", "bo", ["box-1", "box-2"]),
        ("ssh", "", ["box-1", "box-2", "other"]),
        ("status -l", "", ["box-1", "box-2", "other", "vast"]),
        ("status -l", "box-1,v", ["box-1,vast"]),
        ("approve destroy", "o", ["other"]),
        ("go", "runs/", ["runs/digits.yml"]),
        ("train --run", "ru", ["runs/digits.yml"]),
        ("logs box-1 --run", "", ["digits-7"]),
        ("ssh -i broken", "", []),
        ("status", "--li", ["--limit", "--live"]),
        ("completion", "", ["bash", "zsh", "fish"]),
    ],
)
def test_words_are_completed(folder: Path, words: str, incomplete: str, offered: list[str]) -> None:
    found = BashComplete(cli, {}, completion.PROGRAM, completion.VARIABLE).get_completions(words.split(), incomplete)
    assert [item.value for item in found] == offered


def test_a_word_that_no_run_begins_with_is_a_file(folder: Path) -> None:
    [item] = BashComplete(cli, {}, "", "").get_completions(["go"], "/elsewhere/x")
    assert (item.type, item.value) == ("file", "/elsewhere/x")


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_the_shells_script_is_one_that_the_shell_can_read(shell: str) -> None:
    done = CliRunner().invoke(cli, ["completion", shell])
    assert done.exit_code == 0, done.output
    assert completion.VARIABLE in done.output
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=done.output, text=True, check=True, timeout=600)
