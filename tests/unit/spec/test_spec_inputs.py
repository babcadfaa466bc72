# SPDX-License-Identifier: MIT
"""Inputs and secrets of the run spec: what is read, and what is refused with the line of the very key."""

from __future__ import annotations

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import input_sizes, run_secrets
from ansible_collections.tenant.gpu.plugins.module_utils.box import inputs
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.run_spec import load_run_spec

SHA = "a" * 64
COMMIT = "b" * 40
HEAD = """\
id: mnist
command: [python, train.py]
artifacts: [{glob: model.pt}]
"""


@pytest.fixture
def load(tmp_path):
    def load(text: str):
        (tmp_path / "run.yml").write_text(HEAD + text)
        return load_run_spec(str(tmp_path / "run.yml"))

    return load


def test_entries_are_made_whole(load) -> None:
    spec = load(f"""\
secrets: [HF_TOKEN, {{name: WANDB_API_KEY, file: ~/.key}}, {{name: OTHER, env: MINE, check: none}}]
inputs:
  - {{uri: "https://example.org/x.bin", sha256: {SHA}, dest: data/x.bin}}
  - {{uri: "s3://bucket/x.bin", sha256: {SHA}, dest: data/y.bin}}
  - {{repo: org/name, revision: {COMMIT}, dest: model, include: ["*.json"], secret: HF_TOKEN}}
""")
    assert spec["secrets"] == [
        {"name": "HF_TOKEN", "env": "HF_TOKEN", "file": "", "check": "huggingface"},
        {"name": "WANDB_API_KEY", "env": "", "file": "~/.key", "check": "wandb"},
        {"name": "OTHER", "env": "MINE", "file": "", "check": "none"},
    ]
    assert [entry["secret"] for entry in spec["inputs"]] == ["", "", "HF_TOKEN"]
    assert spec["inputs"][2]["type"] == "model"
    assert spec["inputs"][2]["exclude"] == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"inputs:\n  - {{uri: 'ftp://x', sha256: {SHA}, dest: d}}\n", "line 5: inputs[0]: uri begins with"),
        ("inputs:\n  - uri: https://x/y\n    sha256: abc\n    dest: d\n", "line 6: inputs[0]: sha256 has 64"),
        (f"inputs:\n  - uri: https://x/y\n    sha256: {SHA}\n    dest: ../d\n", "line 7: inputs[0]"),
        ("inputs:\n  - uri: https://x/y\n    dest: d\n", "line 5: inputs[0]: sha256 must be a text; it is missing"),
        ("inputs:\n  - uri: https://x/y\n    md5: abc\n", "line 6: inputs[0]: unknown key 'md5'"),
        ("inputs:\n  - repo: org/name\n    revision: main\n    dest: d\n", "line 6: inputs[0]: revision is the full"),
        (f"inputs:\n  - repo: ../x\n    revision: {COMMIT}\n    dest: d\n", "line 5: inputs[0]: repo is owner"),
        (
            f"inputs:\n  - repo: a/b\n    revision: {COMMIT}\n    dest: d\n    include: x\n",
            "line 8: inputs[0]: include is a list",
        ),
        (
            f"inputs:\n  - {{repo: a/b, revision: {COMMIT}, dest: d/e}}\n"
            f"  - {{repo: a/c, revision: {COMMIT}, dest: d}}\n",
            "line 6: two inputs would lie at 'd/e' and 'd'",
        ),
        (
            f"inputs:\n  - uri: https://x/y\n    sha256: {SHA}\n    dest: d\n    secret: NOBODY\n",
            "line 8: NOBODY is not among the secrets",
        ),
        (
            f"secrets: [T]\ninputs:\n  - uri: http://x/y\n    sha256: {SHA}\n    dest: d\n    secret: T\n",
            "line 6: inputs[0]: a secret goes by https only",
        ),
        ("tracker: excel\n", "line 4: tracker 'excel' is none of"),
        ("tracker:\n  name: wandb\n  mode: later\n", "line 6: mode is online"),
        ("tracker:\n  name: tensorboard\n  project: p\n", "line 6: project is a name, and only wandb"),
        ("tracker: wandb\n", "line 4: wandb needs WANDB_API_KEY among the secrets"),
        ("tracker: {name: wandb, key: abc}\n", "line 4: unknown key 'key'"),
        ("inputs: [7]\n", "line 4: inputs[0]: an input is"),
        ("secrets: [7]\n", "line 4: secrets[0]: a secret is the name"),
        ("secrets: ['A=B']\n", "line 4: secrets[0]"),
        ("secrets:\n  - name: A\n    check: perhaps\n", "line 6: secrets[0]: check is one of"),
        ("secrets:\n  - name: A\n    value: hidden\n", "line 6: secrets[0]: unknown key 'value'"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_line(load, text: str, says: str) -> None:
    with pytest.raises(TenantFailure, match=r"run\.yml") as caught:
        load(text)
    assert says in str(caught.value)


def test_a_set_is_named_by_what_it_holds_and_not_by_where_that_came_from() -> None:
    def entry(url: str, dest: str = "d", sha256: str = SHA) -> dict:
        return inputs.check_entry({"uri": url, "sha256": sha256, "dest": dest})

    first = inputs.digest([entry("https://a/x"), entry("https://a/y", "e")])
    assert inputs.digest([entry("https://mirror/y", "e"), entry("https://mirror/x")]) == first
    assert inputs.digest([entry("https://a/x"), entry("https://a/y", "f")]) != first
    assert inputs.digest([entry("https://a/x"), entry("https://a/y", "e", "c" * 64)]) != first


def test_a_secret_comes_from_the_environment_or_a_file_and_is_never_told(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MINE", "s3cret")
    (tmp_path / "key").write_text("from-file\n")
    assert run_secrets.value_of(run_secrets.check_entry({"name": "A", "env": "MINE"})) == "s3cret"
    assert run_secrets.value_of(run_secrets.check_entry({"name": "A", "file": str(tmp_path / "key")})) == "from-file"
    monkeypatch.setenv("MINE", "s3cret\nB=1")
    for entry in ({"name": "A", "env": "MINE"}, {"name": "A", "env": "UNSET_X"}, {"name": "A", "file": "/no/such"}):
        with pytest.raises(TenantFailure, match="the secret A") as caught:
            run_secrets.value_of(run_secrets.check_entry(entry))
        assert "s3cret" not in str(caught.value)


def test_unknown_sizes_are_never_counted_as_nothing() -> None:
    found = [{"bytes": 2_000_000_000}, {"bytes": None}]
    told = input_sizes.total(found, 0.01)
    assert (told["bytes"], told["unknown"], told["usd"]) == (2_000_000_000, 1, 0.02)
    assert "1 of unknown size" in told["text"]
    assert "at least $0.0200" in told["text"]
    assert input_sizes.total(found, None)["usd"] is None
