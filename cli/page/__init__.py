"""Pages to look at in a browser: one HTML file for a folder. Commands import them when they need them."""
