"""Training a model: data, recipe, the loop, evaluation, checkpoints."""
