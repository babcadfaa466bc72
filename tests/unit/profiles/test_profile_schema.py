# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils import (
    artifact_tiers,
    platform_groups,
    profile_rules,
    profile_schema,
    schema_check,
)
from ansible_collections.tenant.gpu.plugins.module_utils.danger_clocks import span_s
from hypothesis import given
from hypothesis import strategies as st
from sample_profiles import BASE, MIRRORS, SAMPLES, operation, profile, tier

ROOT = Path(__file__).resolve().parents[3]
SHIPPED = sorted((ROOT / "inventories" / "profiles" / "group_vars").glob("*.yml"))
FACTS = {key for key in profile_schema.PLATFORM_KEYS if key not in ("platform_name", "platform_verbs")}


def load(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def names(problems: list[schema_check.Problem]) -> list[str]:
    return [problem.key for problem in problems]


def test_the_schema_is_json_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(profile_schema.SCHEMA)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_profiles_are_complete(path: Path) -> None:
    assert profile_rules.problems_as_written(load(path), path.stem) == []
    assert set(profile_schema.SCHEMA["required"]) <= set(load(path))


MARKETS = {
    "autodl",
    "vast",
    "runpod",
    "lambda",
    "paperspace",
    "matpool",
    "gpushare",
    "featurize",
    "lanrui",
    "gcp_spot",
    "azure_spot",
    "ssh",
}
RENTED = [path for path in SHIPPED if path.stem in MARKETS]


def test_the_platforms_that_are_reached_by_ssh_are_shipped() -> None:
    assert {path.stem for path in SHIPPED} >= MARKETS


CHINESE = [path for path in SHIPPED if load(path)["platform_china_mirrors"]]


def test_mirrors_inside_china_are_those_of_every_platform_there() -> None:
    """Each profile stands by itself, so the list is written into each: a mirror that moves is changed in all."""
    assert len(CHINESE) == 5
    lists = [load(path)["platform_mirrors"] for path in CHINESE]
    assert [each for each in lists if each != lists[0]] == []


@pytest.mark.parametrize("path", RENTED, ids=lambda path: path.stem)
def test_what_a_full_stop_loses_is_gated(path: Path) -> None:
    """A full stop ends the bill of the disk too, and one of its verbs loses the data folder: the gate is asked."""
    shipped = load(path)
    verbs = shipped["platform_verbs"]
    assert any(each["stops_storage"] for each in verbs["full_stop"])
    tiers = artifact_tiers.holding_artifacts(shipped["platform_storage"], [shipped["platform_data_dir"]])
    assert not all(artifact_tiers.keeps_every_artifact(each["keeps"], tiers) for each in verbs["full_stop"])
    survives = {tier["tier"] for tier in shipped["platform_storage"] if tier["survives_stop"]}
    for each in (*verbs["compute_stop"], *verbs["park"]):
        assert set(each["keeps"]) <= survives, "a stop keeps what survives one"


def test_a_stop_that_wipes_is_gated_where_the_platform_wipes() -> None:
    """gpushare clears /hy-tmp a day after the stop, matpool and featurize know no stop but the release."""
    for name in ("gpushare", "matpool", "featurize"):
        verbs = load(ROOT / f"inventories/profiles/group_vars/{name}.yml")["platform_verbs"]
        assert verbs["park"] == []
        for each in verbs["compute_stop"]:
            assert not artifact_tiers.keeps_every_artifact(each["keeps"], ["disk"])


@pytest.mark.parametrize(
    ("name", "spans"),
    [
        ("gpushare", {("stopped", 86400), ("stopped", 10 * 86400), ("unpaid", 15 * 86400)}),
        ("matpool", {("stopped", 0)}),
        ("featurize", {("stopped", 0)}),
        ("lanrui", {("always", 0)}),
        ("runpod", {("stopped", 0), ("stopped", 30 * 86400), ("always", 0)}),
        ("gcp_spot", {("started", 86400)}),
        ("paperspace", {("stopped", 0), ("always", 0)}),
        ("azure_spot", {("stopped", 0)}),
        ("ssh", {("always", 0)}),
    ],
)
def test_danger_clocks(name: str, spans: set[tuple[str, int]]) -> None:
    clocks = load(ROOT / f"inventories/profiles/group_vars/{name}.yml")["platform_clocks"]
    settled = [clock for clock in clocks if not schema_check.is_template(clock["after"])]
    assert spans <= {(clock["starts_at"], span_s(clock["after"])) for clock in settled}


def test_a_deallocation_and_not_a_shutdown_parks_on_azure() -> None:
    """Shut down from inside, a machine of Azure bills on for compute."""
    verbs = load(ROOT / "inventories/profiles/group_vars/azure_spot.yml")["platform_verbs"]
    assert [each["verb"] for each in verbs["park"]] == ["az vm deallocate"]
    assert [each["stops_storage"] for each in verbs["full_stop"]] == [False, True, True]


def test_a_durable_path_is_one_that_the_full_stop_keeps() -> None:
    """Not featurize's home folder, and not lanrui's data disk, whatever guides say of them."""
    for path in RENTED:
        shipped = load(path)
        if shipped["platform_durable_kind"] == "mount":
            tier = artifact_tiers.tier_of(shipped["platform_durable_path"], shipped["platform_storage"])
            for each in shipped["platform_verbs"]["full_stop"]:
                assert tier in each["keeps"], (path.stem, each["verb"])


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_notice_is_told_by_a_source_that_the_supervisor_watches(path: Path) -> None:
    spot = load(path)["platform_spot"]
    if path.stem == "aws_spot":
        assert spot == {"available": True, "grace_s": 120, "signal": "aws_imds"}
        assert load(path)["platform_reboot_hook"] == "auto"
    watched = {"gcp_spot": "gcp_metadata", "azure_spot": "azure_scheduled_events"}
    if path.stem in watched:
        assert spot == {"available": True, "grace_s": 30, "signal": watched[path.stem]}
        assert load(path)["platform_reboot_hook"] == "auto"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_profiles_pin_host_keys_and_keep_connections(path: Path) -> None:
    profile = load(path)
    if profile["platform_kind"] == "kubernetes":
        assert not [key for key in profile if key.startswith("ansible_")], "there is nobody to log in to"
        return
    arguments = profile["ansible_ssh_common_args"]
    for option in ("StrictHostKeyChecking=yes", "HostKeyAlias=", "UserKnownHostsFile=", "TCPKeepAlive=yes"):
        assert option in arguments
    assert "ServerAliveInterval=60" in arguments
    assert "ServerAliveCountMax=120" in arguments


def test_vast_parks_with_its_disk_and_destroys_without() -> None:
    verbs = load(ROOT / "inventories/profiles/group_vars/vast.yml")["platform_verbs"]
    assert "disk" in verbs["park"][0]["keeps"]
    assert "disk" not in verbs["full_stop"][0]["keeps"]
    assert verbs["park"][0]["stops_storage"] is False


def test_autodl_has_its_danger_clock() -> None:
    clocks = load(ROOT / "inventories/profiles/group_vars/autodl.yml")["platform_clocks"]
    assert any(span_s(clock["after"]) == 15 * 86400 and clock["starts_at"] == "stopped" for clock in clocks)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample["platform_name"])
