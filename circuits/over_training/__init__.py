"""What becomes of a model's behaviour, circuit and heads while it is trained, read off its checkpoints."""
