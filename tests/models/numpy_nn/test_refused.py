"""What is no input of a NumPy function is refused by name: never a wrong result, a NaN or an error
of NumPy's own. Over all public functions, found by looking."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from models.numpy_nn import functional as F
from models.numpy_nn import layers
from models.numpy_nn.functional import winograd

RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


# For each pair of functions arguments that fit.
IMAGES = normal(3, 4, 6, 5)
LOGITS, LABELS = normal(3, 5), np.array([4, 0, 2])
PAIRS: dict[str, dict[str, Any]] = {
    "adaptive_avg_pool2d": {"x": IMAGES, "output_size": (2, 3)},
    "avg_pool2d": {"x": IMAGES, "kernel_size": 2},
    "batch_norm2d": {
        "x": IMAGES, "weight": normal(4), "bias": normal(4),
        "running_mean": normal(4), "running_var": normal(4) ** 2 + 0.5,
    },
    "binary_cross_entropy": {"logits": LOGITS, "target": LABELS},
    "conv2d": {"x": IMAGES, "weight": normal(6, 2, 3, 3), "bias": normal(6), "groups": 2},
    "cross_entropy": {"logits": LOGITS, "target": LABELS},
    "dropout": {"x": IMAGES, "mask": normal(3, 4, 6, 5) > 0},
    "flatten": {"x": IMAGES},
    "focal": {"logits": LOGITS, "target": LABELS},
    "l1": {"logits": LOGITS, "target": LABELS},
    "leaky_relu": {"x": IMAGES},
    "linear": {"x": normal(3, 4), "weight": normal(5, 4), "bias": normal(5)},
    "local_response_norm": {"x": IMAGES, "size": 3},
    "max_pool2d": {"x": IMAGES, "kernel_size": 2},
    "mean_squared_error": {"logits": LOGITS, "target": LABELS},
    "penalty": {"x": normal(5, 4), "l1": 0.1, "l2": 0.2},
    "relu": {"x": IMAGES},
    "sigmoid": {"x": IMAGES},
    "softmax": {"x": IMAGES},
    "tanh": {"x": IMAGES},
}  # fmt: skip
OTHERS: dict[Callable[..., Any], dict[str, Any]] = {
    winograd.winograd_weight: {"weight": normal(6, 4, 3, 3)},
    winograd.conv2d_winograd: {
        "x": IMAGES, "transformed": normal(36, 4, 6), "bias": normal(6), "padding": 1,
    },
}  # fmt: skip
# These take any number of axes, but none at all.
ANY_SHAPE = {"dropout", "flatten", "leaky_relu", "penalty", "relu", "sigmoid", "softmax", "tanh"}
OF_ANY_LEADING = {("linear", "x")}
# What a mask or a target may be beside floats of the input's dtype.
ANY_NUMBERS = {"mask", "target"}
# Options out of range, for each function that has them.
BAD_OPTIONS = {
    "kernel_size": [0, -1, (2, 0), (2, 2, 2), 1.5, "2", 7],
    "stride": [0, (1, -1), 1.5, ()],
    "padding": [-1, (0, -2), 0.5],
    "dilation": [0, (1, 0)],
    "groups": [0, -2, 3],
    "output_size": [0, (2, -1), None, (1,)],
    "size": [0, -3],
    "axis": [4, -5],
    "p": [-0.1, 1.5, float("nan")],
    "label_smoothing": [-0.1, 1.1, float("nan")],
    "on": ["pixels", None],
    "l1": [-0.1, float("nan")],
    "l2": [-0.1, float("nan")],
}


def test_every_public_function_has_its_arguments_here() -> None:
    found = {name.removesuffix(end) for name in vars(F) for end in ("_forward", "_backward")
             if name.endswith(end)}  # fmt: skip
    assert found == set(PAIRS)
    assert len(PAIRS) == 20
    public = {
        function for name, function in inspect.getmembers(winograd, inspect.isfunction)
        if not name.startswith("_") and function.__module__ == winograd.__name__
    }  # fmt: skip
    assert public == {*OTHERS, winograd.winograd_fits}  # which says False to what does not fit


def forward_of(name: str) -> Callable[..., Any]:
    return getattr(F, f"{name}_forward")  # type: ignore[no-any-return]


def wrong_forms(array: np.ndarray) -> Iterator[tuple[str, Any]]:
    """The same numbers in forms that nothing takes."""
    yield "0-d", array.dtype.type(1) * np.ones(())
    yield "a number", 1.0
    yield "None", None
    yield "a list", array.tolist()
    yield "float16", array.astype(np.float16)
    yield "complex", array.astype(complex)
    yield "objects", array.astype(object)
    yield "text", array.astype(str)
    yield "other byte order", array.astype(array.dtype.newbyteorder())
    for axis in range(array.ndim):
        yield f"axis {axis} empty", array.take([], axis)


def wrong_sizes(array: np.ndarray) -> Iterator[tuple[str, Any]]:
    """Other shapes, which only some functions take."""
    for axis in range(array.ndim):
        yield f"without axis {axis}", array.take(0, axis)
        yield f"axis {axis} longer", np.concatenate([array, array.take([0], axis)], axis)
    yield "one axis more", array[None]


def refused(function: Callable[..., Any], arguments: dict[str, Any], what: str) -> None:
    """With the one error that names what is wrong, and nothing of NumPy's own."""
    raised: Exception | None = None
    try:
        with np.errstate(all="raise"):
            function(**arguments)
    except Exception as error:
        raised = error
    assert type(raised) is ValueError, f"{function.__name__}, {what}: {raised!r}"
    for word in ("broadcast together", "matmul", "unpack", "ambiguous", "reshape"):
        assert word not in str(raised), what


