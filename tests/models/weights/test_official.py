"""torchvision's official weights: metadata, torch hub's folder, and no network."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import Tensor
from torchvision import models as torchvision_models

import models.weights.torchvision_files as module
from models.weights import reader
from models.weights.foreign import WeightsError
from models.weights.reader import load_official, read
from models.weights.torchvision_files import Official, official
from tests.helpers.weights_process import stay_in_process

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty folder of torch hub."""
    stay_in_process(monkeypatch)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Official]:
    """Publishes a state_dict as official weights, at a file:// URL with its hash in the name."""

    def publish(state: dict[str, Tensor], arch: str, name: str = "IMAGENET1K_V1") -> Official:
        plain = tmp_path / "server" / "plain.pth"
        plain.parent.mkdir(exist_ok=True)
        torch.save(state, plain)
        digits = hashlib.sha256(plain.read_bytes()).hexdigest()[:8]
        file = plain.rename(plain.with_name(f"{arch}-{digits}.pth"))
        info = replace(
            official(arch, name), url=file.as_uri(), filename=file.name, hash_prefix=digits
        )
        real = official

        def patched(arch: str, name: str = "IMAGENET1K_V1") -> Official:
            return info if (arch, name) == (info.arch, info.name) else real(arch, name)

        monkeypatch.setattr(module, "official", patched)
        monkeypatch.setattr(reader, "official", patched)
        return info

    return publish


def head(num_classes: int) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {"fc.weight": torch.randn(num_classes, 4), "fc.bias": torch.randn(num_classes)}


@pytest.mark.parametrize(
    ("arch", "name", "filename", "resize", "crop"),
    [  # from torchvision's documentation of these weights
        ("alexnet", "IMAGENET1K_V1", "alexnet-owt-7be5be79.pth", 256, 224),
        ("vgg19", "IMAGENET1K_V1", "vgg19-dcbb9e9d.pth", 256, 224),
        ("vgg16_bn", "IMAGENET1K_V1", "vgg16_bn-6c64b313.pth", 256, 224),
        ("resnet50", "IMAGENET1K_V1", "resnet50-0676ba61.pth", 256, 224),
        ("resnet50", "IMAGENET1K_V2", "resnet50-11ad3fa6.pth", 232, 224),
        ("googlenet", "IMAGENET1K_V1", "googlenet-1378be20.pth", 256, 224),
        ("inception_v3", "IMAGENET1K_V1", "inception_v3_google-0cc3c7bd.pth", 342, 299),
    ],
)
def test_metadata(arch: str, name: str, filename: str, resize: int, crop: int) -> None:
    info = official(arch, name)
    assert info.filename == filename
    assert info.url == f"https://download.pytorch.org/models/{filename}"
    assert filename == f"{filename[: -len(info.hash_prefix) - 5]}-{info.hash_prefix}.pth"
    assert info.classes is not None
    assert (len(info.classes), info.classes[0], info.classes[999]) == (
        1000,
        "tench",
        "toilet tissue",
    )
    assert (info.resize, info.crop, info.interpolation) == (resize, crop, "bilinear")
    own = arch in ("googlenet", "inception_v3")
    assert (info.mean, info.std) == (((0.5,) * 3,) * 2 if own else (IMAGENET_MEAN, IMAGENET_STD))
    assert info.path.name == filename


@pytest.mark.parametrize("arch", ["googlenet", "inception_v3"])
def test_input_transform_is_mean_and_std_one_half(arch: str) -> None:
    with torch.device("meta"):
        net = torchvision_models.get_model(arch, transform_input=True, init_weights=False)
    x = torch.rand(2, 3, 8, 8)
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    normalised = (x - mean[:, None, None]) / std[:, None, None]
    ours = (x - official(arch).mean[0]) / official(arch).std[0]
    torch.testing.assert_close(net._transform_input(normalised), ours, rtol=0, atol=1e-6)


