"""Scores of texts, read off a model: which ones its retrieval heads matter for, which ones are like given ones."""
