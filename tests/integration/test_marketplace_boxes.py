# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Boxes of the process engine, from inside, over a real ssh."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from marketplace_tools import DEADLINE_S, Tenant, wait_until

from gpu_tenant.marketplace.engines.process import refusal_of_namespaces
from gpu_tenant.marketplace.testing import running_marketplace

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(refusal_of_namespaces() is not None, reason="this kernel refuses user namespaces"),
]

ONSTART = """
echo "onstart for $TENANT_STAMP" $(cat /proc/sys/kernel/random/uuid)
echo start >>"$HOME/starts"
"""


@pytest.fixture(scope="module")
def tenant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenant]:
    with running_marketplace("process") as market:
        made = Tenant(market, tmp_path_factory.mktemp("tenant"))
        made.register_key()
        yield made


@pytest.fixture(scope="module")
def box(tenant: Tenant) -> int:
    """A box that the tests of this file share; none of them stops it."""
    env = {"TENANT_STAMP": "gt1/p/b/g1/0123456789abcdef", "QUOTED": "it's $HOME"}
    return tenant.rent(tenant.offers(gpu_name={"eq": "RTX 4090"})[0], env=env, onstart=ONSTART)


def test_a_box_looks_like_the_markets(tenant: Tenant, box: int) -> None:
    assert tenant.run(box, "id -un; pwd; test -d /workspace && echo disk").split() == ["root", "/root", "disk"]


def test_the_environment_reaches_sessions_and_onstart(tenant: Tenant, box: int) -> None:
    said = tenant.run(box, 'printf "%s|%s|%s" "$TENANT_STAMP" "$QUOTED" "$CONTAINER_ID"')
    assert said == f"gt1/p/b/g1/0123456789abcdef|it's $HOME|{box}"
    assert tenant.run(box, 'bash -lc "echo \\$TENANT_STAMP"').strip() == "gt1/p/b/g1/0123456789abcdef"

    def shown() -> str:
        answer = tenant.market.request("PUT", f"/api/v0/instances/request_logs/{box}/", {"tail": "100"})
        return subprocess.run(["curl", "-sf", answer["result_url"]], capture_output=True, text=True, check=True).stdout

    # It goes on beside the box, which runs already.
    wait_until(lambda: "onstart for gt1/p/b/g1/0123456789abcdef" in shown())


def test_the_cheapest_4090_really_has_16_gb(tenant: Tenant, box: int) -> None:
    row = tenant.market.row(box)
    said = tenant.run(box, "nvidia-smi --query-gpu=memory.total --format=csv,noheader,nounits")
    assert row is not None
    assert (row["gpu_ram"], int(said)) == (24564, 16380)


def test_python3_is_the_one_that_runs_the_marketplace(tenant: Tenant, box: int) -> None:
    facts = json.loads(
        tenant.run(box, "python3 -", stdin="import json,sys; print(json.dumps([sys.prefix, sys.version]))")
    )
    assert facts == [sys.prefix, sys.version]


def test_exit_codes_come_through(tenant: Tenant, box: int) -> None:
    assert tenant.ssh(box, "exit 37").returncode == 37


def test_output_and_errors_stay_apart_and_binary_input_whole(tenant: Tenant, box: int) -> None:
    done = tenant.ssh(box, "cat; echo problem >&2", stdin="x" * 300_000)
    assert (len(done.stdout), done.stderr) == (300_000, "problem\n")


def test_a_terminal_is_one_inside_the_box(tenant: Tenant, box: int) -> None:
    done = tenant.ssh(box, "tty; exit 7", "-tt")
    assert done.returncode == 7
    assert done.stdout.startswith("/dev/pts/")


