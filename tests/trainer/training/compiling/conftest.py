"""What the tests of compiling share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from trainer.system.torch_internals import leave_compiler_unimported


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    leave_compiler_unimported()  # as every run does before it builds anything
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
