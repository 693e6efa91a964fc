"""Configuration to objects: model, pretrained weights, frozen parameters, optimizer, data, run."""