def test_sftp_writes_and_reads(tenant: Tenant, box: int, tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(os.urandom(100_000))
    batch = f"put {tmp_path / 'there'} /workspace/file\nget /workspace/file {tmp_path / 'back'}\n"
    words = ["sftp", "-q", "-b", "-", *tenant.ssh_options(box), tenant.address]
    subprocess.run(words, input=batch, text=True, check=True, timeout=DEADLINE_S, capture_output=True)
    assert (tmp_path / "back").read_bytes() == (tmp_path / "there").read_bytes()


def test_rsync_over_ssh_both_ways(tenant: Tenant, box: int, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "file").write_bytes(os.urandom(50_000))
    rsync = ["rsync", "-a", "-e", " ".join(["ssh", *tenant.ssh_options(box)])]
    subprocess.run([*rsync, f"{source}/", f"{tenant.address}:/workspace/tree/"], check=True, timeout=DEADLINE_S)
    subprocess.run([*rsync, f"{tenant.address}:/workspace/tree/", f"{tmp_path}/back/"], check=True, timeout=DEADLINE_S)
    assert (tmp_path / "back/deep/file").read_bytes() == (source / "deep/file").read_bytes()


def test_one_connection_carries_many_sessions(tenant: Tenant, box: int, tmp_path: Path) -> None:
    master = ["-o", "ControlMaster=auto", "-o", f"ControlPath={tmp_path}/c", "-o", "ControlPersist=60"]
    try:
        for _unused in range(3):
            assert tenant.run(box, "echo again", *master) == "again\n"
        assert tenant.ssh(box, "", *master, "-O", "check").returncode == 0
    finally:
        tenant.ssh(box, "", *master, "-O", "exit")


def test_what_a_session_leaves_running_belongs_to_the_box(tenant: Tenant, box: int) -> None:
    number = tenant.run(box, "setsid sleep 600 >/dev/null 2>&1 </dev/null & echo $!").strip()
    assert tenant.ssh(box, f"kill -0 {number}").returncode == 0
    tenant.run(box, f"kill {number}")
    # Its end is seen: process 1 buries it, no zombie looks alive.
    wait_until(lambda: tenant.ssh(box, f"kill -0 {number}").returncode != 0)


def test_ansible_works_pipelined_and_not(tenant: Tenant, box: int, tmp_path: Path) -> None:
    inventory = tmp_path / "hosts"
    options = " ".join(tenant.ssh_options(box))
    inventory.write_text(
        f"box ansible_host=127.0.0.1 ansible_user={tenant.market.login} ansible_python_interpreter=python3 "
        f'ansible_ssh_common_args="{options}"\n'
    )
    for pipelining in ("True", "False"):
        done = subprocess.run(
            [str(Path(sys.executable).with_name("ansible")), "-i", str(inventory), "box", "-m", "ansible.builtin.ping"],
            env={**os.environ, "ANSIBLE_PIPELINING": pipelining, "ANSIBLE_LOCAL_TEMP": str(tmp_path / "a")},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert '"ping": "pong"' in done.stdout, done.stdout + done.stderr


def test_nothing_of_the_developers_is_in_reach(tenant: Tenant, box: int) -> None:
    state = tenant.market.state_dir
    planted = [Path.home() / f"planted-{os.getpid()}", Path("/tmp") / f"planted-{os.getpid()}", state / "planted"]
    try:
        for path in planted:
            path.write_text("the developer's own")
        probe = " ".join(f"{path} /proc/1/root{path}" for path in (*planted, state, Path.cwd() / "pyproject.toml"))
        assert tenant.ssh(box, f"ls -d {probe}").stdout == ""
        found = tenant.run(box, f"find / -xdev -name 'planted-{os.getpid()}' 2>/dev/null; true")
        assert found == ""
    finally:
        for path in planted:
            path.unlink(missing_ok=True)


def test_the_machines_programs_are_read_only(tenant: Tenant, box: int) -> None:
    for place in ("/usr/planted", "/.box/planted", "/.box/environment", f"{sys.prefix}/planted", "/sys/planted"):
        assert tenant.ssh(box, f"echo x >{place}").returncode != 0
    assert not Path("/usr/planted").exists()


def test_a_box_sees_only_its_own_processes(tenant: Tenant, box: int) -> None:
    assert f"{os.getpid()}\n" not in tenant.run(box, "ls -1 /proc | grep -E '^[0-9]+$'")
    assert "keeper" not in tenant.run(box, "ps -eo args")


def test_a_box_has_no_power_over_the_network(tenant: Tenant, box: int) -> None:
    assert tenant.ssh(box, "ip link add planted0 type dummy").returncode != 0


def test_a_stranger_is_not_let_in(tenant: Tenant, box: int, tmp_path: Path) -> None:
    stranger = Tenant(tenant.market, tmp_path)
    stranger.make_key()
    assert stranger.ssh(box, "true").returncode == 255


def test_only_keys_known_at_the_time_of_renting_open_a_box(tmp_path: Path) -> None:
    with running_marketplace("process") as market:
        late = Tenant(market, tmp_path)
        number = late.rent(late.offers()[0])
        late.register_key()
        assert late.ssh(number, "true").returncode == 255
        public = late.key.with_suffix(".pub").read_text().strip()
        market.request("POST", f"/api/v0/instances/{number}/ssh/", {"ssh_key": public})
        assert late.ssh(number, "true").returncode == 0


def test_what_goes_over_a_boxs_own_ssh_is_billed_where_the_market_meters_it(tmp_path: Path) -> None:
    with running_marketplace("process", options=("--meter-ssh",)) as market:
        metered = Tenant(market, tmp_path)
        metered.register_key()
        number = metered.rent(metered.offers()[0])
        metered.run(number, "cat > sent", stdin="x" * 3_000_000)
        metered.run(number, "head -c 7000000 /dev/zero | base64 -w 0")
        market.request("DELETE", f"/api/v0/instances/{number}/")

        def moved() -> dict[str, float]:
            (line,) = market.bill()["instances"]
            return {item["type"]: item["quantity"] * 1e9 for item in line["items"] if item["metered"]}

        # What a session needs beside its data is little; ssh itself compresses nothing.
        wait_until(lambda: moved().get("bwd", 0) >= 3_000_000 and moved().get("bwu", 0) >= 7_000_000 * 4 / 3)
        assert moved()["bwd"] < 3_000_000 * 1.1
        assert moved()["bwu"] < 7_000_000 * 4 / 3 * 1.1
        assert market.bill()["not_metered"] == []


@contextlib.contextmanager
def marked_process(tenant: Tenant, number: int) -> Iterator[Path]:
    """A process of the box that this machine can watch: the block gets its directory in /proc."""
    mark = f"600.{os.urandom(4).hex()}".translate(str.maketrans("abcdef", "123456"))
    tenant.run(number, f"setsid sleep {mark} >/dev/null 2>&1 </dev/null &")

    def found() -> list[Path]:
        return [path for path in Path("/proc").glob("[0-9]*") if command_of(path) == f"sleep {mark}"]

    wait_until(lambda: bool(found()))
    yield found()[0]


def command_of(process: Path) -> str:
    with contextlib.suppress(OSError):
        return (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


def test_preemption_kills_at_once_keeps_the_disk_and_onstart_runs_again(tenant: Tenant) -> None:
    number = tenant.rent(tenant.offers(gpu_name={"eq": "RTX 4090"})[0], onstart=ONSTART, env={"TENANT_STAMP": "s"})
    port = tenant.port(number)
    tenant.run(number, "echo kept >/workspace/file; echo kept >/opt/file")
    with marked_process(tenant, number) as process:
        tenant.market.preempt(number)
        assert not process.exists()
    assert tenant.ssh(number, "true").returncode == 255
    row = tenant.market.row(number)
    assert row is not None
    assert (row["cur_state"], row["next_state"], row["intended_status"]) == ("stopped",) * 3
    tenant.market.release(number)
    tenant.market.wait_until_running(number)
    assert tenant.port(number) == port
    assert tenant.run(number, "cat /workspace/file /opt/file").split() == ["kept", "kept"]
    wait_until(lambda: tenant.run(number, "cat starts").split() == ["start", "start"])


def test_stop_keeps_recycle_wipes_destroy_leaves_nothing(tenant: Tenant) -> None:
    number = tenant.rent(tenant.offers()[0])
    tenant.run(number, "echo kept >/workspace/file")
    tenant.change(number, state="stopped")
    assert tenant.ssh(number, "true").returncode == 255
    tenant.change(number, state="running")
    tenant.market.wait_until_running(number)
    assert tenant.run(number, "cat /workspace/file") == "kept\n"
    tenant.market.request("PUT", f"/api/v0/instances/recycle/{number}/", {})
    tenant.market.wait_until_running(number)
    assert tenant.ssh(number, "cat /workspace/file").returncode == 1
    tenant.market.request("DELETE", f"/api/v0/instances/{number}/", {})
    tenant.market.wait_for(number, lambda row: row is None)
    assert not (tenant.market.state_dir / "boxes" / str(number)).exists()


def test_a_box_whose_keeper_was_killed_shows_exited_and_starts_again(tenant: Tenant) -> None:
    number = tenant.rent(tenant.offers()[0])
    directory = tenant.market.state_dir / "boxes" / str(number)
    keepers = [path for path in Path("/proc").glob("[0-9]*") if str(directory / "keeper.json") in command_of(path)]
    init = Path("/proc", (directory / "init.pid").read_text().strip())
    os.kill(int(keepers[0].name), signal.SIGKILL)
    tenant.market.wait_for(number, lambda row: row is not None and row["actual_status"] == "exited")
    tenant.change(number, state="running")
    tenant.market.wait_until_running(number)
    assert not init.exists()
    assert tenant.run(number, "echo back") == "back\n"


def test_a_box_that_replaced_a_mount_point_by_a_link_does_not_start_again(tenant: Tenant, tmp_path: Path) -> None:
    number = tenant.rent(tenant.offers()[0])
    # /workspace is a plain directory of the box's disk; /.box is one of the marketplace's mount points.
    disk = tenant.market.state_dir / "boxes" / str(number) / "disk"
    tenant.change(number, state="stopped")
    (disk / ".box").rmdir()
    (disk / ".box").symlink_to(tmp_path)
    tenant.change(number, state="running")
    row = tenant.market.wait_for(number, lambda one: one is not None and "Error" in (one["status_msg"] or ""))
    assert row is not None
    assert (row["actual_status"], row["intended_status"]) == ("exited", "stopped")
    assert list(tmp_path.iterdir()) == []
