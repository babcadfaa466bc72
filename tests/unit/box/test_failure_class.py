# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Failure classes: what the evidence says, what it must not be read into, and what is tried again."""

from __future__ import annotations

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import gpu
from ansible_collections.tenant.gpu.plugins.module_utils.box.failure_class import (
    ADVICE,
    AGAIN,
    CLASSES,
    Evidence,
    Failure,
    classify,
)
from ansible_collections.tenant.gpu.plugins.module_utils.box.judge import AttemptFacts, ExitFacts, heals_by_itself
from ansible_collections.tenant.gpu.plugins.module_utils.box.shim import wrapper_exit

XIDS = gpu.FATAL_XIDS


@pytest.mark.parametrize(
    ("seen", "name"),
    [
        (Evidence(1), "code"),
        (Evidence(2, log_tail="train.py: error: unrecognized arguments: --lr"), "code"),
        (Evidence(1, log_tail="Traceback (most recent call last):\nKeyError: 'lr'"), "code"),
        (Evidence(-9), "killed"),
        (Evidence(-9, oom_kills=1), "host_memory"),
        (Evidence(1, oom_kills=2, log_tail="RuntimeError: DataLoader worker (pid 7) is killed"), "host_memory"),
        (Evidence(-9, oom_kills=0), "killed"),
        (Evidence(1, shortages=("0 bytes are free",)), "disk_full"),
        (Evidence(1, log_tail="OSError: [Errno 28] No space left on device"), "disk_full"),
        (Evidence(1, log_tail="RuntimeError: basic_ios::clear: iostream error"), "disk_full"),
        (Evidence(1, log_tail="unexpected pos 448 vs 342"), "disk_full"),
        (Evidence(1, log_tail="torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"), "gpu_memory"),
        (Evidence(1, log_tail="[rank0]: torch.cuda.OutOfMemoryError: CUDA out of memory."), "gpu_memory"),
        (Evidence(1, xids=(79,), fatal_xids=XIDS), "gpu_fault"),
        (Evidence(1, log_tail="RuntimeError: CUDA error: uncorrectable ECC error encountered"), "gpu_fault"),
        (Evidence(1, xids=(13,), fatal_xids=XIDS), "code"),
        (Evidence(1, log_tail="wandb.errors.errors.CommError: Run initialization has timed out"), "transient"),
        (Evidence(1, log_tail="requests.exceptions.ConnectionError: HTTPSConnectionPool"), "transient"),
        (Evidence(1, log_tail="ConnectionResetError: [Errno 104] Connection reset by peer"), "transient"),
        (Evidence(1, log_tail="torch.distributed.DistNetworkError: The client socket has failed"), "transient"),
        # Metric names and ordinary talk are no errors.
        (Evidence(1, log_tail="val_ConnectionError: 0.02\nval L1Error: 0.3\nValueError: bad"), "code"),
        (Evidence(1, log_tail="epoch 3 OutOfMemoryErrors=0\nKeyError: 'a'"), "code"),
        # What the kernel counted goes before what the trainer says.
        (Evidence(1, oom_kills=1, log_tail="ConnectionResetError: reset"), "host_memory"),
    ],
)
def test_the_class_follows_the_evidence(seen: Evidence, name: str) -> None:
    found = classify(seen)
    assert found is not None
    assert found.name == name
    assert found.evidence
    assert found.again is (name in ("transient", "killed"))


SURVIVED = """\
urllib.error.HTTPError: HTTP Error 503: Service Unavailable
Traceback (most recent call last):
  File "train.py", line 4, in fetch
    get(url)
ConnectionError: reset by peer
the shard is fetched again
"""
KEY_ERROR = """\
Traceback (most recent call last):
  File "train.py", line 9, in <module>
    rate = config["lr"]
KeyError: 'lr'
"""
BROKE = """\
[rank0]: Traceback (most recent call last):
[rank0]:   File "train.py", line 4, in fetch
[rank0]:     get(url)
[rank0]: ConnectionResetError: [Errno 104] Connection reset by peer
"""
CAME_OF = """
During handling of the above exception, another exception occurred:

"""
TORCHRUN = """\
Traceback (most recent call last):
  File "torchrun", line 8, in <module>
    sys.exit(main())
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
train.py FAILED
"""


