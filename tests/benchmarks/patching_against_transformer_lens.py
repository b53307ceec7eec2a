"""How much CPU our activation patching takes beside TransformerLens's own, in one process, turn by turn.

    python tests/benchmarks/patching_against_transformer_lens.py [MODEL] [PAIRS]

Both patch every head of the model, all positions, on the same prompts of one length; one thread, no gradients.
The median of the ratio is what to quote: seconds differ from machine to machine.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

from circuits.batches import Batch, make_batches
from circuits.methods import METHODS
from circuits.methods.method import Problem
from circuits.metrics import logit_difference
from circuits.models.bridge import load_model
from cli.prompt_source import sample_task
from tasks import TASKS

ROUNDS = 5


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU seconds of this process for one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main(name: str = "plain-4l", pairs: str = "32") -> None:
    """Prints both times of every round, and the median ratio."""
    from transformer_lens.model_bridge import TransformerBridge
    from transformer_lens.patching import get_act_patch_attn_head_out_all_pos

    model = load_model(name)
    torch.set_num_threads(1)
    drawn = sample_task(model, TASKS.load("ioi"), form=None, corruption=None, n=400, seed=0)
    batch: Batch = max(make_batches(model, drawn.pairs, batch_size=int(pairs)), key=len)
    bridge = TransformerBridge.boot_transformers(str(model.directory), device="cpu").eval()
    method = METHODS.load("activation-patching")

    def ours() -> None:
        method.score(model, Problem((batch,), logit_difference), method.configure({"components": "heads"}))

    def theirs() -> None:
        with torch.inference_mode():
            _, cache = bridge.run_with_cache(batch.corrupt)
            get_act_patch_attn_head_out_all_pos(
                bridge,
                batch.clean,
                cache,
                lambda logits: logit_difference(logits[:, -1], batch.answers, batch.distractors).mean(),
            )

    ours(), theirs()
    ratios = []
    for _ in range(ROUNDS):
        a, b = cpu_seconds(ours), cpu_seconds(theirs)
        ratios.append(b / a)
        print(f"ours {a:.2f} s, TransformerLens {b:.2f} s, ratio {b / a:.2f}")
    shape = f"{len(batch)} prompts of {batch.clean.shape[1]} tokens, {len(model.graph.heads)} heads"
    print(f"median ratio {statistics.median(ratios):.2f} ({shape})")


if __name__ == "__main__":
    main(*sys.argv[1:])