def every_call() -> Iterator[tuple[str, Callable[..., Any], dict[str, Any]]]:
    yield from ((name, forward_of(name), arguments) for name, arguments in PAIRS.items())
    yield from ((f.__name__, f, arguments) for f, arguments in OTHERS.items())


CALLS = [pytest.param(*call, id=call[0]) for call in every_call()]


@pytest.mark.parametrize(("name", "function", "arguments"), CALLS)
def test_arguments_that_fit_are_taken(
    name: str, function: Callable[..., Any], arguments: dict[str, Any]
) -> None:
    for dtype in (np.float32, np.float64):
        cast = {
            key: value.astype(dtype)
            if isinstance(value, np.ndarray) and value.dtype.kind == "f"
            else value
            for key, value in arguments.items()
        }
        result = function(**cast)
        out = result[0] if isinstance(result, tuple) else result
        assert out.dtype == dtype
        assert np.isfinite(out).all()


@pytest.mark.parametrize(("name", "function", "arguments"), CALLS)
def test_wrong_forms_are_refused(
    name: str, function: Callable[..., Any], arguments: dict[str, Any]
) -> None:
    arrays = {key: value for key, value in arguments.items() if isinstance(value, np.ndarray)}
    for key, array in arrays.items():
        optional = inspect.signature(function).parameters[key].default is None
        for what, wrong in wrong_forms(array):
            if optional and wrong is None:
                continue
            if key in ANY_NUMBERS and what in ("float16", "other byte order"):
                continue
            if key == "mask" and what == "0-d":  # it broadcasts
                continue
            refused(function, {**arguments, key: wrong}, f"{key}: {what}")
        if key not in ANY_NUMBERS:
            for dtype in (int, bool, np.uint8, np.longdouble):
                refused(function, {**arguments, key: array.astype(dtype)}, f"{key}: {dtype}")


@pytest.mark.parametrize(("name", "function", "arguments"), CALLS)
def test_shapes_that_do_not_fit_are_refused(
    name: str, function: Callable[..., Any], arguments: dict[str, Any]
) -> None:
    """Unbatched input, one channel more than the weights have, a target too many: whatever of it
    is taken must be meant so."""
    arrays = {key: value for key, value in arguments.items() if isinstance(value, np.ndarray)}
    taken = set()
    for key, array in arrays.items():
        for what, wrong in wrong_sizes(array):
            try:
                function(**{**arguments, key: wrong})
                taken.add((key, what))
            except Exception:
                refused(function, {**arguments, key: wrong}, f"{key}: {what}")
    assert taken == allowed(name, arrays)


