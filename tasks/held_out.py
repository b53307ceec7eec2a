"""Which pairs no built-in model is trained on: one in ten, by a checksum of the pair's key.

The one idea: what is held out is a property of the pair alone, so training, tests and users agree on it
without a list. The key says what would be new to a model: a pair of names, a problem of arithmetic.
"""

from __future__ import annotations

import zlib

from circuits.prompts import PromptPair

ONE_IN = 10


def key_held_out(key: str) -> bool:
    """Whether the checksum of `key` falls in the held-out tenth; an empty key never does."""
    return bool(key) and zlib.crc32(key.encode()) % ONE_IN == 0


def held_out(pair: PromptPair) -> bool:
    """Whether `circuit train` never trains on `pair`."""
    return key_held_out(pair.key)
