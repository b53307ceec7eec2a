"""What a user does to named heads of a model, what comes of it, and what would have come of it by chance."""