def allowed(name: str, arrays: dict[str, np.ndarray]) -> set[tuple[str, str]]:
    """The other shapes that a function takes by its docstring, beside the other arguments."""
    first, array = next(iter(arrays.items()))
    every = {(first, what) for what, _ in wrong_sizes(array)}
    if name == "dropout":  # a mask without the first axis broadcasts, as x with an axis more does
        return {("x", "one axis more"), ("mask", "without axis 0")}
    if name in ANY_SHAPE:
        return every
    longer = {(first, f"axis {axis} longer") for axis in range(array.ndim)}
    if name in ("adaptive_avg_pool2d", "avg_pool2d", "max_pool2d", "local_response_norm"):
        return longer
    if name == "linear":  # (..., I)
        return {("x", "axis 0 longer"), ("x", "without axis 0"), ("x", "one axis more")}
    if name in ("batch_norm2d", "conv2d", "conv2d_winograd"):
        kernel = {("weight", "axis 2 longer"), ("weight", "axis 3 longer")}
        return (longer - {(first, "axis 1 longer")}) | (kernel if name == "conv2d" else set())
    if name == "winograd_weight":
        return {("weight", "axis 0 longer"), ("weight", "axis 1 longer")}
    return {("logits", "axis 1 longer")}  # losses: a class more that no label names


@pytest.mark.parametrize("name", PAIRS)
def test_a_gradient_of_another_form_is_refused(name: str) -> None:
    out, cache = forward_of(name)(**PAIRS[name])
    backward = getattr(F, f"{name}_backward")
    grad_out = RNG.standard_normal(out.shape)
    backward(grad_out, cache)
    for what, wrong in [*wrong_forms(np.asarray(grad_out)), *wrong_sizes(np.asarray(grad_out))]:
        if out.ndim == 0 and what in ("0-d", "a number", "a list", "float16", "other byte order"):
            continue  # one number
        refused(backward, {"grad_out": wrong, "cache": cache}, what)
    if out.ndim:
        refused(backward, {"grad_out": np.ones(out.shape, np.float32), "cache": cache}, "float32")


@pytest.mark.parametrize(("name", "function", "arguments"), CALLS)
def test_options_out_of_range_are_refused(
    name: str, function: Callable[..., Any], arguments: dict[str, Any]
) -> None:
    for key in inspect.signature(function).parameters:
        for value in BAD_OPTIONS.get(key, []):
            refused(function, {**arguments, key: value}, f"{key}={value}")


@pytest.mark.parametrize("targets", [[0, 5, 1], [-1, 0, 0], [0.0, 1.0, 2.0], [True, False, True]])
def test_labels_beyond_the_classes_are_refused(targets: list[Any]) -> None:
    for name in ("cross_entropy", "mean_squared_error", "l1", "binary_cross_entropy"):
        refused(forward_of(name), {"logits": LOGITS, "target": np.array(targets)}, str(targets))


def test_a_running_mean_alone_is_refused() -> None:
    one = {"x": IMAGES, "running_mean": np.zeros(4)}
    refused(F.batch_norm2d_forward, one, "a mean without a variance")
    F.batch_norm2d_forward(**one, running_var=np.ones(4))


@pytest.mark.parametrize("sizes", [(0, 3), (3, 0), (-1, 3)])
def test_layers_without_units_are_refused(sizes: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    assert layers.Linear(2, 3, rng).forward(np.ones((1, 2), np.float32), True).shape == (1, 3)
    refused(layers.Linear, {"in_features": sizes[0], "out_features": sizes[1], "rng": rng}, "")
    refused(
        layers.Conv2d,
        {"in_channels": sizes[0], "out_channels": sizes[1], "kernel_size": 3, "rng": rng}, "",
    )  # fmt: skip


@pytest.mark.parametrize(
    "layer",
    [
        layers.relu(), layers.flatten(), layers.max_pool2d(2),
        layers.Dropout(0.5, np.random.default_rng(0)),
        layers.Linear(4, 2, np.random.default_rng(0)),
        layers.Conv2d(3, 2, 3, np.random.default_rng(0)),
    ],
    ids=lambda layer: type(layer).__name__,
)  # fmt: skip
def test_layers_refuse_what_their_functions_do(layer: layers.Layer) -> None:
    for what, wrong in wrong_forms(np.ones((2, 3, 4, 4), np.float32)):
        if what not in ("a number", "None", "a list"):
            refused(lambda x, layer=layer: layer.forward(x, True), {"x": wrong}, what)
