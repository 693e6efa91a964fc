"""What a person at a terminal sees: a word at once, bars, and after a signal no bar any more."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.commands import ROOT
from trainer.system import progress_bars
from trainer.training.batches import BatchesWithBar

LONG_VALIDATION = [
    "data=synthetic", "data.num_train=60000", "data.num_test=10", "data.val_size=0.99",
    "model=lenet5", "limit_batches=0", "tensorboard=false", "hydra.run.dir=run",
]  # fmt: skip


class Terminal:
    """A command on a pseudo terminal, and all that it has shown."""

    def __init__(self, cwd: Path, *argv: str) -> None:
        self.ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "trainer", *argv], cwd=cwd, env=os.environ | {"COLUMNS": "100"},
            stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        self.seen = b""

    def until(self, words: bytes, seconds: float = 240) -> bytes:
        """All that was shown once these words were; fails if the command ends without them."""
        end = time.monotonic() + seconds
        while words not in self.seen and time.monotonic() < end and self._read():
            pass
        assert words in self.seen, self.seen[-3000:]
        return self.seen

    def to_the_end(self) -> bytes:
        while self._read():
            pass
        os.close(self.ours)
        self.process.wait(60)
        return self.seen

    def _read(self) -> bool:
        if select.select([self.ours], [], [], 0.1)[0]:
            try:
                self.seen += os.read(self.ours, 65536)
            except OSError:  # the other end is closed
                return False
        return True


@pytest.mark.slow
def test_a_training_is_seen_to_start_to_validate_and_to_stop(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, *LONG_VALIDATION)
    assert terminal.until(b"batch/s").startswith(b"starting ...\r\n")
    terminal.until(b"\rvalidation: ")
    terminal.process.send_signal(signal.SIGINT)
    seen = terminal.to_the_end()
    assert terminal.process.returncode == 130
    _, said, after = seen.partition(b"\r\x1b[Kstopping after this batch; Ctrl-C again stops now")
    assert said
    assert b"validation: " not in after  # it is not drawn again
    assert b"batch/s" not in after
    assert b"Stopped. Continue with: python -m trainer resume run" in after


def test_starting_is_said_before_torch_is_imported(tmp_path: Path) -> None:
    """In an interpreter that has no torch: the word comes all the same."""
    (tmp_path / "torch.py").write_text("raise ImportError('asked for torch')\n")
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]\n"
        "from trainer.cli.dispatch import dispatch\n"
        "try:\n    dispatch(sys.argv[1:])\nexcept ImportError as error:\n    print(error)"
    )
    ours, theirs = pty.openpty()
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, stderr=theirs, timeout=60,
                          stdout=subprocess.PIPE, check=True)  # fmt: skip
    os.close(theirs)
    assert os.read(ours, 65536) == b"starting ...\r\n"
    os.close(ours)
    assert done.stdout == b"asked for torch\n"


class Batches:
    """Three numbers."""

    num_images = 3

    def __len__(self) -> int:
        return 3

    def epoch(self, epoch: int = 0, start: int = 0) -> object:
        yield from range(3)


class Written:
    """A terminal that takes what is written, or is gone."""

    def __init__(self, is_gone: bool) -> None:
        self.is_gone, self.text = is_gone, ""

    def write(self, text: str) -> None:
        if self.is_gone:
            raise BrokenPipeError
        self.text += text

    def flush(self) -> None:
        self.write("")

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_bar_ends_nothing_where_the_terminal_is_gone(
    monkeypatch: pytest.MonkeyPatch, is_gone: bool
) -> None:
    terminal = Written(is_gone)
    monkeypatch.setattr(sys, "__stderr__", terminal)
    monkeypatch.setattr(progress_bars, "is_watched", lambda: True)
    monkeypatch.setattr(progress_bars, "DELAY_S", 0)
    with progress_bars.bar(3, "some", delay=0) as shown:
        shown.update(3)
    assert ("some" in terminal.text) is not is_gone
    assert list(BatchesWithBar(Batches(), "some").epoch()) == [0, 1, 2]


def test_a_bar_is_not_drawn_once_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Written(False)
    monkeypatch.setattr(sys, "__stderr__", terminal)
    over: list[bool] = []
    with progress_bars.bar(3, "some", shown=True, delay=0, is_over=lambda: bool(over)) as shown:
        shown.update(1)
        shown.refresh()
        drawn = terminal.text
        over.append(True)
        shown.update(1)
        shown.refresh()
    assert "1/3" in drawn
    assert terminal.text == drawn
