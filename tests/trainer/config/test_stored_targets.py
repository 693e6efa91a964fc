"""Targets that a configuration inside a checkpoint may name: those of the program's own YAML files,
optimizers of torch, and those of modules that the user trusts."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.helpers.commands import ROOT
from tests.helpers.stored_configurations import Dispatch, Edit, read, text_of
from trainer.config import knobs, stored
from trainer.errors import UserError


def test_every_target_of_our_yamls_and_no_other_is_ours() -> None:
    for group in knobs.GROUPS:
        files = sorted((ROOT / "configs" / group).glob("*.yaml"))
        named = {yaml.safe_load(f.read_text()).get("_target_") for f in files}
        nested = {
            value["_target_"]
            for f in files
            for value in yaml.safe_load(f.read_text()).values()
            if isinstance(value, dict) and "_target_" in value
        }
        assert (named | nested) - {None} == stored.own_targets(group)
        assert all(stored.is_own(group, target) for target in stored.own_targets(group))


@pytest.mark.parametrize("name", ["NAdam", "RAdam", "Adamax", "Rprop", "Adam"])
def test_any_optimizer_of_torch_is_taken(name: str) -> None:
    assert stored.is_own("optimizer", f"torch.optim.{name}")
    assert not stored.is_own("model", f"torch.optim.{name}")


@pytest.mark.parametrize(
    "target",
    ["torch.optim.Optimizer", "torch.optim.lr_scheduler.StepLR", "torch.optim._functional",
     "torch.optim.swa_utils.AveragedModel", "torch.optim.nope", "torch.load", "torch.optim"],
)  # fmt: skip
def test_nothing_else_of_torch_is(target: str) -> None:
    assert not stored.is_own("optimizer", target)


HOSTILE: list[tuple[str, Edit]] = [
    ("data.image_folder.bad_images._write",
     lambda c: c["data"].update(_target_="data.image_folder.bad_images._write")),
    ("data.roots.expanded", lambda c: c["data"].update(_target_="data.roots.expanded")),
    ("models.init.initialise", lambda c: c["model"].update(_target_="models.init.initialise")),
    ("model._target_", lambda c: c["model"].update(_target_={"_target_": "os.system"})),
    ("model._target_", lambda c: c["model"].update(_target_=None)),
    ("model._args_", lambda c: c["model"].update(_args_=[1])),
    ("model._partial_", lambda c: c["model"].update(_partial_=True)),
    ("model._recursive_", lambda c: c["model"].update(_recursive_=True)),
    ("optimizer._convert_", lambda c: c["optimizer"].update(_convert_="all")),
    ("_partial_", lambda c: c["optimizer"].update(_partial_=False)),
    ("model.hidden._target_", lambda c: c["model"].update(hidden={"_target_": "data.mnist.FILES"})),
    ("data.mean._target_", lambda c: c["data"].update(mean=[{"_target_": "os.getcwd"}])),
    ("loss.a.b._target_", lambda c: c["loss"].update(a={"b": [{"_target_": "models.mlp.MLP"}]})),
    ("'evil'", lambda c: c.update(evil=1)),
    ("augment", lambda c: c.update(augment=[1])),
    ("model", lambda c: c.pop("model")),
    ("epochs=-1", lambda c: c.update(epochs=-1)),
    ("optimizer.lr", lambda c: c["optimizer"].update(lr="fast")),
    ("data.shape", lambda c: c["data"].update(shape=[1, 9000, 9000])),
    ("data.num_classes", lambda c: c["data"].update(num_classes=10**6)),
]  # fmt: skip


@pytest.mark.parametrize(("said", "edit"), HOSTILE, ids=[f"{i} {s}" for i, (s, _) in
                                                          enumerate(HOSTILE)])  # fmt: skip
def test_hostile_configurations_are_refused(said: str, edit: Edit) -> None:
    with pytest.raises(UserError) as error:
        read(text_of(edit), "trust=my_nets")
    assert said in str(error.value)


def test_a_trusted_module_may_not_lend_what_it_imports_or_hides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lent_nets.py").write_text(
        "from os import system\ndef net(shape, num_classes): ...\ndef _net(**any): ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, taken in (("net", True), ("_net", False), ("system", False), ("nope", False)):
        text = text_of(lambda c, name=name: c["model"].update(_target_=f"lent_nets.{name}"))
        if taken:
            assert read(text, "trust=lent_nets")["model"]["_target_"] == "lent_nets.net"
        else:
            with pytest.raises(UserError, match=f"lent_nets.{name}"):
                read(text, "trust=lent_nets")
        with pytest.raises(UserError, match="trust=lent_nets takes it"):
            read(text, "trust=[other]")


def test_what_a_checkpoint_could_not_name_is_not_trained(dispatch: Dispatch) -> None:
    for word in ("+model.extra={_target_: os.getcwd}", "+optimizer._convert_=all",
                 "+model.hidden=[{_target_: os.getcwd}]"):  # fmt: skip
        done = dispatch(word.replace("+model.hidden", "model.hidden"))
        assert done.returncode == 2, done.output
        assert "may begin with _" in done.stderr
    assert list(Path().iterdir()) == []
