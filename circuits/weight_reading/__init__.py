"""Reading weights: what heads can say to each other, and what raises an observable, before any prompt is run."""
