"""The user's own prompts: files of any format that the field writes, read into rows, and rows into pairs.

The one idea: nothing is lost in silence. A file that is badly written is refused with every bad line named; of a
well written one, each row becomes a prompt or is dropped by name and with its reason.

content.py reads a file's text; formats/ says what its rows mean, one file a format; reading.py puts the two together;
pairing.py makes pairs of the rows for the model at hand.
"""

from __future__ import annotations

from circuits.prompt_files.formats.prompt_label import read_prompt_lists
from circuits.prompt_files.formats.prompt_lines import PromptLine
from circuits.prompt_files.reading import read, read_prompts

__all__ = ["PromptLine", "read", "read_prompt_lists", "read_prompts"]
