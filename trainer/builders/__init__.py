"""From a configuration to objects: model, optimizer, loss, data, and the run made of them."""
