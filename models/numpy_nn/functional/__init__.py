"""Layers and losses by hand, as pairs of forward and backward functions.

`xxx_forward(...)` returns `(out, cache)`; `xxx_backward(grad_out, cache)` returns the gradient of
the loss with respect to the forward's array arguments. Arrays come in float32 or float64 and leave
in the same dtype; images are (N, C, H, W).

What a shape says and how the memory lies are two things. Layers that slide a window over the
image choose the memory order that suits them (see `conv.py`) and hand the result on as a
transposed view; layers that work element by element keep whatever order they get.
"""

# ruff: noqa: F401 - these names are handed on
from models.numpy_nn.functional.activations import (
    leaky_relu_backward,
    leaky_relu_forward,
    relu_backward,
    relu_forward,
    sigmoid_backward,
    sigmoid_forward,
    softmax_backward,
    softmax_forward,
    tanh_backward,
    tanh_forward,
)
from models.numpy_nn.functional.conv import conv2d_backward, conv2d_forward
from models.numpy_nn.functional.dropout import dropout_backward, dropout_forward
from models.numpy_nn.functional.linear import (
    flatten_backward,
    flatten_forward,
    linear_backward,
    linear_forward,
)
from models.numpy_nn.functional.losses import (
    binary_cross_entropy_backward,
    binary_cross_entropy_forward,
    cross_entropy_backward,
    cross_entropy_forward,
    focal_backward,
    focal_forward,
    l1_backward,
    l1_forward,
    mean_squared_error_backward,
    mean_squared_error_forward,
    penalty_backward,
    penalty_forward,
)
from models.numpy_nn.functional.normalisation import (
    batch_norm2d_backward,
    batch_norm2d_forward,
    local_response_norm_backward,
    local_response_norm_forward,
)
from models.numpy_nn.functional.pooling import (
    adaptive_avg_pool2d_backward,
    adaptive_avg_pool2d_forward,
    avg_pool2d_backward,
    avg_pool2d_forward,
    max_pool2d_backward,
    max_pool2d_forward,
)
