"""Parameter groups: their rates and decays against torch, over resume, processes and a compiled
step."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from models.resnet import ResNet
from models.vgg import VGG
from tests.helpers import results, several
from tests.helpers.commands import run_trainer, train
from tests.helpers.small_sweeps import SMALL
from trainer.builders import param_groups
from trainer.builders.optimizers import make_optimizer
from trainer.config import choices
from trainer.errors import UserError

OFF: dict[str, Any] = {"lr_factors": None, "layer_decay": 1.0, "decay_norms_and_biases": True}
ALL = ["lr_factors=[[*bias,2],[net.*,0.5]]", "layer_decay=0.5", "decay_norms_and_biases=false"]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.ReLU(), nn.Linear(5, 4))
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))  # type: ignore[no-any-return]


def optimizer_of(model: nn.Module, name: str = "sgd", **keys: Any) -> torch.optim.Optimizer:
    return make_optimizer({"optimizer": choices.options("optimizer", name), **OFF, **keys}, model)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop", "adagrad", "adadelta"])
def test_as_torch_with_groups_by_hand(name: str) -> None:
    torch.manual_seed(0)
    ours = Net()
    theirs = copy.deepcopy(ours)
    keys = {"lr_factors": {"body.*": 0.5, "body.0.*": 0.1}, "layer_decay": 0.5}
    options = choices.options("optimizer", name)
    options |= {"weight_decay": 0.3}
    mine = make_optimizer(
        {"optimizer": options, **OFF, **keys, "decay_norms_and_biases": False}, ours
    )
    lr = options["lr"]
    factor = {"body.0": 0.1 * 0.25, "body.1": 0.5 * 0.25, "body.3": 0.5 * 0.5, "head": 1.0}
    plain = {k: v for k, v in options.items() if k not in ("lr", "weight_decay", "_target_")
             and k != "_partial_"}  # fmt: skip
    groups = [
        {"params": [p], "lr": lr * factor[n.rpartition(".")[0]],
         "weight_decay": 0.3 * (p.ndim > 1)}
        for n, p in theirs.named_parameters()
    ]  # fmt: skip
    by_hand = getattr(torch.optim, options["_target_"].rpartition(".")[2])(groups, lr=lr, **plain)
    for _ in range(5):
        images = torch.randn(7, 6)
        for net, optimizer in ((ours, mine), (theirs, by_hand)):
            optimizer.zero_grad()
            net(images).square().sum().backward()
            optimizer.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


def test_off_is_one_group_as_before() -> None:
    (group,) = optimizer_of(Net()).param_groups
    assert (group["lr"], group["weight_decay"]) == (0.05, 5e-4)
    assert not {"name", "lr_factor"} & group.keys()


def test_a_pattern_that_matches_nothing_is_refused() -> None:
    with pytest.raises(UserError, match=r"lr_factors=tail\.\*: no parameter name matches.*head"):
        optimizer_of(Net(), lr_factors=[["tail.*", 0.1]])
    rates = [g["lr"] for g in optimizer_of(Net(), lr_factors=[["head.*", 0.1]]).param_groups]
    assert rates == pytest.approx([0.05, 0.005])


def firsts(model: nn.Module) -> list[str]:
    found = param_groups.blocks(model)
    names = [name for name, _ in model.named_parameters()]
    assert sorted(name for block in found for name in block) == sorted(names)
    return [block[0] for block in found]


def test_blocks_of_networks() -> None:
    assert firsts(Net()) == ["body.0.weight", "body.3.weight", "head.weight"]
    with torch.device("meta"):
        resnet, vgg = ResNet([3, 32, 32], 10), VGG([3, 32, 32], 10, depth=11, batch_norm=True)
        vit = torchvision.models.vit_b_16()
    assert firsts(resnet) == [
        "conv1.weight", *(f"layer{i}.{k}.conv1.weight" for i in range(1, 5) for k in range(2)),
        "fc.weight",
    ]  # fmt: skip
    assert len(firsts(vgg)) == 9  # eight convolutions and the head
    of_vit = firsts(vit)
    assert len(of_vit) == 14  # patches, twelve layers, the head
    assert (of_vit[0], of_vit[-1]) == ("class_token", "heads.head.weight")


def test_layer_decay_of_a_vit_is_that_of_its_layers() -> None:
    with torch.device("meta"):
        vit = torchvision.models.vit_b_16()
    factors = param_groups.factors_of({**OFF, "layer_decay": 0.75}, vit)
    assert factors["heads.head.bias"] == 1
    assert factors["encoder.layers.encoder_layer_11.ln_1.weight"] == pytest.approx(0.75)
    assert factors["encoder.ln.weight"] == pytest.approx(0.75)
    assert factors["encoder.layers.encoder_layer_0.ln_1.weight"] == pytest.approx(0.75**12)
    assert factors["conv_proj.weight"] == pytest.approx(0.75**13)


@pytest.mark.parametrize(
    "more", [["optimizer=adamw"], *(pytest.param([w], marks=pytest.mark.slow) for w in
                                   ("compile=step", "precision=fp16"))]
)  # fmt: skip
def test_resumed_to_the_same_bits(tmp_path: Path, more: list[str]) -> None:
    words = [*SMALL, "epochs=3", *ALL, "optimizer=sgd", *more, "tensorboard=true"]
    words = [w.replace("net.*", "*weight") for w in words]
    whole = train(tmp_path, *words, folder="whole")
    assert "group 0_x0.25" in whole.command.stdout or "group 0_x0.125" in whole.command.stdout
    train(tmp_path, *words, "stop_epoch=1")
    later = run_trainer("resume", "run", cwd=tmp_path)
    assert later.returncode == 0, later.output
    results.assert_same(tmp_path / "run", tmp_path / "whole")
    tags = results.curves(tmp_path / "run")
    rates = {tag: points for tag, points in tags.items() if tag.startswith("lr/")}
    assert len(rates) > 2
    assert tags["lr"] == max(rates.values(), key=lambda points: points[0][1])
    other = run_trainer("resume", "run", "layer_decay=1", "epochs=4", "--force", cwd=tmp_path)
    assert other.returncode == 2
    assert "layer_decay" in other.output


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    words = [w.replace("net.*", "*weight") for w in (*SMALL, *ALL, "optimizer=sgd")]
    words += ["epochs=2", "precision=fp64", "num_threads=1"]
    alone = train(tmp_path, *words, folder="alone")
    ended = several.run(tmp_path, *words, "processes=2", "hydra.run.dir=run")
    assert [one.code for one in ended] == [0, 0], ended
    losses = [[row["loss"] for row in results.rows(f)] for f in (alone.folder, tmp_path / "run")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-12)


REFUSED = [
    ("lr_factors=[[tail.*,0.1]]", "lr_factors=tail.*: no parameter name matches"),
    ("lr_factors=[[*bias,0]]", "lr_factors=[[*bias,0]]: must be pairs"),
    ("lr_factors=[*bias]", "must be pairs [[pattern,number]], each number greater than 0"),
    ("layer_decay=1.5", "layer_decay=1.5: must be a number greater than 0 and at most 1"),
    ("decay_norms_and_biases=false", "optimizer.weight_decay is 0"),
]


@pytest.mark.parametrize(("word", "said"), REFUSED)
def test_refused_by_name(dispatch: Any, word: str, said: str) -> None:
    done = dispatch(word)
    assert done.returncode == 2
    assert said in done.output
