"""Peak memory above the loaded model, of exact patching of every head and of EAP: one fresh process for each line.

    python tests/benchmarks/peak_memory.py [--memory 400MiB]

64 prompts of 16 tokens at the shape of GPT-2 small. "above the model" is what the process grew by after loading
and one small forward pass.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))


def one(directory: Path, first: int, memory: str) -> None:
    """The sweep itself; prints the growth in MiB and the prompts that were run at once."""
    import torch
    from benchmarks.shapes import Prompts

    from circuits.donors import all_but_one, resample_donor
    from circuits.engine.footprint import prompts_at_once
    from circuits.memory import parse_bytes, peak_bytes
    from circuits.metrics import logit_difference
    from circuits.models.bridge import load_model
    from circuits.patching import base_run
    from circuits.readout import Readout

    model = load_model(str(directory), memory=parse_bytes(memory))
    torch.set_num_threads(1)
    batch = Prompts(64, 16, first).batch(model.vocab_size)
    model.run(batch.clean[:2])
    before = peak_bytes(model.device) or 0
    at_once = min(len(batch), prompts_at_once(model, 16, first))
    for start in range(0, len(batch), at_once):
        some = batch.of_rows(range(len(batch))[start : start + at_once])
        run = base_run(model, some.clean, resample_donor(some.corrupt))
        for layer in range(model.graph.n_layers):
            heads = [f"a{layer}.h{head}" for head in range(model.graph.n_heads)]
            run.measure(all_but_one(model.graph, heads), Readout(some, logit_difference))
        del run
    grown = (peak_bytes(model.device) or 0) - before
    print(
        f"first difference at {first:2}, --memory {memory}: {grown / 2**20:.0f} MiB above the model, "
        f"{at_once} prompts at once"
    )


def edges(directory: Path, first: int, memory: str) -> None:
    """EAP of every edge; prints the growth in MiB."""
    import torch
    from benchmarks.shapes import Prompts

    from circuits.memory import parse_bytes, peak_bytes
    from circuits.methods import METHODS
    from circuits.methods.method import Problem
    from circuits.metrics import logit_difference
    from circuits.models.bridge import load_model

    model = load_model(str(directory), memory=parse_bytes(memory))
    torch.set_num_threads(1)
    batch, method = Prompts(64, 16, first).batch(model.vocab_size), METHODS.load("eap")
    model.run(batch.clean[:2])
    before = peak_bytes(model.device) or 0
    method.score(model, Problem((batch,), logit_difference), method.configure({}))
    grown = (peak_bytes(model.device) or 0) - before
    print(f"EAP, first difference at {first:2}, --memory {memory}: {grown / 2**20:.0f} MiB above the model")


def main() -> None:
    """Starts a process for each line."""
    from benchmarks.shapes import write_shape

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory", default="400MiB")
    parser.add_argument("--first", type=int)
    parser.add_argument("--edges", action="store_true")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "circuit-benchmarks")
    arguments = parser.parse_args()
    if arguments.first is not None:
        work = edges if arguments.edges else one
        work(arguments.folder / "gpt2-small-float32", arguments.first, arguments.memory)
        return
    write_shape("gpt2-small", arguments.folder)
    for first in (10, 1):
        for what in ([], ["--edges"]):
            subprocess.run([sys.executable, *sys.argv, "--first", str(first), *what], check=True)


if __name__ == "__main__":
    main()
