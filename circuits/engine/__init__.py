"""The exact fast path: patched forward passes that compute only what a patch can change, and the portable one."""
