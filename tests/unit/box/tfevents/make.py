# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Writes the event files beside it with the real writers (torch 2.13, tensorboard 2.21): ``python make.py``.

They are kept, so that the tests need no tensorboard.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util import tensor_util
from torch.utils.tensorboard import SummaryWriter

HERE = Path(__file__).parent
NUMBERS = [np.float32(0.5), np.float64(0.25), np.int64(7), np.int32(-3), np.float16(1.5), np.array([1.0, 2.0])]


def simple_values(folder: str) -> None:
    writer = SummaryWriter(folder)
    for count in range(1, 41):
        writer.add_scalar("train/loss", 2.0 / count, count * 10)
        if count % 10 == 0:
            writer.add_scalar("val/loss", 3.0 / count, count // 10)
    writer.add_text("note", "hello loss")
    writer.add_histogram("weights", torch.arange(50.0), 400)
    writer.close()


def tensors_of_torch(folder: str) -> None:
    writer = SummaryWriter(folder)
    for step in range(1, 6):
        writer.add_scalar("loss", 1.0 / step, step, new_style=True)
        writer.add_scalar("precise", 1.0 / 3, step, new_style=True, double_precision=True)
    writer.close()


def tensors_of_tensorboard(folder: str) -> None:
    writer = EventFileWriter(folder)
    for step, number in enumerate(NUMBERS):
        value = summary_pb2.Summary.Value(tag=f"t{step}", tensor=tensor_util.make_tensor_proto(number))
        writer.add_event(event_pb2.Event(step=step, wall_time=1.0, summary=summary_pb2.Summary(value=[value])))
    value = summary_pb2.Summary.Value(tag="big", simple_value=1.0)
    writer.add_event(event_pb2.Event(step=2**40, summary=summary_pb2.Summary(value=[value])))
    writer.close()


if __name__ == "__main__":
    for make in (simple_values, tensors_of_torch, tensors_of_tensorboard):
        with tempfile.TemporaryDirectory() as folder:
            make(folder)
            (written,) = Path(folder).iterdir()
            shutil.copyfile(written, HERE / f"{make.__name__}.tfevents")