def test_no_other_builder_sets_the_input_transform() -> None:
    import inspect

    found = {
        arch
        for arch in torchvision_models.list_models(module=torchvision_models)
        if "transform_input" in inspect.getsource(torchvision_models.get_model_builder(arch))
    }
    assert found == module.TRANSFORM_INPUT


def test_every_classifier_has_metadata() -> None:
    archs = torchvision_models.list_models(module=torchvision_models)
    assert len(archs) >= 80
    for arch in archs:
        for name in torchvision_models.get_model_weights(arch).__members__:
            info = official(arch, name)
            assert info.hash_prefix in info.filename
            assert len(info.hash_prefix) >= 8
            assert info.classes is None or len(info.classes) == 1000


def test_unknown_names_say_what_there_is() -> None:
    with pytest.raises(
        WeightsError, match="no weights 'V3' for resnet50; it has IMAGENET1K_V1, IM"
    ):
        official("resnet50", "V3")
    with pytest.raises(WeightsError, match="no classifier 'lenet5'; it has alexnet, conv"):
        load_official("lenet5")


def test_download_then_cache(published: Callable[..., Official]) -> None:
    info = published(head(1000), "vgg19")
    foreign = load_official("vgg19")
    assert all(torch.equal(foreign.state_dict[k], v) for k, v in head(1000).items())
    assert foreign.classes == list(official("vgg19").classes or ())
    assert (foreign.mean, foreign.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert (foreign.resize, foreign.shape, foreign.notes) == (256, (3, 224, 224), [])
    Path(info.url.removeprefix("file://")).unlink()
    assert load_official("vgg19").classes == foreign.classes  # from the folder


def test_damaged_files_are_never_used(published: Callable[..., Official]) -> None:
    info = published(head(1000), "vgg19")
    server = Path(info.url.removeprefix("file://"))
    good = server.read_bytes()
    server.write_bytes(good[:-1] + b"x")
    with pytest.raises(WeightsError, match=r"could not be downloaded.*invalid hash"):
        load_official("vgg19")
    assert list(info.path.parent.iterdir()) == []
    info.path.write_bytes(good[:-1] + b"x")
    with pytest.raises(WeightsError, match=r"SHA-256 does not begin with .* delete it"):
        load_official("vgg19")
    info.path.write_bytes(good)
    assert load_official("vgg19").state_dict


def test_without_network_one_message_tells_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **options: object) -> None:
        raise URLError("Temporary failure in name resolution")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    info = official("resnet50", "IMAGENET1K_V2")
    with pytest.raises(WeightsError) as caught:
        load_official("resnet50", "IMAGENET1K_V2")
    message = str(caught.value)
    assert "\n" not in message
    assert f"download {info.url} elsewhere and put it at {info.path}" in message


def test_old_names_of_densenet(published: Callable[..., Official]) -> None:
    new = torchvision_models.densenet121(weights=None).state_dict()
    new = {k: torch.zeros(()) for k in new if "num_batches" not in k and "classifier" not in k}
    old = {}
    for key in new:
        for kind in ("norm", "conv"):
            for number in "12":
                if "denselayer" in key:
                    key = key.replace(f"{kind}{number}.", f"{kind}.{number}.")
        old[key] = torch.zeros(())
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    published(old | head(1000), "densenet121")
    have = [k for k in load_official("densenet121").state_dict if "num_batches" not in k]
    assert have == [*new, *head(1000)]


def test_files_are_recognised_by_content(published: Callable[..., Official]) -> None:
    info = published(head(1000), "resnet50", "IMAGENET1K_V2")
    server = Path(info.url.removeprefix("file://"))
    renamed = server.rename(server.with_name("my weights"))
    foreign = read(renamed, {}, arch="resnet50")
    assert foreign.resize == 232
    assert foreign.notes == ["recognised as torchvision's resnet50 IMAGENET1K_V2 by its SHA-256"]


def shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def test_other_files_of_a_torchvision_network(tmp_path: Path) -> None:
    torch.save(head(1000), tmp_path / "w.pth")
    foreign = read(tmp_path / "w.pth", shapes(head(1000)), arch="googlenet")
    assert (foreign.mean, foreign.std) == ((0.5,) * 3, (0.5,) * 3)
    assert (foreign.resize, foreign.shape) == (256, (3, 224, 224))
    assert foreign.classes is not None
    assert foreign.classes[0] == "tench"
    assert "not one of torchvision's own files" in foreign.notes[0]
    assert read(tmp_path / "w.pth", shapes(head(1000)), arch="lenet5").classes is None
    torch.save(head(42), tmp_path / "w.pth")
    foreign = read(tmp_path / "w.pth", shapes(head(1000)), arch="googlenet")
    assert (foreign.classes, foreign.mean, foreign.notes) == (None, None, [])


def test_the_first_recipe_is_taken_and_said(tmp_path: Path) -> None:
    torch.save(head(1000), tmp_path / "w.pth")
    foreign = read(tmp_path / "w.pth", shapes(head(10)), arch="resnet50")
    assert foreign.resize == official("resnet50", "IMAGENET1K_V1").resize != 232
    assert foreign.notes[0].endswith(
        "those of resnet50 IMAGENET1K_V1, the first; torchvision also has IMAGENET1K_V2"
    )


@pytest.mark.parametrize("order", ["sorted", "reversed"])
def test_the_head_is_found_wherever_it_stands(tmp_path: Path, order: str) -> None:
    """Not by being the file's last tensor: safetensors sorts by name, people by their scripts."""
    net = {"features.0.weight": torch.ones(8, 3, 1, 1), "classifier.1.bias": torch.ones(1000)}
    names = sorted(net) if order == "sorted" else list(reversed(net))
    assert names[-1].startswith("features.")
    torch.save({name: net[name] for name in names}, tmp_path / "w.pth")
    foreign = read(tmp_path / "w.pth", shapes(net), arch="squeezenet1_1")
    assert foreign.classes == list(official("squeezenet1_1").classes or ())
    assert foreign.mean == IMAGENET_MEAN


@pytest.mark.parametrize("arch", ["vgg16", "squeezenet1_1", "resnet18", "efficientnet_b0"])
def test_the_last_tensor_of_a_network_is_its_heads(arch: str) -> None:
    with torch.device("meta"):
        state = torchvision_models.get_model(arch, weights=None, num_classes=7).state_dict()
    assert shapes(state)[list(state)[-1]] == (7,)


FEATURES = {"features.0.weight": torch.ones(8, 3, 3, 3), "features.0.bias": torch.ones(8)}
NAN = {"classifier.6.weight": torch.full((9, 8), torch.nan), "classifier.6.bias": torch.ones(9)}
TARGET = shapes(FEATURES | NAN)


@pytest.mark.parametrize("published", [False, True])
def test_vgg16_without_a_head(tmp_path: Path, published: bool) -> None:
    """As people cut it off, and as torchvision publishes it, a head of NaN."""
    without = NAN | {"classifier.6.bias": torch.full((9,), torch.nan)} if published else {}
    torch.save(FEATURES | without, tmp_path / "w.pth")
    foreign = read(tmp_path / "w.pth", TARGET, arch="vgg16")
    assert foreign.state_dict.keys() == FEATURES.keys()
    assert (foreign.mean, foreign.classes) == ((0.48235, 0.45882, 0.40784), None)
    assert foreign.std == pytest.approx((1 / 255,) * 3)
    assert any("vgg16 IMAGENET1K_FEATURES" in note for note in foreign.notes)
    assert ("left out what is NaN throughout: classifier" in foreign.notes) == published
    foreign = read(tmp_path / "w.pth", TARGET, arch="vgg19")  # torchvision has no such set of it
    assert (foreign.mean, foreign.classes) == (None, None)


@pytest.mark.parametrize("state", [FEATURES | NAN, {"a": torch.full((2,), torch.nan)}])
def test_nan_in_a_head_that_is_there_is_refused(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="NaN, infinite"):
        read(tmp_path / "w.pth", TARGET, arch="vgg16")
