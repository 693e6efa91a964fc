"""The configuration inside a checkpoint is somebody else's text: data, and nothing more."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.helpers.commands import ROOT
from tests.helpers.stored_configurations import Dispatch, Edit, best, read, text_of, write
from tests.helpers.tiny_training import whole_run
from trainer import checkpoints
from trainer.builders import restore
from trainer.config import choices, plain_yaml, stored
from trainer.errors import UserError

# --- the text ------------------------------------------------------------------------------------


def test_what_a_training_stores_is_read_as_omegaconf_reads_it() -> None:
    from omegaconf import OmegaConf

    text = best()["config"]
    assert "${" not in text
    assert plain_yaml.parse(text) == OmegaConf.to_container(OmegaConf.create(text))
    assert stored.configuration(best())["model"] == plain_yaml.parse(text)["model"]


@pytest.mark.parametrize("file", sorted((ROOT / "configs").glob("*/*.yaml")), ids=lambda f: f.stem)
def test_plain_yaml_means_the_same(file: Path) -> None:
    from omegaconf import OmegaConf

    text = file.read_text()
    assert plain_yaml.parse(text) == OmegaConf.to_container(OmegaConf.create(text))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("1.0e-05", 1e-5), ("-3", -3), ("0x10", 16), (".inf", float("inf")),
        ("null", None), ("~", None), ("true", True), ("'on'", "on"), ("2024-01-15", "2024-01-15"),
        ("08", "08"), ("[1, [2.5, a]]", [1, [2.5, "a"]]), ("{a: {b: 1}}", {"a": {"b": 1}}),
        ("9" * 5000, "9" * 5000), ("é", "é"), ("|\n  a\n  b\n", "a\nb\n"),
    ],
)  # fmt: skip
def test_values(text: str, value: Any) -> None:
    assert plain_yaml.parse(f"key: {text}") == {"key": value}


BILLION = "z: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"z{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BILLION, "alias"), ("a: &x 1\nb: *x\n", "alias"), ("a: &x 1\n", "anchor"),
        ("a: !!python/name:os.system\n", "tag"), ("a: !!python/object/apply:os.system [ls]", "tag"),
        ("a: !!str 3\n", "tag"), ("a: ! x\n", "tag"), ("!!map {a: 1}\n", "tag"),
        ("a: b: {", "no YAML"), ("a: \x00", "no YAML"), ("- a\n", "keys and values"), ("", "keys"),
        ("3\n", "keys and values"), ("a: 1\n--- \nb: 2\n", "no YAML"), ("a: 1\na: 2\n", "twice"),
        ("? [a, b]\n: 1\n", "no text"), ("a: " + "[" * 40 + "]" * 40, "deep"),
        ("a: " + "{b: " * 40 + "1" + "}" * 40, "deep"), ("a: " + "[" * 60000, "deep|depth"),
        ("a: " + "x" * 70000, "bytes"), ("a: " + "é" * 33000, "bytes"),
    ],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_what_is_not_plain_is_refused(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        read(text)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.activation", "${oc.decode:'{_target_: os.system}'}"), ("seed", "${oc.env:HOME}"),
        ("data.mean", ["${oc.env:HOME}"]), ("model.init", "${nope}"), ("model.init", "???"),
        ("freeze", ["a${x"]), ("data.file_md5", {"a": {"b": "${c}"}}),
    ],
)  # fmt: skip
def test_what_stands_for_another_value_is_named(key: str, value: Any) -> None:
    group, _, name = key.rpartition(".")
    text = text_of(lambda c: (c[group] if group else c).update({name: value}))
    with pytest.raises(UserError, match=rf"{key}.*(not resolved|missing)"):
        read(text)


def test_an_interpolation_in_a_key_is_one_too() -> None:
    with pytest.raises(UserError, match="not resolved"):
        read(text_of(lambda c: c["model"].update({"${oc.env:HOME}": 1})))


def test_what_the_user_types_may_be_an_interpolation(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin."""
    monkeypatch.setenv("SEED", "7")
    config = stored.configuration(best())
    changed = restore.reconfigure(config, {"data.seed": "${oc.decode:${oc.env:SEED}}"})
    assert changed["data"]["seed"] == 7


# --- sizes, and what belongs to the machine ------------------------------------------------------


def test_sizes_are_held_against_the_weights_before_memory_is_taken(dispatch: Dispatch) -> None:
    for hidden in ([10**9], [10**20], [8] * 300, [-1], "8", [8.5], [[8]], {}):
        write(Path("odd.pth"), lambda c, h=hidden: c["model"].update(hidden=h))
        for words in (["predict", "odd.pth", "odd.pth"], ["evaluate", "odd.pth"],
                      ["export", "odd.pth", "--format", "state_dict"]):  # fmt: skip
            done = dispatch(*words)
            assert done.returncode == 2, done.output
            assert "Traceback" not in done.output
            assert len(done.stderr.splitlines()) < 15