def test_the_schema_fits_platforms_to_come(sample: dict[str, Any]) -> None:
    assert profile_rules.problems_after_merge(sample, sample["platform_name"]) == []
    jsonschema.Draft202012Validator(profile_schema.SCHEMA).validate(sample)


@pytest.mark.parametrize("key", profile_schema.SCHEMA["required"])
def test_every_key_is_required(key: str) -> None:
    broken = {name: value for name, value in BASE.items() if name != key}
    (problem,) = profile_rules.problems_as_written(broken)
    assert problem.key == key
    assert "is missing" in problem.what


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 300),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.sampled_from(["", "x", "/x", "15d", "none", "mount", "2026-11", "12.4", "a\n", "relative/path"]),
    st.lists(st.sampled_from(["x", "", "VAST1"]), max_size=2),
    st.just({}),
    st.just({"available": True, "grace_s": 0, "signal": ""}),
    st.just([{"after": "1d", "effect": "x", "starts_at": "stopped"}]),
    st.just([{"after": "1w", "effect": "", "starts_at": "stopped"}]),
)


@pytest.mark.parametrize("key", profile_schema.OPTIONAL)
def test_what_few_platforms_have_may_be_left_out(key: str) -> None:
    assert key not in BASE
    assert profile_rules.problems_after_merge(copy.deepcopy(BASE)) == []


@given(key=st.sampled_from(profile_schema.PLATFORM_KEYS), value=JUNK)
def test_the_validator_agrees_with_a_library(key: str, value: Any) -> None:
    changed = {**copy.deepcopy(BASE), key: value}
    ours = schema_check.check(changed, profile_schema.SCHEMA, "", lambda _value: False)
    # A whole float is an integer to JSON Schema, and `$` of Python's re also matches before a last newline.
    if isinstance(value, float) and value.is_integer():
        return
    theirs = list(jsonschema.Draft202012Validator(profile_schema.SCHEMA).iter_errors(changed))
    if value == "a\n":
        assert bool(ours) >= bool(theirs)
    else:
        assert bool(ours) == bool(theirs), (ours, theirs)


