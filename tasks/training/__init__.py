"""Trains the built-in models on the tasks' own prompts; the only part of `tasks` that imports torch."""
