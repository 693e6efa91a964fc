"""Every knob once: what is in the YAML files is in the table, and the other way round."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from tests.helpers.commands import ROOT
from trainer.config import choices, knobs, reference
from trainer.config.compose import Composer, parse
from trainer.config.compose import plain as resolved
from trainer.config.knob import Knob
from trainer.config.targets import locate
from trainer.errors import UserError

CONFIGS = ROOT / "configs"
FILES = sorted([*CONFIGS.glob("*.yaml"), *CONFIGS.glob("*/*.yaml")])
OF_SWEEPS = set(knobs.OF_SWEEPS) - {"search"}  # a group
CHECKED_GROUPS = ("optimizer", "scheduler", "loss", "data", "augment")
CHOICES = [(group, name) for group in knobs.GROUPS for name in choices.names(group)]


def keys_of(file: Path) -> set[str]:
    content = yaml.safe_load(file.read_text()) or {}
    return {str(key) for key in content if not str(key).startswith("_")} - {"defaults", "hydra"}


def test_there_are_files() -> None:
    assert len(FILES) > 30


def test_run_wide_keys_and_the_table_agree() -> None:
    table = {key for key in knobs.KNOBS if "." not in key}
    assert keys_of(CONFIGS / "config.yaml") == table | OF_SWEEPS


@pytest.mark.parametrize("group", CHECKED_GROUPS)
def test_group_keys_and_the_table_agree(group: str) -> None:
    options = [key for name in choices.names(group) for key in choices.options(group, name)]
    in_files = {key for key in options if not key.startswith("_")}
    in_table = {key.partition(".")[2] for key in knobs.KNOBS if key.startswith(group + ".")}
    assert in_table <= in_files
    own = {"num_train", "num_test", "noise", "seed", "file_md5"}
    assert in_files <= in_table | own  # what one data set alone has, its own function checks


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(CONFIGS)))
def test_the_first_line_says_what_this_is(file: Path) -> None:
    assert file.read_text().startswith("# ")


def test_every_key_has_a_meaning() -> None:
    of_run = {key for key in knobs.KNOBS if "." not in key} | OF_SWEEPS
    assert choices.comments((CONFIGS / "config.yaml").read_text()).keys() == of_run
    for group, name in CHOICES:
        keys = {key for key in choices.options(group, name) if not key.startswith("_")}
        sizes = {"shape", "num_classes"} if group == "model" else set()
        assert choices.meanings(group, name).keys() == keys - sizes, (group, name)


def test_keys_of_searches_and_the_table_agree() -> None:
    found = {key for name in choices.names("search") for key in choices.options("search", name)}
    assert {f"search.{key}" for key in found} == {
        k for k in knobs.SWEEP_KNOBS if k[:7] == "search."
    }
    for name in choices.names("search"):
        keys = choices.options("search", name).keys()
        assert choices.meanings("search", name).keys() >= keys - {"strategy"}
        assert choices.options("search", name)["strategy"] == name
        knobs.check_values({"search": choices.options("search", name)}, knobs.SWEEP_KNOBS)


def test_a_choice_does_not_repeat_what_it_extends() -> None:
    for group, name in CHOICES:
        own, *others = sorted(choices.files(group, name), key=lambda file: file.stem != name)
        values = yaml.safe_load(own.read_text())
        for key, value in (item for f in others for item in yaml.safe_load(f.read_text()).items()):
            assert key in ("defaults", "_partial_") or values.get(key, ...) != value, (own, key)


def meanings_in(files: Iterable[Path]) -> Counter[tuple[str, str]]:
    return Counter(said for file in files for said in choices.comments(file.read_text()).items())


@pytest.mark.parametrize("group", knobs.GROUPS)
def test_the_meaning_of_a_key_stands_once(group: str) -> None:
    found = meanings_in((CONFIGS / group).rglob("*.yaml"))
    assert found
    assert not [said for said, number in found.items() if number > 1]


def test_a_meaning_that_stands_twice_is_found(tmp_path: Path) -> None:
    """The twin."""
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text("lr: 1.0  # learning rate\n")
    assert meanings_in(tmp_path.iterdir()) == {("lr", "learning rate"): 2}


def test_a_base_has_no_value_that_hides_one_of_a_choice() -> None:
    """One that is merged after the choice's own file, whose keys then keep their order."""
    for group, name in CHOICES:
        files = list(choices.files(group, name))
        own = next(i for i, file in enumerate(files) if file.stem == name)
        given = {key for file in files[: own + 1] for key in yaml.safe_load(file.read_text())}
        for base in files[own + 1 :]:
            values = yaml.safe_load(base.read_text())
            assert not {key for key in values if values[key] != "???"} & given, (group, name)


