"""Weight files of other programs: read, checked, turned into state_dicts.

    foreign = reader.read("imagenet-vgg-verydeep-19.mat", target_shapes)
    mismatch = foreign.compare(weights.state_dict, target_shapes)
    weights = reader.load_official("resnet50", "IMAGENET1K_V2")

Whatever is wrong with a file ends in a `WeightsError`, whose message is written for the user.
"""