@pytest.mark.parametrize(
    ("log_tail", "name"),
    [
        (SURVIVED + KEY_ERROR, "code"),
        (SURVIVED + KEY_ERROR + TORCHRUN, "code"),
        ("Temporary failure in name resolution, trying again\nKeyError: 'lr'", "code"),
        ("HTTP Error 503, trying again\n" + KEY_ERROR, "code"),
        # The error that ended it broke a connection, or came of one that broke.
        (KEY_ERROR + "the default is taken\n" + BROKE, "transient"),
        (KEY_ERROR + BROKE + TORCHRUN, "transient"),
        (BROKE.replace("[rank0]: ", "") + CAME_OF + KEY_ERROR, "transient"),
        # Said by C++ after the traceback of something survived.
        (SURVIVED + "terminate called\n  what(): Watchdog caught collective operation timeout", "transient"),
        # No word of an error's end: everything counts.
        ("HTTP Error 503\ngiving up", "transient"),
        ("requests.exceptions.ConnectionError: pool\nval_L1Error: 0.3\nval_loss_Error: -1e-3", "transient"),
    ],
)
def test_a_connection_that_broke_counts_when_it_ended_the_trainer(log_tail: str, name: str) -> None:
    found = classify(Evidence(1, log_tail=log_tail))
    assert found is not None
    assert found.name == name


CUDA_MEMORY = """\
Traceback (most recent call last):
  File "train.py", line 4, in step
    loss = model(batch)
torch.AcceleratorError: CUDA error: out of memory
CUDA kernel errors might be asynchronously reported at some other API call
"""
WORKER_KILLED = "RuntimeError: DataLoader worker (pid 7) is killed by signal: Killed. "
BY_ACCELERATE = (
    "Traceback (most recent call last):\n"
    '  File "/opt/accelerate/commands/launch.py", line 1198, in simple_launcher\n'
    "subprocess.CalledProcessError: Command '['python', 'train.py']' died with <Signals.SIGKILL: 9>.\n"
)
OF_DATASETS = (
    "Traceback (most recent call last):\n"
    "RuntimeError: One of the subprocesses has abruptly died during map operation. To debug the error, disable it.\n"
)
OF_JOBLIB = (
    "Traceback (most recent call last):\n"
    "joblib.externals.loky.process_executor.TerminatedWorkerError: A worker process managed by the executor was "
    "unexpectedly terminated.\n\nThe exit codes of the workers are {SIGKILL(-9)}\n"
)
BUS_ERROR = (
    "RuntimeError: DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers "
    "are out of shared memory. Please try to raise your shared memory limit."
)
NO_SPACE = "OSError: [Errno 28] No space left on device"
DIRECT_CAUSE = "\nThe above exception was the direct cause of the following exception:\n\n"
QUOTES = """\
Traceback (most recent call last):
  File "train.py", line 9, in <module>
    warn("CUDA out of memory", "No space left on device", config["lr"])
KeyError: 'lr'
"""
LOW = ("40 bytes are free, the run asks for 50",)


def ranked(rank: int, text: str) -> str:
    return "".join(f"[rank{rank}]: {line}\n" for line in text.splitlines())


