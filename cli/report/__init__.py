"""Pictures and reports of runs. Commands import them when they need them: matplotlib is slow to load."""
