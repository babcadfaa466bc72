# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Whatever a spec holds, the trainer gets the very words: through YAML, JSON, a shell, and Kubernetes' expansion."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from export_places import PLACES
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gpu_tenant.export import skypilot, targets
from gpu_tenant.export.place import Place

HOSTILE = [
    "a'b\"c", "$(touch pwned)", "`touch pwned`", "${HOME}", "$$", "$", "$(HOME)", "a\nb", "\n", " ", "", "#", "---",
    "- x", "key: value", "!!python/object:os.system", "&a *a", "{{ x }}", "yes", "1e3", "0o17", "~", "\\", "\\n", "\t",
    "é😀", "\x07", "\x85\u2028", "line\n#SBATCH --partition=other\n", "EOF", ";", "|", ">", "*", "!", "--", "%j",
    "a \nb", "\r\n",
]  # fmt: skip
WORDS = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20),
    st.lists(st.sampled_from(HOSTILE), max_size=4).map("".join),
)
# Arguments and one variable, each closed by a NUL byte.
PRINTER = '#!/bin/sh\nprintf \'%s\\0\' "$@" "$ODD"\n'
FAST = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("there")
    (folder / "printer").write_text(PRINTER)
    (folder / "printer").chmod(0o755)
    (folder / "squeue").write_text("#!/bin/sh\n")
    return folder


def expanded(text: str, known: dict[str, str]) -> str:
    """What the kubelet makes of a word: ``$(NAME)`` is its value where there is one, ``$$`` is ``$``."""

    def replace(match: re.Match[str]) -> str:
        if match.group(0) == "$$":
            return "$"
        return known.get(match.group(1), match.group(0))

    return re.sub(r"\$\$|\$\(([^)]*)\)", replace, text)


def odd(spec: dict[str, Any], place: Path, words: list[str], value: str, cell_words: list[str]) -> dict[str, Any]:
    cell = {"id": "main", "args": cell_words, "seed": 0}
    return {**spec, "command": [str(place / "printer"), *words], "env": {"ODD": value}, "cells": [cell], "secrets": []}


def output(argv: list[str], place: Path, env: dict[str, str] | None = None, script: str = "") -> list[str]:
    whole = {"PATH": f"{place}:{os.environ['PATH']}", "HOME": str(place), "SLURM_JOB_ID": "1", **(env or {})}
    text = script.encode() if script else None
    done = subprocess.run(argv, input=text, env=whole, cwd=place, capture_output=True, timeout=600, check=False)
    assert done.returncode == 0, (script, done.stderr)
    return [os.fsdecode(word) for word in done.stdout.split(b"\0")][:-1]


def by_slurm(spec: dict[str, Any], place: Path) -> list[str]:
    text = targets.render("slurm", spec, Place(checkpoints=str(place), code=str(place))).text
    return output(["bash"], place, script=text)


def by_skypilot(spec: dict[str, Any], place: Path) -> list[str]:
    task = yaml.safe_load(targets.render("skypilot", spec, PLACES["skypilot"]).text)
    env = {"TENANT_CELL": task["envs"]["TENANT_CELL"]}
    return output(["bash"], place, env, task["run"].replace(skypilot.MOUNT, str(place)))


def by_kubernetes(spec: dict[str, Any], place: Path) -> list[str]:
    documents = yaml.safe_load_all(targets.render("kubernetes", spec, Place(image="image", code=str(place))).text)
    job = next(document for document in documents if document["kind"] == "Job")
    container = job["spec"]["template"]["spec"]["containers"][0]
    env: dict[str, str] = {}
    for entry in container["env"]:
        env[entry["name"]] = expanded(entry["value"], {"HOME": "expanded", **env}).replace(
            "/checkpoints", str(place), 1
        )
    argv = [expanded(word, {"HOME": "expanded", **env}) for word in [*container["command"], *container["args"]]]
    return output(argv, place, {**env, "ODD": expanded(_value(container, "ODD"), {"HOME": "expanded"})})


def _value(container: dict[str, Any], name: str) -> str:
    return str(next(entry["value"] for entry in container["env"] if entry["name"] == name))


def by_sagemaker(spec: dict[str, Any], place: Path) -> list[str]:
    told = {**vars(PLACES["sagemaker"]), "code": str(place)}
    request = json.loads(targets.render("sagemaker", spec, Place(**told)).text)
    algorithm = request["AlgorithmSpecification"]
    env = dict(request["Environment"], TENANT_CHECKPOINT_DIR=str(place / "checkpoints"))
    return output([*algorithm["ContainerEntrypoint"], *algorithm["ContainerArguments"]], place, env)


@pytest.mark.parametrize("read_back", [by_slurm, by_skypilot, by_kubernetes])
@given(words=st.lists(WORDS, max_size=4), value=WORDS, cell_words=st.lists(WORDS, min_size=1, max_size=3))
@example(words=HOSTILE, value="$(HOME)", cell_words=HOSTILE)
@FAST
def test_words_arrive_as_they_were_written(
    read_back: Any, one_cell: dict[str, Any], place: Path, words: list[str], value: str, cell_words: list[str]
) -> None:
    spec = odd(one_cell, place, words, value, cell_words)
    assert read_back(spec, place) == [*words, *cell_words, value]
    assert not (place / "pwned").exists()


@given(words=st.lists(WORDS, max_size=4), value=WORDS, cell_words=st.lists(WORDS, min_size=1, max_size=3))
@FAST
def test_sagemaker_gives_the_words_or_says_that_it_cannot(
    one_cell: dict[str, Any], place: Path, words: list[str], value: str, cell_words: list[str]
) -> None:
    spec = odd(one_cell, place, words, value, cell_words)
    if any(char in word for word in [*words, *cell_words] for char in "\n\r\x85\u2028\u2029"):
        with pytest.raises(TenantFailure, match="line end"):
            by_sagemaker(spec, place)
        return
    assert by_sagemaker(spec, place) == [*words, *cell_words, value]
    assert not (place / "pwned").exists()


@pytest.mark.parametrize("target", targets.TARGETS)
@given(text=WORDS)
@FAST
def test_nothing_of_a_spec_leaves_a_comment(one_cell: dict[str, Any], target: str, text: str) -> None:
    """What the target does not do is quoted in comments, whatever it is; the job stays the same."""
    plain = {**one_cell, "budget": {}, "evaluate": []}
    marked = {**one_cell, "budget": {"usd": text}, "evaluate": [text]}
    without = targets.render(target, plain, PLACES[target])
    with_notes = targets.render(target, marked, PLACES[target])
    assert len(with_notes.notes) == len(without.notes) + 2
    assert active(with_notes.text) == active(without.text)


def active(text: str) -> list[str]:
    lines = text.split("\n")
    return [line for line in lines if line.startswith("#SBATCH") or not line.startswith("#")]


@pytest.mark.parametrize("target", targets.TARGETS)
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"parts": ["a", "b"]}, "several boxes"),
        ({"inputs": [{"uri": "https://x.example/a", "sha256": "0" * 64, "dest": "a"}]}, "has inputs"),
    ],
)
def test_what_no_target_can_express_is_refused(
    one_cell: dict[str, Any], target: str, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(TenantFailure) as refused:
        targets.render(target, {**one_cell, **change}, PLACES[target])
    failure = refused.value
    assert said in failure.what
    assert (failure.exit_code, bool(failure.safe), bool(failure.fix)) == (10, True, True)
