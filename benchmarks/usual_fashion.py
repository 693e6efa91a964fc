"""The usual script, as a process of its own: two convolutions on Fashion-MNIST by torchvision,
DataLoader and Adadelta.

    python -m benchmarks.usual_fashion --root FOLDER [--epochs 4] [--seed 0]

What PyTorch's basic MNIST example has, on clothes: convolutions of 32 and 64 maps, max pooling,
dropout 0.25 and 0.5, 128 units; Adadelta at 1.0, times 0.7 after each epoch; batches of 64, a test
after each epoch.

FOLDER has the four gzip files of Fashion-MNIST.
"""

from __future__ import annotations

import argparse
import gzip
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader
from torchvision import datasets, transforms


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 3), nn.Conv2d(32, 64, 3)
        self.dropout1, self.dropout2 = nn.Dropout(0.25), nn.Dropout(0.5)
        self.fc1, self.fc2 = nn.Linear(9216, 128), nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv2(F.relu(self.conv1(x)))), 2)
        x = F.relu(self.fc1(torch.flatten(self.dropout1(x), 1)))
        return F.log_softmax(self.fc2(self.dropout2(x)), dim=1)


def accuracy(net: nn.Module, loader: DataLoader[tuple[Tensor, Tensor]], number: int) -> float:
    net.eval()
    with torch.no_grad():
        right = sum((net(images).argmax(1) == labels).sum().item() for images, labels in loader)
    return right / number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    transform = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize((0.2860,), (0.3530,))]
    )
    with tempfile.TemporaryDirectory() as root:
        raw = Path(root) / "FashionMNIST" / "raw"
        raw.mkdir(parents=True)
        for file in args.root.glob("*-ubyte.gz"):
            (raw / file.stem).write_bytes(gzip.decompress(file.read_bytes()))
        train, test = (
            datasets.FashionMNIST(root, train=part, transform=transform) for part in (True, False)
        )
    net = Net()
    optimizer = torch.optim.Adadelta(net.parameters(), lr=1.0)
    schedule = StepLR(optimizer, step_size=1, gamma=0.7)
    batches, test_batches = DataLoader(train, 64, shuffle=True), DataLoader(test, 1000)
    for epoch in range(args.epochs):
        net.train()
        for images, labels in batches:
            optimizer.zero_grad()
            F.nll_loss(net(images), labels).backward()
            optimizer.step()
        found = accuracy(net, test_batches, len(test))
        print(f"epoch {epoch + 1}: test accuracy {found:.4f}", flush=True)
        schedule.step()


if __name__ == "__main__":
    main()