def test_every_base_is_used() -> None:
    bases = set(CONFIGS.glob("*/base/*.yaml"))
    assert len(bases) >= 6
    assert bases <= {file for one in CHOICES for file in choices.files(*one)}


@pytest.mark.parametrize("group", ["data", "optimizer"])
def test_a_base_is_no_choice(group: str) -> None:
    assert (CONFIGS / group / "base").is_dir()
    with pytest.raises(UserError, match="There is no choice") as refused:
        Composer(parse([f"{group}=xyz"])).master()
    listed = str(refused.value).partition("Valid: ")[2].rstrip(".").split(", ")
    assert listed == choices.names(group)
    assert "base" not in " ".join(listed)
    base = next((CONFIGS / group / "base").iterdir()).stem
    composer = Composer(parse([f"{group}=base/{base}"]))
    with pytest.raises(UserError, match="Missing mandatory value"):
        resolved(*composer.jobs(composer.master()))


RANGE = re.compile(
    r"[<>]=? ?-?\d|\d ?[<>]|(?<![\w.])\d[\d.]* ?(?:to|-|\.\.+) ?\d"
    r"|(?:at (?:least|most)|above|below) \d"
)


def test_no_comment_has_a_range_that_the_table_has() -> None:
    said = [(f"{group}.", choices.meanings(group, name)) for group, name in CHOICES]
    of_run = choices.comments((CONFIGS / "config.yaml").read_text())
    for prefix, comments in [("", of_run), *said]:
        for key, comment in comments.items():
            if prefix + key in knobs.KNOBS:
                assert not RANGE.search(comment), (prefix + key, comment)


@pytest.mark.parametrize(
    "comment",
    ["learning rate; > 0", "share; 0 <= s < 1", "epochs; >= 0", "0 to 1", "0..1", "0 - 180 degrees",
     "at least 1", "between; below 1"],
)  # fmt: skip
def test_a_range_is_seen(comment: str) -> None:
    """The twin."""
    assert RANGE.search(comment)


def test_the_reference_is_current() -> None:
    written = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    assert written == reference.reference(), f"write it again: {reference.COMMAND}"
    options = {f"{g}.{key}" for g, name in CHOICES for key in choices.options(g, name)}
    for key in (*knobs.KNOBS, *(o for o in options if not o.partition(".")[2].startswith("_"))):
        assert f"| `{key}` |" in written, key


def test_the_words_in_the_reference_are_those_that_a_network_takes() -> None:
    words = []
    for name in choices.names("model"):
        target = choices.options("model", name)["_target_"]
        for key in choices.meanings("model", name):
            allowed = reference.allowed("model", name, key)
            if allowed.startswith("one of ") and key != "name":
                words += allowed.removeprefix("one of ").split(", ")
                with pytest.raises(ValueError, match=f"{key}=other: must be {re.escape(allowed)}"):
                    locate("model", target)((3, 32, 32), 10, **{key: "other"})
    assert {"relu", "xavier", "paper_half", "adaptive", "small", "1x1", "19", "152"} <= {*words}


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(CONFIGS)))
def test_every_default_is_within_its_range(file: Path) -> None:
    """And every choice composes for somebody who has imported nothing of ours."""
    group, name = file.parent.name, file.stem
    overrides = [] if file.parent == CONFIGS else [f"{'+' * (group == 'x')}{group}={name}"]
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        composed = compose("config", overrides=overrides)
    plain: Any = OmegaConf.to_container(composed, resolve=True)
    knobs.check(plain)


