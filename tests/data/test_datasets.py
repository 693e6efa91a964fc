"""What holds for every data set, over all YAML files of the group."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
import torchvision
from omegaconf import DictConfig, OmegaConf

from data.cifar.load import CIFAR10, CIFAR100
from data.types import DataError, Dataset
from tests.helpers import dataset_files, image_files
from tests.helpers.commands import ROOT
from trainer.config import choices

YAMLS = sorted((ROOT / "configs" / "data").glob("*.yaml"))


def md5_keys(files: dict[str, bytes]) -> dict[str, Any]:
    return {"file_md5": {name: dataset_files.md5(content) for name, content in files.items()}}


def small_config(path: Path, root: Path) -> DictConfig:
    """The YAML, pointed at small files of its format under `root`."""
    changes: dict[str, Any] = {}
    if path.stem in ("mnist", "fashion_mnist"):
        dataset_files.write(root, dataset_files.mnist_files(num_train=100))
        changes = {"root": str(root)}
    elif path.stem == "cifar10":
        files = dataset_files.cifar10_files()
        dataset_files.write(root / CIFAR10.folder, files)
        changes = {"root": str(root), **md5_keys(files)}
    elif path.stem == "cifar100":
        files = dataset_files.cifar100_files(num_train=1000)
        dataset_files.write(root / CIFAR100.folder, files)
        changes = {"root": str(root), **md5_keys(files)}
    elif path.stem == "image_folder":
        image_files.write_classes(root, per_class=20)
        changes = {"root": str(root)}
    config = OmegaConf.create(choices.options("data", path.stem))
    assert isinstance(config, DictConfig)
    config.update(changes)
    return config


def test_all_data_sets_are_found() -> None:
    names = {path.stem for path in YAMLS}
    assert names == {
        "mnist_5k", "mnist", "fashion_mnist", "cifar10", "cifar100", "image_folder", "synthetic"
    }  # fmt: skip


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_each_set_is_what_it_says(path: Path, tmp_path: Path) -> None:
    config = small_config(path, tmp_path)
    made: Dataset = hydra.utils.instantiate(config)
    assert list(made.shape) == config.shape
    assert config.num_classes in (len(made.classes), None)
    assert len(made.classes) == len(set(made.classes))
    assert all(isinstance(name, str) for name in made.classes)
    assert (list(made.mean), list(made.std)) == (config.mean, config.std)
    assert len(made.mean) == len(made.std) == made.shape[0]
    assert all(type(value) is float for value in made.mean + made.std)
    assert made.hflip is config.hflip
    total = len(made.train) + len(made.val)
    assert len(made.val) == round(config.val_size * total)
    for split in (made.train, made.val, made.test):
        assert split.images_at(torch.arange(len(split))).shape == (len(split), *made.shape)
        assert (split.images.dtype, split.labels.dtype) == (torch.uint8, torch.int64)
        assert split.images.is_contiguous()
        assert split.images.device.type == split.labels.device.type == "cpu"
        assert set(split.labels.tolist()) == set(range(len(made.classes)))


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_each_set_comes_in_the_shape_asked(path: Path, tmp_path: Path) -> None:
    config = small_config(path, tmp_path)
    for shape in ([1, 32, 32], [3, 40, 36]):
        made: Dataset = hydra.utils.instantiate(config, shape=shape, mean=[0.5], std=[0.25])
        assert made.shape == tuple(shape)
        assert made.mean == (0.5,) * shape[0]


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_each_set_refuses_another_num_classes_or_stays_true_to_it(
    path: Path, tmp_path: Path
) -> None:
    config = small_config(path, tmp_path)
    if path.stem == "synthetic":
        assert len(hydra.utils.instantiate(config, num_classes=42).classes) == 42
        return
    with pytest.raises(hydra.errors.InstantiationException) as caught:
        hydra.utils.instantiate(config, num_classes=42)
    assert isinstance(caught.value.__cause__, DataError)
    assert "data.num_classes=42" in str(caught.value)


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_yaml_and_function_have_the_same_keys(path: Path) -> None:
    config = OmegaConf.create(choices.options("data", path.stem))
    parameters = inspect.signature(hydra.utils.get_method(config._target_)).parameters.values()
    assert {p.name for p in parameters} == {str(key) for key in config} - {"_target_"}
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters)
    # What came later has the YAML's own value, for configurations that are older.
    given = {p.name: p.default for p in parameters if p.default is not p.empty}
    assert given == {name: config[name] for name in given}


def test_published_checksums_are_torchvisions() -> None:
    for name, reader in (
        ("cifar10", torchvision.datasets.CIFAR10),
        ("cifar100", torchvision.datasets.CIFAR100),
    ):
        config = OmegaConf.create(choices.options("data", name))
        published = dict(reader.train_list + reader.test_list)
        published[reader.meta["filename"]] = reader.meta["md5"]
        assert OmegaConf.to_container(config.file_md5) == published
        assert config.archive_md5 == reader.tgz_md5
        assert reader.url in {mirror + reader.filename for mirror in config.mirrors}


def test_mean_and_std_are_those_of_the_train_part() -> None:
    """Checked where the images are at hand: the shipped digits and the made-up images."""
    for name, digits in (("mnist_5k", 4), ("synthetic", 1)):
        config = OmegaConf.create(choices.options("data", name))
        made: Dataset = hydra.utils.instantiate(config)
        pixels = torch.cat([made.train.images, made.val.images]).double() / 255
        assert made.mean == (pytest.approx(pixels.mean().item(), abs=0.51 * 10**-digits),)
        assert made.std == (pytest.approx(pixels.std().item(), abs=0.51 * 10**-digits),)


@pytest.mark.slow
def test_importing_loads_no_torchvision_and_prints_nothing() -> None:
    code = (
        "import data.cifar.load, data.image_folder.load, data.mnist, data.synthetic, sys;"
        "assert not {'torchvision', 'mlxtend', 'trainer', 'models'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=YAMLS[0].parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
