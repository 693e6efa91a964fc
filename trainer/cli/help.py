"""Help of the command line: the commands, the groups with their choices, examples. Written here and
not by Hydra, which takes half a second to list the same."""

from __future__ import annotations

from collections.abc import Mapping

from trainer.config import choices

TEXT = """\
Trains, evaluates and uses image classifiers.

Usage: python -m trainer [key=value ...]                  train
       python -m trainer --multirun key=a,b [...]         a sweep: one run per combination
       python -m trainer COMMAND [...]                    a command; COMMAND --help says more:
{commands}

Groups (group=choice):
{groups}

Examples:
  python -m trainer                                       the default: an MLP on 5,000 MNIST digits
  python -m trainer model=lenet5 epochs=10 optimizer.lr=0.002
  python -m trainer model=mlp data=fashion_mnist scheduler=one_cycle
  python -m trainer --multirun model=mlp,lenet5 seed=0,1,2
  python -m trainer --multirun search=random search.trials=20 'optimizer.lr=interval(1e-4,1e-2)'
  python -m trainer evaluate outputs/<date>/<time>/checkpoints/best.pth split=val

More:
  python -m trainer --cfg job                             every key, its value (with your overrides)
  python -m trainer --cfg job -p optimizer                one group of it
  configs/config.yaml, configs/<group>/<choice>.yaml      the same with comments
  README.md, docs/                                        the structure, and how to add to it

Hydra's own flags are listed by --hydra-help."""


def help_text(commands: Mapping[str, str]) -> str:
    """The whole help.

    Args:
        commands: name -> what it does.
    """
    lines = [f"         {name:16} {purpose}" for name, purpose in commands.items()]
    groups = [f"{group}: {', '.join(choices.names(group))}" for group in choices.groups()]
    return TEXT.format(commands="\n".join(lines), groups="\n".join(groups))
