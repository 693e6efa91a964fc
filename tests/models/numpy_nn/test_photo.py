"""VGG19 on a photograph with torch not importable: the file, the preprocessing, the whole way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.images.decode import read_image
from models.numpy_nn.examples import classify_photo
from models.weights.foreign import WeightsError
from models.weights.matconvnet import read_mat
from models.weights.reader import read
from tests.helpers import matconvnet_files as mcn
from tests.helpers.commands import ROOT, Finished, run_trainer

CLASSES = [f"class {i}" for i in range(1000)]
SMALL = """
import sys
from models.numpy_nn import vgg19
vgg19.CHANNELS, vgg19.FEATURES, vgg19.HIDDEN = ((4,), (4,), (4,), (4,), (6,)), 6 * 49, 8
"""
CLASSIFY = """
from models.numpy_nn.examples.classify_photo import main
raise SystemExit(main())
"""


def python_without_torch(folder: Path, code: str, *args: str | Path) -> Finished:
    """Runs code where torch cannot be imported, nor in the processes that it starts."""
    (folder / "torch.py").write_text("raise ImportError('torch is blocked')\n")
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(folder)}, capture_output=True, text=True,
    )  # fmt: skip
    return Finished(done.returncode, done.stdout, done.stderr)


def photo(path: Path, width: int = 400, height: int = 300) -> Path:
    """A smooth image in colour, as JPEG."""
    y, x = np.mgrid[0:height, 0:width] / 40.0
    waves = np.stack([np.sin(x + 0.3 * y), np.cos(0.7 * x - y), np.sin(0.1 * x * y)], axis=2)
    Image.fromarray(np.uint8(127 + 120 * waves)).save(path, quality=92)
    return path


def table(done: Finished) -> dict[str, float]:
    """Class -> probability, as the example prints them."""
    assert done.returncode == 0, done.output
    return {line[10:]: float(line[:8]) for line in done.stdout.splitlines()}


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64) - logits.max())
    return powers / powers.sum()


def test_torch_is_blocked_here(tmp_path: Path) -> None:
    done = python_without_torch(tmp_path, "import torch")
    assert "torch is blocked" in done.stderr
    asked = python_without_torch(tmp_path, "import models.weights.reader")
    assert "torch is blocked" in asked.stderr


def test_a_small_vgg_without_torch_computes_what_its_file_computes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    layers = mcn.vgg(rng, [[4], [4], [4], [4], [6]], hidden=[8, 8], num_classes=1000)
    layers[-2]["kernel"] *= np.float32(0.02)  # else one class gets everything
    mat = mcn.save(tmp_path / "net.mat", layers, descriptions=CLASSES)
    file = photo(tmp_path / "photo.jpg")
    done = python_without_torch(tmp_path, SMALL + CLASSIFY, mat, file, "--top-k", "1000")
    found = table(done)
    image = read_image(file, (3, 224, 224), resize=256).transpose(1, 2, 0)
    expected = softmax(mcn.forward(layers, image, mcn.AVERAGE))
    assert 0.002 < expected.max() < 0.9
    assert list(found.values()) == sorted(found.values(), reverse=True)
    np.testing.assert_allclose([found[name] for name in CLASSES], expected, atol=2e-6)
    five = python_without_torch(tmp_path, SMALL + CLASSIFY, mat, file)
    assert list(table(five)) == [CLASSES[i] for i in np.argsort(-expected)[:5]]


def test_arrays_are_the_tensors_that_torch_gets(tmp_path: Path) -> None:
    layers = mcn.vgg(np.random.default_rng(0), [[4, 4], [6]], hidden=[8], num_classes=5)
    mat, shapes = mcn.save(tmp_path / "net.mat", layers), mcn.target_shapes(layers)
    arrays, tensors = read_mat(mat, shapes), read(mat, shapes)
    assert list(arrays.state_dict) == list(tensors.state_dict)
    for name, array in arrays.state_dict.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, tensors.state_dict[name].numpy())
    assert (arrays.mean, arrays.shape, arrays.resize) == (tensors.mean, (3, 224, 224), 256)
    (tmp_path / "other.mat").write_bytes(b"\x80\x02}.")
    with pytest.raises(WeightsError, match="not a MATLAB file"):
        read_mat(tmp_path / "other.mat", shapes)


@pytest.mark.parametrize("size", [(400, 300), (225, 500), (100, 90), (224, 224), (257, 256)])
def test_photographs_are_cropped_as_predict_does(tmp_path: Path, size: tuple[int, int]) -> None:
    file = photo(tmp_path / "photo.jpg", *size)
    ours = classify_photo.centre(classify_photo.photograph(file), resize=256)
    np.testing.assert_array_equal(ours[0], read_image(file, (3, 224, 224), resize=256))


def test_wrong_files_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, words = photo(tmp_path / "photo.jpg"), tmp_path / "words.txt"
    words.write_text("These are words, not a network and not an image.")
    for weights, image in ((words, good), (good, words), (words, tmp_path / "nowhere.jpg")):
        assert classify_photo.main([str(weights), str(image)]) == 2
        wrong = words if image == good else image
        assert wrong.name in capsys.readouterr().err


@pytest.mark.slow
def test_full_size_vgg19_the_whole_way(tmp_path: Path) -> None:
    """.mat -> import-weights -> predict on both kinds of layers, and the example: one answer."""
    blocks = [[64] * 2, [128] * 2, [256] * 4, [512] * 4, [512] * 4]
    layers = mcn.vgg(np.random.default_rng(0), blocks, hidden=[4096, 4096], num_classes=1000)
    layers[-2]["kernel"] *= np.float32(0.01)  # else one class gets everything
    mat = mcn.save(tmp_path / "vgg19.mat", layers, descriptions=CLASSES, compress=False)
    file = photo(tmp_path / "photo.jpg")
    example = table(python_without_torch(tmp_path, CLASSIFY, mat, file))
    made = run_trainer("import-weights", mat.name, "--model", "vgg19", "-o", "vgg19.pth",
                       cwd=tmp_path)  # fmt: skip
    assert made.returncode == 0, made.output
    mat.unlink()  # half a gigabyte
    (tmp_path / "torch.py").unlink()
    for name in ("torch", "numpy"):
        done = run_trainer("predict", "vgg19.pth", file.name, "--json", f"layers={name}",
                           cwd=tmp_path)  # fmt: skip
        assert done.returncode == 0, done.output
        top = {one["class"]: one["probability"] for one in json.loads(done.stdout)["top"]}
        assert list(top) == list(example)
        np.testing.assert_allclose(list(top.values()), list(example.values()), atol=1e-4)
    assert 0.002 < next(iter(example.values())) < 0.9
    (tmp_path / "vgg19.pth").unlink()
