"""What the tests of every key share: the files that they name, and a process left as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.helpers.every_key import make_places, refuse_network
from trainer.builders import datasets


@pytest.fixture
def unchanged() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
    datasets._load_data.cache_clear()


@pytest.fixture(scope="module")  # packs that one module made would be at hand in the other
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_places(tmp_path_factory.mktemp("places"))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_network(monkeypatch)
