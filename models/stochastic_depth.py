"""Stochastic depth: residual branches left out at random in training.

Huang et al. 2016, "Deep networks with stochastic depth" (arXiv 1603.09382). As in later networks a
branch is left out image by image, and what stays is scaled in training instead of in evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class StochasticDepth(nn.Module):
    """Residual branch (N, ...) of which, in training, each image's is 0 with `probability`, and
    else divided by 1 - probability."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, branch: Tensor) -> Tensor:
        if not self.training:
            return branch
        kept = branch.new_empty([len(branch)] + [1] * (branch.ndim - 1))
        return branch * kept.bernoulli_(1 - self.probability).div_(1 - self.probability)

    def extra_repr(self) -> str:
        return f"probability={self.probability:.4g}"


def drop_linearly(branches: Sequence[tuple[nn.Module, str]], last: float) -> None:
    """Give the l-th of L branches the probability l / L * last (equation 4).

    Args:
        branches: the blocks in their order, each with the name of the module, an Identity, that is
            replaced.
        last: probability of the last branch; 0: none is replaced.
    """
    for number, (block, name) in enumerate(branches, 1):
        if last:
            setattr(block, name, StochasticDepth(number / len(branches) * last))
