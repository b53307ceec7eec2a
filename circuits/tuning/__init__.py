"""Small trainings inside a frozen model: scales, offsets, shares and weights of heads, from prompts and answers."""