@pytest.mark.parametrize(
    ("seen", "name"),
    [
        # The card's memory, in the words of the driver's own error.
        (Evidence(1, log_tail=CUDA_MEMORY), "gpu_memory"),
        (Evidence(1, log_tail="RuntimeError: CUDA error: out of memory"), "gpu_memory"),
        (Evidence(1, log_tail="RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), "gpu_memory"),
        # A shell says 128 and the signal.
        (Evidence(137, log_tail="bash: line 1: 12 Killed python train.py"), "killed"),
        (Evidence(137), "killed"),
        (Evidence(137, oom_kills=1), "host_memory"),
        (Evidence(139, log_tail="Segmentation fault (core dumped)"), "killed"),
        (Evidence(138), "code"),
        # Less space than the run asks for explains no error of another name; a full disk does, and so does silence.
        (Evidence(1, shortages=LOW, log_tail=KEY_ERROR), "code"),
        (Evidence(1, shortages=LOW, full=True, log_tail=KEY_ERROR), "disk_full"),
        (Evidence(1, shortages=LOW, log_tail="step 1\nstep 2\n"), "disk_full"),
        (Evidence(1, shortages=LOW, log_tail=KEY_ERROR[: KEY_ERROR.index("KeyError")]), "disk_full"),
        (
            Evidence(1, shortages=LOW, log_tail=KEY_ERROR + NO_SPACE.join(KEY_ERROR.split("KeyError: 'lr'"))),
            "disk_full",
        ),
        (Evidence(-9, shortages=LOW, full=True), "killed"),
        # What was survived.
        (Evidence(1, log_tail="CUDA out of memory, trying batch 8\n" + KEY_ERROR), "code"),
        (Evidence(1, log_tail=CUDA_MEMORY + "trying batch 8\n" + KEY_ERROR), "code"),
        (Evidence(1, log_tail="No space left on device, skipped\n" + KEY_ERROR), "code"),
        (Evidence(1, log_tail="CUDA error: uncorrectable ECC error, on the other card\n" + KEY_ERROR), "code"),
        (Evidence(1, log_tail=QUOTES), "code"),
        # What it came of.
        (Evidence(1, log_tail=CUDA_MEMORY + DIRECT_CAUSE + KEY_ERROR), "gpu_memory"),
        (Evidence(1, log_tail=ranked(1, CUDA_MEMORY) + ranked(0, KEY_ERROR) + TORCHRUN), "gpu_memory"),
        (Evidence(1, log_tail=ranked(1, CUDA_MEMORY) + BROKE + TORCHRUN), "gpu_memory"),
        (Evidence(1, log_tail=ranked(1, CUDA_MEMORY) + ranked(1, KEY_ERROR) + TORCHRUN), "code"),
        # A process that the kernel killed, and what that explains.
        (Evidence(1, oom_kills=1, log_tail=KEY_ERROR), "code"),
        (Evidence(1, oom_kills=1, log_tail=WORKER_KILLED + "\nthe workers begin anew\n" + KEY_ERROR), "code"),
        (Evidence(1, oom_kills=1, log_tail=WORKER_KILLED), "host_memory"),
        (Evidence(1, oom_kills=1, log_tail="DataLoader worker (pid(s) 7, 8) exited unexpectedly"), "host_memory"),
        (Evidence(1, oom_kills=1, log_tail="Traceback (most recent call last):\nEOFError\n"), "host_memory"),
        (Evidence(1, log_tail=WORKER_KILLED), "killed"),
        (Evidence(1, log_tail=WORKER_KILLED.replace("Killed", "Segmentation fault")), "code"),
        (Evidence(1, log_tail="ProcessExitedException: process 0 terminated with signal SIGKILL"), "killed"),
        # The same as its starter words it.
        (Evidence(1, oom_kills=1, log_tail=BY_ACCELERATE), "host_memory"),
        (Evidence(1, log_tail=BY_ACCELERATE), "killed"),
        (
            Evidence(1, oom_kills=1, log_tail="[launch.py:325:sigkill_handler] exits with return code = -9"),
            "host_memory",
        ),
        (Evidence(1, oom_kills=1, log_tail=OF_DATASETS), "host_memory"),
        (Evidence(1, oom_kills=2, log_tail=OF_JOBLIB), "host_memory"),
        (Evidence(1, oom_kills=1, log_tail="RuntimeError: worker 3 died with exitcode -9"), "host_memory"),
        (Evidence(1, oom_kills=1, log_tail="RuntimeError: worker 3 died with exitcode -11"), "code"),
        (Evidence(1, log_tail="ray.exceptions.OutOfMemoryError: Task was killed"), "host_memory"),
        # Host memory in words.
        (Evidence(1, log_tail=BUS_ERROR), "host_memory"),
        (Evidence(1, log_tail="Traceback (most recent call last):\nMemoryError\n"), "host_memory"),
        (Evidence(1, log_tail="numpy._core._exceptions._ArrayMemoryError: Unable to allocate 3 GiB"), "host_memory"),
        (Evidence(1, log_tail="RuntimeError: DefaultCPUAllocator: can't allocate memory: you"), "host_memory"),
        (Evidence(1, log_tail="OSError: [Errno 12] Cannot allocate memory"), "host_memory"),
        (Evidence(1, log_tail="RuntimeError: file </torch_9_1>: No space left on device"), "host_memory"),
        # A network that was away.
        (Evidence(1, log_tail="httpx.ConnectError: [Errno -3] Temporary failure"), "transient"),
        (Evidence(1, log_tail="httpx.ConnectError: All connection attempts failed"), "transient"),
        (Evidence(1, log_tail="httpx.ReadError: the other end went"), "transient"),
        (Evidence(1, log_tail="tarfile.ReadError: not a gzip file"), "code"),
        (Evidence(1, log_tail="TimeoutError: [Errno 110] Connection timed out"), "transient"),
        (Evidence(1, log_tail="TimeoutError: the evaluation took too long"), "code"),
        (Evidence(1, log_tail="wandb.sdk.lib.mailbox.MailboxError: transport failed"), "transient"),
        (Evidence(1, log_tail="wandb.sdk.mailbox.MailboxClosedError: closed"), "transient"),
        (Evidence(1, log_tail="wandb.errors.UsageError: api_key not configured"), "code"),
    ],
)
def test_the_class_is_that_of_the_error_that_ended_it(seen: Evidence, name: str) -> None:
    found = classify(seen)
    assert found is not None
    assert (found.name, found.again) == (name, name in AGAIN), found.evidence


def test_a_neighbours_broken_card_is_none_of_this_run() -> None:
    log = "[ 5.0] NVRM: Xid (PCI:0000:af:00): 79, pid=7\n[ 6.0] NVRM: Xid (PCI:0000:3b:00): 13, pid=8\n"
    found = gpu.parse_xids(log)
    places = {"GPU-1": "00000000:3B:00.0", "GPU-2": "00000000:AF:00.0"}

    def codes(cards: list[str], known: dict[str, str]) -> tuple[int, ...]:
        return tuple(xid.code for xid in gpu.of_cards(found, cards, known))

    assert codes(["GPU-1"], places) == (13,)
    assert codes(["GPU-2"], places) == (79,)
    assert codes(["GPU-1", "GPU-2"], places) == (79, 13)
    # Where one of its cards is not known, or none, a broken card may be its own.
    assert codes(["GPU-1"], {}) == codes(["GPU-1", "1"], places) == codes([], places) == (79, 13)


def test_an_end_without_failure_has_no_class() -> None:
    assert classify(Evidence(0, oom_kills=3, log_tail="ConnectionResetError: retried")) is None


def test_every_class_says_what_to_do() -> None:
    assert set(ADVICE) == set(CLASSES)
    assert set(AGAIN) < set(CLASSES)
    assert "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True" in ADVICE["gpu_memory"]


@pytest.mark.parametrize("name", [name for name in CLASSES if "start again" in ADVICE[name]])
@pytest.mark.parametrize("child", [1, -6])
def test_who_is_told_to_start_again_need_not_name_an_option(name: str, child: int) -> None:
    wrapper = wrapper_exit(child, False, Failure(name, "as seen"))
    ended = ExitFacts(wrapper, child, failure=name)
    assert heals_by_itself(AttemptFacts(1, begun=True, exit=ended)) or "deploy" in ADVICE[name]


def test_the_evidence_is_the_last_line_that_says_it() -> None:
    found = classify(Evidence(1, log_tail="ConnectionError: first\nok\nConnectionError: last\nbye"))
    assert found is not None
    assert found.evidence == "its output says: ConnectionError: last"
