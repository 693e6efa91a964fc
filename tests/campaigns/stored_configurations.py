"""Forge the configuration in checkpoints in every way: is it always refused, or right?

    python -m tests.campaigns.stored_configurations [--copies 2000] [--seed 0]

Each copy of a sound checkpoint has a right digest and a configuration in which something is
hostile: a value that is negative, enormous, nested, of another type or an interpolation, a target
that is not ours, a dict that wants to be called, an anchor, a tag, broken YAML. It is read and its
network rebuilt as `predict` and `export` do, and its set of data and its optimizer made as
`evaluate` and `resume` do, with 2 GB of memory beside what the process began with. It must end in
one message within 20 seconds, or, where the change is harmless, in the very logits of the sound
network. No code may run: each hostile call would leave a file. Some copies are valid, and must be
taken: other values that the table of keys allows, or the same ones in other notation.
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

from tests.helpers import processes
from trainer import checkpoints
from trainer.builders import datasets, losses, optimizers, restore
from trainer.checkpoints import entries
from trainer.config import choices, knobs, plain_yaml, stored, targets
from trainer.config.knob import Knob
from trainer.errors import UserError
from trainer.training import optimizer_state

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
    "a call": [CALL, [CALL], {"a": CALL}, {"_target_": "data.image_folder.bad_images._write",
               "path": CANARY, "lines": ["x"]}, {"_args_": [1], **CALL}],
}  # fmt: skip
TARGETS = [
    "os.system", "builtins.eval", "subprocess.run", "data.image_folder.bad_images._write",
    "data.roots.expanded", "models.weights.child.main", "torch.load", "models.mlp",
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
# What must be taken. Of the keys, those whose values neither the weights nor the optimizer's state
# beside the configuration has a say in, nor the machine.
VALID = ("valid values", "valid, in other notation")
FIXED = ("device", "precision", "layers", "channels_last", "compile", "replace_head", "data.shape",
         "data.num_classes", "data.mean", "data.std", "data.pixel_range", "data.folds", "data.fold",
         # Not with every state or number of epochs, or not with each other.
         "unfreeze_epoch", "average.start_epoch", "scheduler.anneal", "optimizer.amsgrad",
         "lr_factors", "layer_decay", "decay_norms_and_biases", "clip_grad_norm",
         "clip_grad_value", "clip_grad_adaptive")  # fmt: skip
GROUPS_TO_CHANGE = ("augment", "loss", "scheduler")
MOST = 1000  # added to the least value that a number may have


def changed_character(text: str, chooser: random.Random) -> str:
    at = chooser.randrange(len(text))
    return text[:at] + chooser.choice("{}[]:&*!|>'\"%@`#,\n\t\x00\x1b-0a~") + text[at + 1 :]


class Plain(yaml.SafeDumper):
    """What stands twice is written twice: an anchor would be refused for itself."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def dump(content: Any, **options: Any) -> str:
    return str(yaml.dump(content, Dumper=Plain, width=10**6, **options))


def valid_value(knob: Knob, chooser: random.Random) -> Any:
    """Any that the table of keys allows, for a key that is no text."""
    if knob.choices or knob.kind == "bool":
        return chooser.choice(knob.choices or (True, False))
    low, high = max(knob.low, knob.above, -MOST), min(knob.high, knob.below)
    if knob.kind == "int":
        return chooser.randint(int(low), int(min(high, low + MOST)))
    one = [chooser.uniform(low + 1e-6, min(high, low + MOST) - 1e-6) for _ in "ab"]
    return one if knob.length else one[0]


def is_drawn(knob: Knob | None) -> bool:
    """Whether a valid value can be drawn from what the table says."""
    if knob is knobs.KNOBS["processes"]:  # not with every batch size
        return False
    return knob is not None and (knob.kind != "str" or bool(knob.choices)) and knob.length != 0


def valid(content: dict[str, Any], chooser: random.Random) -> None:
    """Another choice of a group whole, now and then, and other values of up to three keys."""
    if chooser.random() < 0.5:
        group = chooser.choice(GROUPS_TO_CHANGE)
        file = chooser.choice(sorted((knobs.CONFIGS / group).glob("*.yaml")))
        content[group] = choices.options(group, file.stem)
    places = {"": content} | {f"{group}.": content[group] for group in knobs.GROUPS}
    names = [
        prefix + name
        for prefix, place in places.items()
        for name in place
        if prefix + name not in FIXED and is_drawn(knobs.KNOBS.get(prefix + name))
    ]
    for name in chooser.sample(names, 3):
        prefix, _, key = name.rpartition(".")
        place = content[prefix] if prefix else content
        place[key] = valid_value(knobs.KNOBS[name], chooser)