@pytest.mark.slow
@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_a_choice_is_read_as_hydra_composes_it(group: str, name: str) -> None:
    """With the options of the choices that its defaults list extends."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        composed = compose("config", overrides=[f"{group}={name}"])
    assert choices.options(group, name) == OmegaConf.to_container(composed[group], resolve=False)


def test_a_choice_that_there_is_not_is_refused() -> None:
    assert choices.options("model", "vgg11")["head"] == "auto"
    for name in ("vgg12", "../data/mnist", ""):
        with pytest.raises(UserError, match="There is no choice for model"):
            choices.options("model", name)


def test_a_net_carries_its_own_values_between_the_groups_and_the_experiment(
    tmp_path: Path,
) -> None:
    """optimizer.yaml < model.yaml < experiment.yaml < command line."""
    for folder, name, text in (
        ("model", "own", "optimizer: {lr: 0.5}\nepochs: 5\nmodel: {_target_: models.mlp.MLP}\n"),
        ("experiment", "mine", "optimizer: {lr: 0.25}\n"),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{name}.yaml").write_text("# @package _global_\n" + text)
    searched = f"hydra.searchpath=[file://{tmp_path}]"

    def lr_and_epochs(*overrides: str) -> tuple[float, int]:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            composed = compose("config", overrides=[searched, *overrides])
        return composed.optimizer.lr, composed.epochs

    default, epochs = lr_and_epochs()
    assert default not in (0.5, 0.25)
    assert lr_and_epochs("model=own") == (0.5, 5)
    assert lr_and_epochs("model=own", "experiment=mine") == (0.25, 5)
    assert lr_and_epochs("experiment=mine") == (0.25, epochs)
    assert lr_and_epochs("model=own", "experiment=mine", "optimizer.lr=0.125") == (0.125, 5)


@pytest.mark.parametrize(
    ("knob", "right", "wrong"),
    [
        (Knob("int", low=1), [1, 10**12], [0, 1.0, True, "1", None, [1]]),
        (Knob("float", above=0, high=1), [1, 0.5], [0, -1, 1.01, True, float("nan")]),
        (Knob("bool"), [True, False], [0, 1, "true", None]),
        (Knob("str", choices=("auto", True, False)), ["auto", True], ["on", 1, 0]),
        (Knob("str", pattern=r"cuda(:\d+)?"), ["cuda", "cuda:3"], ["cuda:", "xcuda"]),
        (Knob("int", low=1, length=3), [[1, 2, 3]], [[1, 2], [0, 1, 2], 3, "123"]),
        (Knob("float", length=0), [[], [0.5, 1]], [["a"], 0.5]),
        (Knob("int", nullable=True), [None, 3], ["null"]),
    ],
)
def test_knobs(knob: Knob, right: list[object], wrong: list[object]) -> None:
    assert all(knob.allows(value) for value in right)
    assert not [value for value in wrong if knob.allows(value)]
    assert knob.allowed()


PARTS = [key for key, knob in knobs.KNOBS.items()
         if key.startswith("augment.") and knob.kind != "bool"]  # fmt: skip


@pytest.mark.parametrize("key", PARTS)
def test_augmentations_have_bounds_and_0_is_off(key: str) -> None:
    knob = knobs.KNOBS[key]
    assert not [v for v in (-0.1, 1000.0, float("nan"), "0.5", True, None) if knob.allows(v)]
    assert knob.allows(0)
    assert knob.allows(0.5)


def test_messages_name_key_value_and_range() -> None:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        plain: Any = OmegaConf.to_container(compose("config"), resolve=True)
    knobs.check(plain)
    plain["optimizer"]["betas"] = [0.9, 1.0]
    with pytest.raises(UserError, match=r"optimizer\.betas=\[0\.9,1\.0\]: must be a list of 2"):
        knobs.check(plain)
