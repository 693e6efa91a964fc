"""Builders: from a configuration to model, optimizer, loss, data, and the run made of them."""
