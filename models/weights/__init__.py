"""Weight files of other people: read in a child process, checked, turned into state_dicts.

    foreign = read("imagenet-vgg-verydeep-19.mat", target_shapes)
    mismatch = compare(foreign.state_dict, target_shapes)
    foreign = load_official("resnet50", "IMAGENET1K_V2")

Whatever is wrong with a file ends in a `WeightsError`, whose message is written for the user.
"""

from models.weights.foreign import ForeignWeights, Mismatch, WeightsError, compare
from models.weights.reader import load_official, read
from models.weights.safe_load import safe_torch_load
from models.weights.torchvision_files import Official, official

__all__ = [
    "ForeignWeights",
    "Mismatch",
    "Official",
    "WeightsError",
    "compare",
    "load_official",
    "official",
    "read",
    "safe_torch_load",
]
