"""Helpers of the networks' constructors: checks of options, initialisation of weights."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated, Any, get_args, get_type_hints

from torch import nn

INITS = ("default", "xavier", "kaiming", "normal")
SMALL_STD = 0.01  # of all weights with normal, of the last layer's with kaiming
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}

# Types of options, with the values that are allowed, which `check_options` and the reference of all
# keys read, or with words for them.
Init = Annotated[str, INITS]
Activation = Annotated[str, ACTIVATIONS]
Width = Annotated[int, "a whole number at least 1"]
Dropout = Annotated[float, "a probability at least 0 and less than 1"]


def initialise(model: nn.Module, name: str, *heads: nn.Module) -> None:
    """Set the weights of every convolution and linear layer of `model`, in place.

    - default: nothing is touched. PyTorch has drawn weights and biases from U(-b, b) with
      b = 1/sqrt(fan_in). The variance is 1/(3 fan_in), so that a signal shrinks by about
      sqrt(6) per ReLU layer: harmless in five layers, deadly in sixteen without batch norm.
    - xavier: U(-b, b), b = sqrt(6 / (fan_in + fan_out)); for tanh and sigmoid.
      Glorot and Bengio 2010, "Understanding the difficulty of training deep feedforward neural
      networks", eq. 16.
    - kaiming: N(0, 2/fan_in); keeps the variance through layers of ReLU.
      He et al. 2015, "Delving deep into rectifiers", eq. 10. No ReLU follows the last layer, whose
      outputs are the logits: `heads` are N(0, 0.01^2) (Goyal et al. 2017, arXiv 1706.02677,
      section 5.1), so that an untrained network takes all of K classes for about equally likely,
      and its cross-entropy is near ln K. With 2/fan_in there it was 2.9 to 4.9 for K = 10.
    - normal: N(0, 0.01^2); Krizhevsky et al. 2012, section 5. Signals vanish in deep plain
      networks, so the VGG paper (section 3.1) started its deep ones from a trained shallow one.

    All but default set these layers' biases to 0. Norm layers keep what they have (scale 1 and
    shift 0, or what the network has chosen), as do parameters outside such layers.

    Args:
        heads: the linear layers of `model` that give logits.

    Raises:
        ValueError: `name` is none of `INITS`.
    """
    check_choice("init", name, INITS)
    if name == "default":
        return
    for layer in model.modules():
        if not isinstance(layer, (nn.Conv2d, nn.Linear)):
            continue
        if name == "xavier":
            nn.init.xavier_uniform_(layer.weight)
        elif name == "kaiming" and layer not in heads:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        else:
            nn.init.normal_(layer.weight, std=SMALL_STD)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def check_options(model: nn.Module, **options: Any) -> None:
    """Raise ValueError, naming `model.<key>`, for an option whose value is none of those in its
    annotation in the constructor."""
    hints = get_type_hints(type(model).__init__, include_extras=True)
    for key, value in options.items():
        check_choice(key, value, allowed_values(hints[key]))


def allowed_values(hint: Any) -> tuple[Any, ...]:
    """Values that an annotation lists: those in an Annotated, or of bool; the parts of a union
    together."""
    if hint is bool:
        return (True, False)
    if hint is type(None):
        return (None,)
    if hasattr(hint, "__metadata__"):
        return tuple(hint.__metadata__[0])
    return tuple(value for part in get_args(hint) for value in allowed_values(part))


def check_choice(key: str, value: Any, allowed: Collection[Any]) -> None:
    """Raise ValueError, naming `model.<key>`, unless `value` is one of `allowed`."""
    if value not in list(allowed):  # a list, as the value may be one and have no hash
        choices = ", ".join(_as_typed(choice) for choice in allowed)
        raise ValueError(f"model.{key}={_as_typed(value)}: must be one of {choices}")


def check_dropout(value: Any, key: str = "dropout") -> None:
    """Raise ValueError, naming `model.<key>`, unless `value`, a probability, is in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise ValueError(f"model.{key}={_as_typed(value)}: must be {get_args(Dropout)[1]}")


def check_width(value: Any) -> None:
    """Raise ValueError, naming `model.width`, unless `value`, a number of maps, is at least 1."""
    if not is_count(value):
        raise ValueError(f"model.width={_as_typed(value)}: must be {get_args(Width)[1]}")


def check_data(shape: Sequence[int], num_classes: int) -> tuple[int, int, int]:
    """The shape as a tuple (C, H, W); ValueError, naming the key, if a number is below 1."""
    if not isinstance(shape, Sequence) or len(shape) != 3 or not all(map(is_count, shape)):
        raise ValueError(
            f"data.shape={shape}: must be [channels, height, width], each an integer >= 1"
        )
    if not is_count(num_classes):
        raise ValueError(f"data.num_classes={_as_typed(num_classes)}: must be an integer >= 1")
    channels, height, width = shape
    return channels, height, width


def make_activation(name: str) -> nn.Module:
    """A new activation layer; ValueError, naming `model.activation`, if there is none so named."""
    check_choice("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]()


def is_count(value: Any) -> bool:
    """True for an integer of at least 1, not for a bool."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _as_typed(value: Any) -> str:
    """The value as typed on the command line: true, not True; null, not None."""
    return {"True": "true", "False": "false", "None": "null"}.get(str(value), str(value))