def words_for(command: str) -> list[str]:
    Image.new("L", (4, 4)).save("picture.png")
    return {
        "predict": ["predict", "c.pth", "picture.png"], "evaluate": ["evaluate", "c.pth"],
        "export": ["export", "c.pth", "--format", "state_dict", "--force"],
    }[command]  # fmt: skip


@pytest.mark.skipif(torch.cuda.is_available(), reason="cuda is at hand here")
@pytest.mark.parametrize(
    ("device", "precision"), [("cuda", "fp32"), ("cuda:3", "fp16"), ("mps", "bf16")]
)
def test_a_net_of_a_gpu_is_used_without_one(
    dispatch: Dispatch, device: str, precision: str
) -> None:
    write(Path("cpu.pth"), lambda c: None)
    write(Path("c.pth"), lambda c: c.update(device=device, precision=precision))
    shown = []
    for name in ("cpu.pth", "c.pth"):
        for command in ("predict", "evaluate", "export"):
            done = dispatch(*[name if w == "c.pth" else w for w in words_for(command)])
            assert done.returncode == 0, done.output
            lines = [line for line in done.stderr.splitlines() if "of the training" in line]
            assert len(lines) == (name == "c.pth" and (command != "export" or precision != "fp32"))
            assert all(f"={precision}" in line for line in lines if precision != "fp32")
            if command == "predict":
                shown.append(done.stdout)
    assert shown[0] == shown[1]
    done = dispatch("predict", "c.pth", "picture.png", f"device={device}")
    assert done.returncode == 2, "asked for by name it is wanted"
    assert f"device={device}" in done.stderr


def test_what_is_at_hand_is_used_without_a_word(dispatch: Dispatch) -> None:
    write(Path("c.pth"), lambda c: c.update(device="cpu", precision="bf16"))
    for command in ("predict", "evaluate", "export"):
        done = dispatch(*words_for(command))
        assert done.returncode == 0, done.output
        assert done.stderr == ""


def located(edit: Edit, *words: str) -> tuple[dict[str, Any], list[str]]:
    values = dict(word.split("=", 1) for word in words)
    return stored.own_sources(read(text_of(edit)), values)


def mnist(**changes: Any) -> Edit:
    own = choices.options("data", "mnist")
    here = {"shape": [1, 4, 4], "num_classes": 10}
    return lambda c: c.update(data=own | here | changes)


@pytest.fixture
def as_mnist(monkeypatch: pytest.MonkeyPatch) -> None:
    ten = best() | {"classes": list("0123456789")}
    monkeypatch.setattr("tests.helpers.stored_configurations.best", lambda: ten)


@pytest.mark.usefixtures("as_mnist")
def test_no_address_and_no_sum_comes_out_of_a_file() -> None:
    own = choices.options("data", "mnist")
    config, notes = located(mnist())
    assert notes == []
    assert {k: config["data"][k] for k in ("mirrors", "file_md5")} == {
        k: own[k] for k in ("mirrors", "file_md5")
    }
    evil = mnist(mirrors=["http://evil.example/"], file_md5={"x": "0" * 32}, root="/somewhere")
    config, notes = located(evil)
    assert config["data"]["mirrors"] == own["mirrors"]
    assert config["data"]["file_md5"] == own["file_md5"]
    assert "evil" not in str(config)
    told = [[note for note in notes if note.startswith(f"data.{key}")] for key in
            ("mirrors", "file_md5", "root")]  # fmt: skip
    assert [len(notes) for notes in told] == [1, 1, 1]
    assert "data.root=/somewhere" in told[2][0]
    config, notes = located(evil, "data.root=/mine", "data.mirrors=[]", "data.file_md5={}")
    assert notes == []


@pytest.mark.usefixtures("as_mnist")
def test_a_file_may_forbid_a_download_and_not_allow_one() -> None:
    assert located(mnist(download=False))[0]["data"]["download"] is False
    assert located(mnist(download=True))[0]["data"]["download"] is True  # as our YAML does


def test_a_set_of_the_users_own_has_no_sources_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_sets.py").write_text("def load(**keys): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    text = text_of(
        lambda c: c["data"].update(_target_="own_sets.load", mirrors=["http://x"], download=True)
    )
    config, notes = stored.own_sources(read(text, "trust=own_sets"), {})
    assert config["data"]["mirrors"] is None
    assert config["data"]["download"] is False
    assert len(notes) == 2


def test_resume_asks_for_another_device_by_name(dispatch: Dispatch, tmp_path: Path) -> None:
    run = Path(shutil.copytree(whole_run(), tmp_path / "run"))
    (run / "summary.json").unlink()
    for path in checkpoints.states_in(run / "checkpoints"):
        write(path, lambda c: c.update(device="cuda:3"), of=path)
    done = dispatch("resume", "run")
    if torch.cuda.device_count() < 4:
        assert done.returncode == 2, done.output
        assert "device=cuda:3" in done.stderr
        assert "cpu" in done.stderr
