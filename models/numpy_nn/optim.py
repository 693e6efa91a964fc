"""Optimizers. They change the arrays of `params`, a dict by name, in place."""

from __future__ import annotations

import numpy as np

from models.numpy_nn.functional.shapes import Array


class SGD:
    """Stochastic gradient descent with momentum, in PyTorch's form (no factor lr in the velocity).

    g += weight_decay p,    v = momentum v + g  (v = g in the first step),    p -= lr v
    """

    def __init__(
        self,
        params: dict[str, Array],
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        self.params, self.lr = params, lr
        self.momentum, self.weight_decay = momentum, weight_decay
        self._velocity = {name: np.zeros_like(p) for name, p in params.items()} if momentum else {}

    def step(self, grads: dict[str, Array]) -> None:
        for name, param in self.params.items():
            step = grads[name]
            if self.weight_decay:
                step = step + self.weight_decay * param
            if self.momentum:
                velocity = self._velocity[name]
                velocity *= self.momentum
                velocity += step
                step = velocity
            param -= self.lr * step


class Adam:
    """Kingma, Ba 2015, "Adam: a method for stochastic optimization", algorithm 1.

    g += weight_decay p
    m = beta1 m + (1 - beta1) g,    v = beta2 v + (1 - beta2) g^2
    p -= lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)
    """

    def __init__(
        self,
        params: dict[str, Array],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        self.params, self.lr = params, lr
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay
        self._mean = {name: np.zeros_like(p) for name, p in params.items()}
        self._square = {name: np.zeros_like(p) for name, p in params.items()}
        self._num_steps = 0

    def step(self, grads: dict[str, Array]) -> None:
        self._num_steps += 1
        beta1, beta2 = self.betas
        # m and v start at zero; these undo the pull toward it.
        mean_share, square_share = 1 - beta1**self._num_steps, 1 - beta2**self._num_steps
        for name, param in self.params.items():
            grad = grads[name]
            if self.weight_decay:
                grad = grad + self.weight_decay * param
            mean, square = self._mean[name], self._square[name]
            mean += (1 - beta1) * (grad - mean)
            square *= beta2
            square += (1 - beta2) * grad * grad
            param -= self.lr / mean_share * mean / (np.sqrt(square / square_share) + self.eps)