@given(st.recursive(JUNK, lambda inner: st.dictionaries(st.sampled_from(["platform_name", "x"]), inner), max_leaves=5))
def test_nothing_makes_it_raise(value: Any) -> None:
    for problem in profile_rules.problems_as_written(value, "x"):
        assert problem.key
        assert problem.what
        assert problem.fix


def test_a_template_is_judged_after_the_merge_only() -> None:
    written = {**BASE, "platform_endpoint_stable": "{{ x }}", "platform_data_dir": "{{ y }}/data"}
    assert profile_rules.problems_as_written(written) == []
    assert names(profile_rules.problems_after_merge(written)) == ["platform_data_dir", "platform_endpoint_stable"]


def test_a_typo_is_met_with_a_suggestion() -> None:
    problems = profile_rules.problems_as_written({**BASE, "platform_gotcha": []})
    assert [problem.fix for problem in problems] == ["did you mean platform_gotchas?"]
    assert "ssh.yml: platform_gotcha:" in problems[0].sentence("ssh.yml")


def test_other_variables_are_kept_out_but_connection_ones_let_in() -> None:
    assert profile_rules.problems_as_written({**BASE, "ansible_port": 22}) == []
    assert names(profile_rules.problems_as_written({**BASE, "my_color": "red"})) == ["my_color"]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"china_mirrors": True}, "platform_mirrors"),
        ({"mirrors": [dict(MIRRORS[0], **{"class": "apt"})]}, "platform_mirrors[0].archive"),
        ({"durable_kind": "mount"}, "platform_durable_path"),
        ({"durable_kind": "mount", "durable_path": "/data"}, "platform_durable_path"),
        ({"durable_kind": "object", "durable_path": "/data/x"}, "platform_durable_path"),
        ({"durable_kind": "pull", "durable_path": "/data/x"}, "platform_durable_path"),
        ({"proxy_hosts": ["github.com"]}, "platform_proxy_hosts"),
        ({"data_dir": "/elsewhere"}, "platform_data_dir"),
        ({"storage": [tier("other", "/data", True, True)]}, "platform_data_dir"),
        ({"storage": [tier("disk", "/data", True, True)] * 2}, "platform_storage"),
        ({"spot": {"available": True, "grace_s": None, "signal": ""}}, "platform_spot.grace_s"),
        (
            {"verbs": {"compute_stop": [operation("x", ["disk"], command=["/x"])], "park": [], "full_stop": []}},
            "platform_verbs.compute_stop[0].command",
        ),
        (
            {
                "verbs": {"compute_stop": [], "park": [operation("x", ["disk"], reversible=True, transport="box")]}
                | {"full_stop": []}
            },
            "platform_verbs.park[0].command",
        ),
        (
            {
                "verbs": {"compute_stop": [], "park": []}
                | {"full_stop": [operation("x", [], transport="box", command=["/x"])]}
            },
            "platform_verbs.full_stop[0].transport",
        ),
        (
            {"verbs": {"compute_stop": [], "park": [], "full_stop": [operation("x", ["moon"])]}},
            "platform_verbs.full_stop[0].keeps",
        ),
        (
            {"verbs": {"compute_stop": [], "park": [operation("x", ["disk"])], "full_stop": []}},
            "platform_verbs.park[0].reversible",
        ),
        (
            {"verbs": {"compute_stop": [], "park": [operation("x", [], reversible=True)], "full_stop": []}},
            "platform_verbs.park[0].keeps",
        ),
        (
            {"verbs": {"compute_stop": [], "park": [], "full_stop": [operation("delete disks, keys", ["disk"])]}},
            "platform_verbs.full_stop[0].verb",
        ),
    ],
)
def test_keys_that_contradict_each_other(changes: dict[str, Any], key: str) -> None:
    assert names(profile_rules.problems_after_merge(profile("base", **changes))) == [key]


def test_one_platform() -> None:
    platforms = ["autodl", "ssh", "vast"]
    assert platform_groups.check_one_platform(["all", "vast", "europe"], platforms) == "vast"
    with pytest.raises(platform_groups.PlatformError, match="2 platform groups: ssh, vast"):
        platform_groups.check_one_platform(["vast", "ssh"], platforms)
    with pytest.raises(platform_groups.PlatformError, match="no platform group"):
        platform_groups.check_one_platform(["europe"], platforms)


@given(st.sets(st.sampled_from("abcdef")), st.sets(st.sampled_from("abcdef")))
def test_one_platform_means_exactly_one(host: set[str], platforms: set[str]) -> None:
    common = host & platforms
    if len(common) == 1:
        assert {platform_groups.check_one_platform(sorted(host), sorted(platforms))} == common
        return
    with pytest.raises(platform_groups.PlatformError):
        platform_groups.check_one_platform(sorted(host), sorted(platforms))
