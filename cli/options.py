"""Options that mean the same in many commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ModelName = Annotated[
    str, typer.Argument(help="A built-in model, a Hugging Face directory, or a name on the hub.")
]
Device = Annotated[str, typer.Option(help="Where the model runs, with the same words as for discover.")]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16 or float16.")]
TablesFolder = Annotated[
    Path | None, typer.Option("--output", "-o", help="A folder to write: tables and a report.")
]
ReplaceFolder = Annotated[bool, typer.Option("--force", help="Replace the folder that stands there.")]