def other_notation(content: dict[str, Any], chooser: random.Random) -> str:
    """The same, with keys in another order, in braces, in quotes, with comments or other ends of
    lines."""
    content = dict(chooser.sample(list(content.items()), len(content)))
    text = dump(
        content, sort_keys=False, default_flow_style=chooser.choice([None, False, True]),
        indent=chooser.randint(2, 8), explicit_start=chooser.random() < 0.5,
        allow_unicode=chooser.random() < 0.5,
    )  # fmt: skip
    text = f"# written by hand\n{text}\n# ends here\n"
    return text.replace("\n", "\r\n") if chooser.random() < 0.3 else text


def forged(text: str, number: int, seed: int) -> tuple[str, str]:
    """What kind of change, and the changed text. Every second copy has its target and options
    from another of our YAMLs first, so that each allowed target meets hostile values."""
    chooser = random.Random(f"{seed} {number}")
    kinds = [*VALUES, "a target", "a key", *BREAKS, *VALID]
    kind = kinds[number % len(kinds)]
    content = yaml.safe_load(text)
    if kind in VALID:
        if kind == "valid values":
            valid(content, chooser)
            return kind, dump(content)
        return kind, other_notation(content, chooser)
    group = chooser.choice([*knobs.GROUPS, ""])
    if group and chooser.random() < 0.5:
        file = chooser.choice(sorted((knobs.CONFIGS / group).glob("*.yaml")))
        options = choices.options(group, file.stem)
        content[group] = options.get(group, options)
        content[group].update({"shape": [1, 4, 4], "num_classes": 10} if group == "data" else {})
        for key in ("shape", "num_classes"):
            if group == "model":
                content[group].pop(key, None)
    place = content[group] if group else content
    if kind in BREAKS:
        return kind, BREAKS[kind](dump(content), chooser)
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
    return kind, dump(content)


def use(state: dict[str, Any]) -> torch.Tensor:
    """What the commands do with a configuration, up to the logits of an image."""
    found = stored.configuration(state)
    found, _ = stored.on_this_machine(found, {})
    found, _ = stored.own_sources(found, {})
    found["data"]["download"] = False
    if "download" not in stored.own_options(found["data"]["_target_"]):
        del found["data"]["download"]
    made = restore.reconfigure(found, {})
    model = restore.restore(state, made)
    for group in knobs.GROUPS:
        targets.check_options(group, made[group])
    losses.make_loss(made)
    optimizers.make_schedule(made["scheduler"], total_steps=10, steps_per_epoch=5)
    optimizer_state.check_state(optimizers.make_optimizer(made, model), state["optimizer"])
    with contextlib.suppress(UserError):  # no files here, and where they lie is the user's to say
        datasets.load_data(made["data"])
    with torch.no_grad():
        dtype = next(model.parameters()).dtype
        logits: torch.Tensor = model(torch.linspace(-1, 1, 32, dtype=dtype).view(2, 1, 4, 4))
    return logits.float()


def activation(text: str) -> Any:
    """The one option of this network that no weight holds."""
    return plain_yaml.parse(text)["model"].get("activation")


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
            assert kind not in VALID, f"{message}\n{about}"
            count["refused"] += 1
        except (Exception, TooSlow) as error:
            raise AssertionError(f"{type(error).__name__}: {error}\n{about}") from error
        else:
            message = ""
            close = torch.allclose(logits, wanted, rtol=0.05, atol=0.05)  # precision is a key
            other = activation(text) != activation(sound["config"])
            assert close or other, f"other logits\n{about}"
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
        file = checkpoints.states_in(Path("run/checkpoints"))[-1]
        found = campaign(file, args.copies, args.seed)
    print(f"{datetime.date.today()}: {args.copies} configurations, seed {args.seed}, in "
          f"{time.monotonic() - began:.0f} s\n")  # fmt: skip
    print("| change | refused | harmless | wrong |\n| --- | --- | --- | --- |")
    for kind, ends in found.items():
        print(f"| {kind} | {ends['refused']} | {ends['harmless']} | 0 |")


if __name__ == "__main__":
    main()
