"""Train a network on 4,000 handwritten digits with NumPy alone, and test it on 1,000 others.

    python -m models.numpy_nn.examples.train_digits --net lenet_caffe --save lenet.npz
    python -m models.numpy_nn.examples.train_digits --net lenet_caffe --load lenet.npz

The second command tests the saved parameters. The networks are the 784-128-64-10 perceptron and the
LeNet of Caffe's examples (20 and 50 filters, 500 units; LeCun et al. 1998, simplified).
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.numpy_nn import functional as F
from models.numpy_nn.functional.shapes import Array
from models.numpy_nn.layers import Conv2d, Linear, Sequential, flatten, max_pool2d, relu
from models.numpy_nn.optim import Adam

MNIST_5K = Path(__file__).parents[3] / "data" / "mnist_5k.npz"
MEAN, STD = 0.1307, 0.3081  # of MNIST's training pixels, as pixel / 255


def mlp(rng: np.random.Generator) -> Sequential:
    return Sequential(
        flatten(),  # (N, 1, 28, 28) -> (N, 784)
        Linear(784, 128, rng),
        relu(),
        Linear(128, 64, rng),
        relu(),
        Linear(64, 10, rng),
    )


def lenet_caffe(rng: np.random.Generator) -> Sequential:
    return Sequential(
        Conv2d(1, 20, 5, rng, need_grad_x=False),  # (N, 1, 28, 28) -> (N, 20, 24, 24)
        max_pool2d(2),  # -> (N, 20, 12, 12)
        Conv2d(20, 50, 5, rng),  # -> (N, 50, 8, 8)
        max_pool2d(2),  # -> (N, 50, 4, 4)
        flatten(),  # -> (N, 800)
        Linear(800, 500, rng),
        relu(),
        Linear(500, 10, rng),
    )


NETS = {"mlp": mlp, "lenet_caffe": lenet_caffe}


def load_digits(path: Path) -> dict[str, NDArray[np.uint8]]:
    """train_images, test_images (N, 28, 28) and train_labels, test_labels (N,), all uint8."""
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def normalise(images: NDArray[np.uint8]) -> Array:
    """(N, 28, 28) uint8 -> (N, 1, 28, 28) float32 with mean 0 and deviation 1."""
    return ((images[:, None] / np.float32(255)) - np.float32(MEAN)) / np.float32(STD)


def train_step(net: Sequential, optimizer: Adam, x: Array, labels: NDArray[np.uint8]) -> float:
    logits = net.forward(x)
    loss, cache = F.cross_entropy_forward(logits, labels)
    net.backward(F.cross_entropy_backward(1.0, cache))
    optimizer.step(net.grads)
    return float(loss)


def accuracy(net: Sequential, images: Array, labels: NDArray[np.uint8]) -> float:
    """Share of images whose largest logit is the label's."""
    predicted = net.forward(images, training=False).argmax(axis=1)
    return float((predicted == labels).mean())


def train(net: Sequential, digits: dict[str, NDArray[np.uint8]], args: argparse.Namespace) -> None:
    """Adam; its learning rate falls along a straight line to 0, which quiets the last epochs."""
    images, labels = normalise(digits["train_images"]), digits["train_labels"]
    rng = np.random.default_rng(args.seed)
    optimizer = Adam(net.params)
    for epoch in range(args.epochs):
        start, losses = time.perf_counter(), []
        batches = np.array_split(rng.permutation(len(images)), -(-len(images) // args.batch_size))
        for i, batch in enumerate(batches):
            optimizer.lr = args.lr * (1 - (epoch + i / len(batches)) / args.epochs)
            losses.append(train_step(net, optimizer, images[batch], labels[batch]))
        seconds = time.perf_counter() - start
        print(f"epoch {epoch + 1:2}  loss {np.mean(losses):.4f}  {seconds:.2f} s")


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Handwritten digits with NumPy alone.")
    parser.add_argument("--net", choices=NETS, default="mlp")
    parser.add_argument("--data", type=Path, default=MNIST_5K, help="mnist_5k.npz")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3, help="Adam's learning rate at the start")
    parser.add_argument("--seed", type=int, default=0, help="of the start and the batches")
    files = parser.add_mutually_exclusive_group()
    files.add_argument("--save", type=Path, help="write the trained parameters (.npz)")
    files.add_argument("--load", type=Path, help="test these parameters instead of training")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    net = NETS[args.net](np.random.default_rng(args.seed))
    try:
        digits = load_digits(args.data)
        if args.load:
            with np.load(args.load) as file:
                net.load(dict(file))
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    if not args.load:
        train(net, digits, args)
    if args.save:
        np.savez(args.save, **net.params)  # type: ignore[arg-type]
    test_accuracy = accuracy(net, normalise(digits["test_images"]), digits["test_labels"])
    print(f"test accuracy {test_accuracy:.4f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
