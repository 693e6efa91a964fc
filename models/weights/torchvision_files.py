"""torchvision's official weights: metadata, download, and the file in torch hub's folder."""

from __future__ import annotations

import hashlib
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch

from models.weights.foreign import ForeignWeights, Shape, WeightsError

# Builders that set transform_input=True with their official weights. Inside the network, images z
# normalised by torchvision's preset, z = (x - m) / s with ImageNet's m and s, then become
#     z * (s / 0.5) + (m - 0.5) / 0.5 = ((x - m) + m - 0.5) / 0.5 = (x - 0.5) / 0.5,
# in which m and s have cancelled exactly: a network without the transform takes mean = std = 0.5.
TRANSFORM_INPUT = {"googlenet", "inception_v3"}

NO_ANSWER_S = 30.0  # torch's download has no timeout of its own


@dataclass(frozen=True)
class Official:
    """One set of official weights.

    Attributes:
        arch, name: torchvision's names, "vgg19" and "IMAGENET1K_V1".
        url, filename: where it is, and what it is called in torch hub's folder.
        hash_prefix: the first hexadecimal digits of the file's SHA-256.
        classes: the name of each output; None for the one set that has no head (VGG16's
            IMAGENET1K_FEATURES).
        mean, std: per channel, in units of pixel / 255.
        resize, crop: pixels.
        interpolation: of the resize.
    """

    arch: str
    name: str
    url: str
    filename: str
    hash_prefix: str
    classes: tuple[str, ...] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int
    crop: int
    interpolation: str

    @property
    def path(self) -> Path:
        """Path of the file in torch hub's folder; it need not exist."""
        return Path(torch.hub.get_dir()) / "checkpoints" / self.filename


def official(arch: str, name: str = "IMAGENET1K_V1") -> Official:
    """Metadata of torchvision's weights, without touching the network.

    Raises:
        WeightsError: torchvision has no such classifier, or no such weights of it.
    """
    members = _members(arch)
    if name not in members:
        raise WeightsError(
            f"torchvision has no weights {name!r} for {arch}; it has {', '.join(members) or 'none'}"
        )
    member = members[name]
    preset = member.transforms()
    halves = (0.5, 0.5, 0.5) if arch in TRANSFORM_INPUT else None
    filename = Path(urlparse(member.url).path).name
    digits = re.search(r"-([0-9a-f]{8,})\.", filename)
    categories = member.meta.get("categories")
    return Official(
        arch=arch,
        name=name,
        url=member.url,
        filename=filename,
        hash_prefix=digits[1] if digits else "",
        classes=tuple(categories) if categories else None,
        mean=halves or tuple(preset.mean),
        std=halves or tuple(preset.std),
        resize=preset.resize_size[0],
        crop=preset.crop_size[0],
        interpolation=preset.interpolation.value,
    )


def fetch(info: Official) -> Path:
    """The file of official weights, from torch hub's folder or downloaded into it; hash checked.

    Raises:
        WeightsError: no network, or the file is not the published one.
    """
    if not info.path.is_file():
        _download(info)
    if not _sha256(info.path).startswith(info.hash_prefix):
        raise WeightsError(
            f"{info.path}: its SHA-256 does not begin with {info.hash_prefix}, as that of "
            f"{info.url} does; delete it, it is damaged"
        )
    return info.path


def describe(
    foreign: ForeignWeights, path: Path, arch: str, target_shapes: Mapping[str, Shape]
) -> ForeignWeights:
    """Give weights of a file the metadata of torchvision's official ones, as far as that is sure.

    Which official set a file is, its SHA-256 tells. Other weights of as many classes are taken as
    trained on ImageNet like the first set, IMAGENET1K_V1, with a note; weights without a head like
    the set that has none, if torchvision has such for this network; of others nothing is known.
    `target_shapes` are those of the network's state_dict, in its order.
    """
    if arch not in _classifiers():
        return foreign
    infos = [official(arch, name) for name in _members(arch) if name != "DEFAULT"]
    digest = _sha256(path)
    for info in infos:
        if info.hash_prefix and digest.startswith(info.hash_prefix):
            note = f"recognised as torchvision's {arch} {info.name} by its SHA-256"
            return with_metadata(replace(foreign, notes=[*foreign.notes, note]), info)
    found = _num_outputs(foreign, target_shapes)
    alike = [i for i in infos if (len(i.classes) if i.classes else None) == found]
    if not alike:
        return foreign
    others = ", ".join(info.name for info in alike[1:])
    note = (
        f"not one of torchvision's own files: {'class names, ' if found else ''}mean, std and size "
        f"are taken to be those of {arch} {alike[0].name}"
        + (f", the first; torchvision also has {others}" if others else "")
    )
    return with_metadata(replace(foreign, notes=[*foreign.notes, note]), alike[0])


def _members(arch: str) -> dict[str, Any]:
    from torchvision.models import get_model_weights

    known = _classifiers()
    if arch not in known:
        raise WeightsError(f"torchvision has no classifier {arch!r}; it has {', '.join(known)}")
    return dict(get_model_weights(arch).__members__)


def _classifiers() -> list[str]:
    from torchvision import models  # here, because it takes a second and the child needs none

    return models.list_models(module=models)


def with_metadata(foreign: ForeignWeights, info: Official) -> ForeignWeights:
    """Class names, preprocessing and today's tensor names for a set of official weights."""
    notes = list(foreign.notes)
    if info.interpolation != "bilinear":
        notes.append(f"torchvision resizes {info.interpolation} for these weights")
    return replace(
        foreign,
        state_dict={_current_name(key): value for key, value in foreign.state_dict.items()},
        classes=list(info.classes) if info.classes is not None else None,
        mean=info.mean,
        std=info.std,
        resize=info.resize,
        shape=(3, info.crop, info.crop),
        notes=notes,
    )


def _num_outputs(foreign: ForeignWeights, target_shapes: Mapping[str, Shape]) -> int | None:
    """Number of outputs of the network's last layer, wherever it is in the file: safetensors sorts
    by name. None: the file has no head; -1: unknown."""
    if not target_shapes:
        return -1
    last = list(target_shapes)[-1]
    if last in foreign.state_dict:
        return foreign.state_dict[last].shape[0] if foreign.state_dict[last].ndim else -1
    parts = {name.partition(".")[0] for name in foreign.state_dict}
    return -1 if last.partition(".")[0] in parts else None


def _current_name(name: str) -> str:
    """DenseNet's files call its layers norm.1, which module names may no longer contain."""
    return re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.", r"\1\2.", name)


def _download(info: Official) -> None:
    try:
        info.path.parent.mkdir(parents=True, exist_ok=True)
        with _timeout(NO_ANSWER_S):
            torch.hub.download_url_to_file(
                info.url, str(info.path), info.hash_prefix or None, progress=sys.stderr.isatty()
            )
    except (OSError, RuntimeError) as error:  # URLError and HTTPError are OSErrors
        raise WeightsError(
            f"{info.arch} {info.name} could not be downloaded ({error}); "
            f"download {info.url} elsewhere and put it at {info.path}"
        ) from error


@contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
