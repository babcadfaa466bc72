# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Which step the path of a checkpoint names."""

from __future__ import annotations

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box.step_name import (
    counted_series_of,
    newest_first,
    order_of,
    series_of,
    split_counts,
    step_in,
    training_step_in,
)


@pytest.mark.parametrize(
    ("path", "step"),
    [
        ("checkpoints/step-0000000042.pt", 42),
        ("checkpoint-500", 500),
        ("epoch_3/model.pt", 3),
        ("ckpts/iter_0000500/mp_rank_00/model.pt", 500),
        ("iteration=7.pt", 7),
        ("arbiter_5.pt", None),
        ("best.pt", None),
        ("sidestep9.pt", None),
        # Lightning's name of what is logged at each step and at each epoch.
        ("epoch=3-step=400-train_loss_epoch=0.41.ckpt", 400),
        ("step=400-val_f1_step=0.41.ckpt", 400),
        ("train_acc_step=400.pt", 400),
    ],
)
def test_steps_in_names(path: str, step: int | None) -> None:
    assert step_in(path) == step


@pytest.mark.parametrize(
    ("path", "step"),
    [
        ("checkpoints/step-0000000042.pt", 42),
        ("checkpoint-500", 500),
        ("ckpts/iter_0000500", 500),
        ("iteration=7.pt", 7),
        ("epoch_3/model.pt", None),
        ("epoch=3-step=1200.ckpt", 1200),
        ("step=1200-epoch=3.ckpt", 1200),
        ("best.pt", None),
    ],
)
def test_an_epoch_in_a_name_is_no_step_of_the_training(path: str, step: int | None) -> None:
    assert training_step_in(path) == step


@pytest.mark.parametrize(
    ("earlier", "later", "series"),
    [
        ("checkpoints/step-0000000042.pt", "checkpoints/step-0000000100.pt", "checkpoints/step-*.pt"),
        ("step-99.dcp", "step-100.dcp", "step-*.dcp"),
        # transformers, accelerate and DeepSpeed: ranks and shards lie inside the folder of the step
        ("checkpoint-5/rng_state_3.pth", "checkpoint-9/rng_state_0.pth", "checkpoint-*/rng_state_*.pth"),
        (
            "checkpoint-5/model-00001-of-00002.bin",
            "checkpoint-9/model-00002-of-00002.bin",
            "checkpoint-*/model-*-of-*.bin",
        ),
        ("checkpoint_3/random_states_0.pkl", "checkpoint_4/random_states_7.pkl", "checkpoint_*/random_states_*.pkl"),
        ("epoch_3/pytorch_model_1.bin", "epoch_4/pytorch_model_1.bin", "epoch_*/pytorch_model_*.bin"),
        ("global_step5/mp_rank_00_states.pt", "global_step9/mp_rank_01_states.pt", "global_step*/mp_rank_*_states.pt"),
        (
            "checkpoint-5/global_step5/rank_0.pt",
            "checkpoint-9/global_step9/rank_1.pt",
            "checkpoint-*/global_step*/rank_*.pt",
        ),
        # Megatron, Lightning
        ("iter_0000500/mp_rank_00/model.pt", "iter_0001000/mp_rank_01/model.pt", "iter_*/mp_rank_*/model.pt"),
        ("epoch=3-step=400.ckpt", "epoch=4-step=500.ckpt", "epoch=*-step=*.ckpt"),
        ("epoch=3-step=400-v1.ckpt", "epoch=4-step=500-v2.ckpt", "epoch=*-step=*-v*.ckpt"),
        ("epoch=03-val_loss=0.42.ckpt", "epoch=04-val_loss=0.39.ckpt", "epoch=*-val_loss=*.*.ckpt"),
        ("val_loss=0.42-epoch=03.ckpt", "val_loss=0.39-epoch=04.ckpt", "val_loss=*-epoch=*.ckpt"),
        ("epoch=3-val_acc=0.9-step=4.ckpt", "epoch=4-val_acc=0.91-step=5.ckpt", "epoch=*-val_acc=*-step=*.ckpt"),
        *(
            (f"epoch=3-{one}-step=4.ckpt", f"epoch=4-{other}-step=5.ckpt", f"epoch=*-{name}=*-step=*.ckpt")
            for name, one, other in (
                ("val_f1", "val_f1=0.93", "val_f1=0.95"),
                ("val_auc", "val_auc=0.9", "val_auc=0.91"),
                ("bleu", "bleu=27.31", "bleu=28.02"),
                ("ppl", "ppl=9.31", "ppl=1.2e+03"),
                ("val_loss", "val_loss=12", "val_loss=9.5"),
                ("val_loss", "val_loss=nan", "val_loss=-1.2e-05"),
                ("train_loss_epoch", "train_loss_epoch=0.41", "train_loss_epoch=1e-05"),
                ("score_step", "score_step=0.41", "score_step=inf"),
            )
        ),
        # own loops
        ("step-100/rank-3.pt", "step-200/rank-1.pt", "step-*/rank-*.pt"),
        ("step-20-loss-0.53.pt", "step-40-loss-0.5.pt", "step-*-loss-*.*.pt"),
        ("step-100-20240101_120000.pt", "step-200-20240101_130000.pt", "step-*-*_*.pt"),
        ("rank3/step-5.pt", "rank3/step-9.pt", "rank3/step-*.pt"),
        ("model_1000.pt", "model_2000.pt", "model_*.pt"),
    ],
)
def test_a_later_step_is_of_the_series_of_the_earlier_one(earlier: str, later: str, series: str) -> None:
    assert series_of(earlier) == series_of(later) == series


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("phase1-step-10000.pt", "phase2-step-500.pt"),
        ("fold-3-step-1000.pt", "fold-4-step-200.pt"),
        ("step-1000-fold-3.pt", "step-200-fold-4.pt"),
        ("epoch_9/fold_0/model.pt", "epoch_3/fold_1/model.pt"),
        ("fold-3/checkpoint-500/optimizer.pt", "fold-4/checkpoint-20/optimizer.pt"),
        (
            "lightning_logs/version_0/checkpoints/epoch=9-step=90.ckpt",
            "lightning_logs/version_1/checkpoints/epoch=0-step=9.ckpt",
        ),
        ("2026-11-23/20-00-00/step-100.pt", "2026-11-23/21-00-00/step-20.pt"),
        ("lr=0.01-step-100.pt", "lr=0.1-step-20.pt"),
        ("lr=1e-05-step-100.pt", "lr=1e-04-step-20.pt"),
        ("map=3-step-100.pt", "map=4-step-20.pt"),
        ("snap=0.5-step-100.pt", "snap=0.6-step-20.pt"),
        ("loss=1x-step-100.pt", "loss=2x-step-20.pt"),
        ("llama-3.1-step-100.pt", "llama-3.2-step-20.pt"),
        ("rank0/step-100.pt", "rank1/step-100.pt"),
        ("kfold0_best.pth", "kfold1_best.pth"),
    ],
)
def test_what_counts_its_steps_by_itself_is_a_series_of_its_own(one: str, other: str) -> None:
    assert series_of(one) != series_of(other)


