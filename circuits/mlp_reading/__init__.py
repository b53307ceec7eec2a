"""What an MLP does with what heads wrote: a regression of its output, and what replaces it."""
