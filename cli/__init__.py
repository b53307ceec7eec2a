"""The command line: a thin face of circuits and tasks."""