@pytest.mark.parametrize(
    ("path", "order", "series", "counts"),
    [
        ("checkpoint-500/model.bin", (500,), "checkpoint-*/model.bin", ()),
        ("epoch=3-step=400.ckpt", (3, 400), "epoch=*-step=*.ckpt", (3,)),
        ("fold-1/epoch_2_step_400.pt", (2, 400), "fold-1/epoch_*_step_*.pt", (2,)),
        ("epoch=3-train_loss_epoch=0.41-step=4.ckpt", (3, 4), "epoch=*-train_loss_epoch=*-step=*.ckpt", (3,)),
        ("step=1200-epoch=3.ckpt", (1200, 3), "step=*-epoch=*.ckpt", (1200,)),
        ("last.pt", (), "last.pt", ()),
    ],
)
def test_an_epoch_before_the_step_is_told_with_it(
    path: str, order: tuple[int, ...], series: str, counts: tuple[int, ...]
) -> None:
    assert order_of(path) == order
    assert split_counts(counted_series_of(path)) == (series, counts)


def test_the_newest_is_of_the_latest_epoch_and_there_of_the_highest_step() -> None:
    assert newest_first([(1, 500), (2, 100), (1, 400), (2, 400)]) == [(2, 400), (2, 100), (1, 500), (1, 400)]
    assert newest_first([(3, 400), (4, 500), (3, 450)]) == [(4, 500), (3, 450), (3, 400)]
    assert newest_first([(4,), (12,), (9,)]) == [(12,), (9,), (4,)]
    assert newest_first([(2, 400), (450,), (1, 500)]) == [(2, 400), (1, 500), (450,)]
    assert newest_first([]) == []
