"""Any classifier of torchvision, its head and its first layer sized to the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torchvision
from torch import nn
from torchvision.models import get_model, get_model_weights, list_models

from models.init import Init, check_choice, check_data, initialise

Name = Annotated[str, "one of torchvision.models.list_models(module=torchvision.models)"]


def torchvision_classifier(
    shape: Sequence[int],
    num_classes: int,
    name: Name = "mobilenet_v3_small",
    init: Init = "default",
) -> nn.Module:
    """torchvision's own module, with random weights and an attribute `min_size` added.

    Its state_dict is torchvision's, but for the head and, unless there are three channels, the
    first convolution. In training mode googlenet and inception_v3 return a tuple: the logits first,
    then those of the auxiliary heads.

    Transformers are built for one size: theirs is the smallest that holds the image and splits
    into whole patches or windows, and `min_size` brings images to it.

    Args:
        shape: (C, H, W) of an image; a side below `min_size` is brought to it before the network
            sees it.
        num_classes: number of logits.
        name: of the network, as in torchvision.
        init: see `initialise`, of convolutions and linear layers, the last as all others (with
            kaiming the loss of an untrained network is then farther from ln K than with our
            networks); parameters of a transformer outside such layers stay torchvision's, and with
            default all but a first layer that had to be replaced.
    """
    channels, height, width = check_data(shape, num_classes)
    check_choice("name", name, list_models(module=torchvision.models))
    side = max(height, width)
    min_size = smallest_size(name, side)

    options: dict[str, object] = {}
    if name.startswith("vit_"):
        options["image_size"] = min_size
    elif name.startswith("maxvit_"):
        options["input_size"] = (min_size, min_size)
    elif name in ("googlenet", "inception_v3"):
        options["init_weights"] = True  # said so, as torchvision warns of a change of its default
    model: nn.Module = get_model(name, weights=None, num_classes=num_classes, **options)
    if channels != 3:
        replace_first_conv(model, channels)
    initialise(model, init)
    model.min_size = min_size  # type: ignore[assignment]
    model.torchvision_name = name  # type: ignore[assignment]
    return model


def smallest_size(name: str, side: int) -> int:
    """Smallest side in pixels that the network accepts, for images of the longer side `side`.

    For networks without a fixed size it is the one in the metadata of torchvision's weights, but at
    least 28. Those of Swin name the training size, although the windows are padded and any size
    works.
    """
    if name.startswith("vit_"):
        return next_multiple(side, of=int(name.rpartition("_")[2]))  # vit_b_16: patches of 16 px
    if name.startswith("maxvit_"):
        return next_multiple(side, of=224)  # windows of 7 in maps that are halved five times
    if name.startswith("swin_"):
        return 32
    if name == "inception_v3":
        return 299  # torchvision says 75, which is true without the auxiliary head
    weights = next(iter(get_model_weights(name)))
    return max(28, *weights.meta["min_size"])


def next_multiple(number: int, of: int) -> int:
    """The smallest multiple of `of` that is not below `number`."""
    return -(-number // of) * of


def replace_first_conv(model: nn.Module, channels: int) -> None:
    """Put a fresh convolution with `channels` inputs in the place of the first one, in place."""
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d):
            parent_name, _, own_name = name.rpartition(".")
            fresh = nn.Conv2d(
                channels,
                layer.out_channels,
                layer.kernel_size,  # type: ignore[arg-type]
                stride=layer.stride,  # type: ignore[arg-type]
                padding=layer.padding,  # type: ignore[arg-type]
                bias=layer.bias is not None,
            )
            setattr(model.get_submodule(parent_name), own_name, fresh)
            return
