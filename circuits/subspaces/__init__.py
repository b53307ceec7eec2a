"""Which directions at one place of the forward pass carry what a behaviour hangs on, and what steers it there."""
