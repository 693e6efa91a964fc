"""Forge the configuration in checkpoints in every way: is it always refused, or right?

    python -m benchmarks.config_campaign [--copies 2000] [--seed 0]

Each copy of a sound checkpoint has a right digest and a configuration in which something is
hostile: a value that is negative, enormous, nested, of another type or an interpolation, a target
that is not ours, a dict that wants to be called, an anchor, a tag, broken YAML. It is read and its
network rebuilt as `predict` and `export` do, and its set of data and its optimizer made as
`evaluate` and `resume` do, with 2 GB of memory beside what the process began with. It must end in
one message within 20 seconds, or, where the change is harmless, in the very logits of the sound
network. No code may run: each hostile call would leave a file.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import datetime
import io
import os
import random
import resource
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks import processes
from trainer import checkpoint, config, entries, optimizer_state, parts, restore, stored, targets
from trainer.errors import UserError

WORDS = ("data=synthetic", "data.num_train=48", "data.val_size=0.34", "data.num_test=20",
         "data.shape=[1,4,4]", "model.hidden=[8]", "batch_size=8", "epochs=1",
         "tensorboard=false")  # fmt: skip
MEMORY, SECONDS, LONGEST_MESSAGE = 2 * 10**9, 20, 3000
CANARY = "canary"

CALL = {"_target_": "os.system", "command": f"touch {CANARY}"}
VALUES: dict[str, list[Any]] = {
    "negative": [-1, -(10**9), -0.5, [-1], -(2**63)],
    "enormous": [10**9, 10**12, 10**20, 1e300, [10**9], [10**20], [8] * 5000, "x" * 30000, 2**31],
    "of another type": [None, True, "8", "a", 0.5, [], {}, [[8]], ["8"], "", {"a": 1}, [None]],
    "not a number": [float("nan"), float("inf"), float("-inf"), [float("nan")]],
    "nested": [{"a": {"b": {"c": [1, {"d": 2}]}}}, [[[[[[1]]]]]], [[[[[[[[[[1]]]]]]]]]]],
    "an interpolation": [
        "${oc.env:HOME}", "${nope}", "${model}", "???", ["${seed}"],
        f"${{oc.decode:'{{_target_: os.system, command: \"touch {CANARY}\"}}'}}",
    ],
    "a call": [CALL, [CALL], {"a": CALL}, {"_target_": "data.bad_pictures._write",
               "path": CANARY, "lines": ["x"]}, {"_args_": [1], **CALL}],
}  # fmt: skip
TARGETS = [
    "os.system", "builtins.eval", "subprocess.run", "data.bad_pictures._write",
    "data.files.expanded", "models.weights.child.main", "torch.load", "models.mlp",
    "torch.optim.lr_scheduler.StepLR", "", "_target_", "..", "a" * 5000, "trainer.job.run",
    "models.init.initialise",
    "torchvision.models.resnet18", "models.torchvision_zoo.get_model",
]  # fmt: skip
BREAKS: dict[str, Callable[[str, random.Random], str]] = {
    "an anchor": lambda text, _: text.replace("seed: 0", "seed: &a 0", 1),
    "an alias": lambda text, _: text + "z: &a [x]\ny: [*a, *a]\n",
    "a tag": lambda text, _: text + f"z: !!python/object/apply:os.system ['touch {CANARY}']\n",
    "a second document": lambda text, _: text + "---\na: 1\n",
    "a key twice": lambda text, _: text + "seed: 1\n",
    "cut off": lambda text, chooser: text[: chooser.randrange(len(text))],
    "deep": lambda text, _: text + "z: " + "[" * 9000 + "]" * 9000 + "\n",
    "long": lambda text, _: text + "#" * 2**16,
    "a character changed": lambda text, chooser: changed_character(text, chooser),
}  # fmt: skip


def changed_character(text: str, chooser: random.Random) -> str:
    at = chooser.randrange(len(text))
    return text[:at] + chooser.choice("{}[]:&*!|>'\"%@`#,\n\t\x00\x1b-0a~") + text[at + 1 :]


def forged(text: str, number: int, seed: int) -> tuple[str, str]:
    """What kind of change, and the changed text. Every second copy has its target and options
    from another of our YAMLs first, so that each allowed target meets hostile values."""
    chooser = random.Random(f"{seed} {number}")
    kinds = [*VALUES, "a target", "a key", *BREAKS]
    kind = kinds[number % len(kinds)]
    content = yaml.safe_load(text)
    group = chooser.choice([*config.GROUPS, ""])
    if group and chooser.random() < 0.5:
        file = chooser.choice(sorted((config.CONFIGS / group).glob("*.yaml")))
        options = yaml.safe_load(file.read_text())
        content[group] = options.get(group, options)
        content[group].update({"shape": [1, 4, 4], "num_classes": 10} if group == "data" else {})
        for key in ("shape", "num_classes"):
            if group == "model":
                content[group].pop(key, None)
    place = content[group] if group else content
    if kind in BREAKS:
        return kind, BREAKS[kind](yaml.safe_dump(content, width=10**6), chooser)
    if kind == "a target":
        content[group or "model"]["_target_"] = chooser.choice(TARGETS)
    elif kind == "a key":
        name = chooser.choice(
            ["_args_", "_recursive_", "_partial_", "_convert_", "evil", "<<", "a.b"]
        )
        place[name] = chooser.choice([True, [1], CALL, "x"])
    else:
        names = [name for name in place if name != "_target_"] or ["seed"]
        for name in chooser.sample(names, min(len(names), chooser.randint(1, 2))):
            place[name] = copy.deepcopy(chooser.choice(VALUES[kind]))
    return kind, yaml.safe_dump(content, width=10**6)


def use(state: dict[str, Any]) -> torch.Tensor:
    """What the commands do with a configuration, up to the logits of a picture."""
    found = stored.configuration(state)
    found, _ = stored.on_this_machine(found, {})
    found, _ = stored.own_sources(found, {})
    found["data"]["download"] = False
    if "download" not in stored.own_options(found["data"]["_target_"]):
        del found["data"]["download"]
    made = restore.reconfigure(found, {})
    model = restore.restore(state, made)
    for group in config.GROUPS:
        targets.check_options(group, made[group])
    parts.make_loss(made)
    parts.make_schedule(made["scheduler"], total_steps=10, steps_per_epoch=5)
    optimizer_state.check_state(parts.make_optimizer(made["optimizer"], model), state["optimizer"])
    with contextlib.suppress(UserError):  # no files here, and where they lie is the user's to say
        parts.load_data(made["data"])
    with torch.no_grad():
        dtype = next(model.parameters()).dtype
        logits: torch.Tensor = model(torch.linspace(-1, 1, 32, dtype=dtype).view(2, 1, 4, 4))
    return logits.float()


class TooSlow(BaseException):
    """No Exception, which somebody might catch."""


@contextlib.contextmanager
def limited(memory: int, seconds: int) -> Iterator[None]:
    """At most so many more bytes of address space, and so many seconds."""

    def stop(*_: object) -> None:
        raise TooSlow

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGALRM, stop)
    resource.setrlimit(resource.RLIMIT_AS, (used + memory, before[1]))
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.signal(signal.SIGALRM, handler)


def campaign(file: Path, copies: int, seed: int) -> dict[str, Counter[str]]:
    """How many forged configurations of each kind were refused, or harmed nothing. Works in the
    current folder, whose files it counts. Raises AssertionError with the configuration."""
    sound = entries.read(file, state=True)
    wanted = use(copy.deepcopy(sound))
    files = sorted(os.listdir())
    found: dict[str, Counter[str]] = {}
    for number in range(copies):
        kind, text = forged(sound["config"], number, seed)
        about = f"copy {number}, {kind}:\n{text[:3000]}"
        count = found.setdefault(kind, Counter())
        try:
            with limited(MEMORY, SECONDS), contextlib.redirect_stderr(io.StringIO()):
                logits = use({**sound, "config": text})
        except UserError as error:
            message = str(error)
            count["refused"] += 1
        except (Exception, TooSlow) as error:
            raise AssertionError(f"{type(error).__name__}: {error}\n{about}") from error
        else:
            message = ""
            close = torch.allclose(logits, wanted, rtol=0.05, atol=0.05)  # precision is a key
            assert close or "activation" in text, f"other logits\n{about}"
            count["harmless"] += 1
        assert len(message) < LONGEST_MESSAGE, about
        assert sorted(os.listdir()) == files, f"a file came into being\n{about}"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--copies", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        processes.train(Path(name), *WORDS)
        os.chdir(name)
        began = time.monotonic()
        file = checkpoint.states_in(Path("run/checkpoints"))[-1]
        found = campaign(file, args.copies, args.seed)
    print(f"{datetime.date.today()}: {args.copies} configurations, seed {args.seed}, in "
          f"{time.monotonic() - began:.0f} s\n")  # fmt: skip
    print("| change | refused | harmless | wrong |\n| --- | --- | --- | --- |")
    for kind, ends in found.items():
        print(f"| {kind} | {ends['refused']} | {ends['harmless']} | 0 |")


if __name__ == "__main__":
    main()
