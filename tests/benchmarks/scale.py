"""What the four-task study costs at the shapes of real models, on paper: the tables of docs/scale.md.

    python tests/benchmarks/scale.py              # counted: the shapes, from 1B to 405B
    python tests/benchmarks/scale.py --measure    # the same count, `circuit plan` and the clock, on built-in models

The one idea: work is counted by the cost model of `circuit plan` (circuits.planning, circuits.engine.footprint),
which asks for shapes alone, so the matrices of the shapes exist by their sizes and hold nothing. Each task's prompts
are told by their mean length and mean first difference, PROMPTS of them, and multiplied up; --measure says how far
that is from the plan, and how far the plan is from the clock.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

from circuits.batches import Batch, TokenPair
from circuits.discovery import Plan
from circuits.engine.footprint import Footprint
from circuits.engine.weights import Affine, Layer, Norm, Weights
from circuits.graph import Graph
from circuits.head_vectors import passes
from circuits.methods import METHODS
from circuits.methods.method import Problem, Workload
from circuits.metrics import logit_difference
from circuits.model import Model
from circuits.planning import stages_of
from circuits.progress import silent
from circuits.work import Work

TASKS, SEEDS, PAIRS = ("ioi", "colored-objects", "factual-recall", "arithmetic"), 3, 240
CORE = ("activation-patching", "logit-attribution", "sae")
PROMPTS = 64
"""Prompts that are counted: as many as selection and random circuits ask about; other stages run on half of PAIRS."""
ONCE = ("selection", "random circuits", "rounding")

# NVIDIA's data sheet of the H100 SXM: dense bfloat16, HBM3, memory.
PEAK, BANDWIDTH, CARD = 989e12, 3.35e12, 80e9
SHARE = 0.4
"""Share of the peak that is assumed, not measured: what large products in bfloat16 usually reach."""
DISK, HASH = 5e9, 0.9e9
"""Bytes a second: assumed of a shared filesystem, for all its readers together; measured of one core's SHA-256."""
CHECKPOINTS = 1000
LARGEST = 100
"""Layers from which counting prefix by prefix takes hours; such a shape is scaled from the one before."""


def _embed_nothing(tokens: torch.Tensor) -> torch.Tensor:
    raise NotImplementedError("a shape on paper does not run")


@dataclass(frozen=True)
class Shape:
    """A Llama by its config."""

    name: str
    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int
    d_mlp: int
    vocab_size: int = 128256
    gated: bool = True
    dtype: torch.dtype = torch.bfloat16

    @cached_property
    def weights(self) -> Weights:
        d, d_head = self.d_model, self.d_head
        norm = Norm(self._empty(d), None, 1e-5, False)
        layer = Layer(
            norm,
            self._affine(d, self.n_heads * d_head),
            *(self._affine(d, self.n_kv_heads * d_head) for _ in "kv"),
            self._affine(self.n_heads * d_head, d),
            norm,
            self._affine(d, self.d_mlp),
            self._affine(self.d_mlp, d),
            torch.nn.functional.silu,
            1.0,
            gate=self._affine(d, self.d_mlp) if self.gated else None,
        )
        shape = (self.n_heads, self.n_kv_heads, d, d_head)
        unembed = self._affine(d, self.vocab_size)
        return Weights((layer,) * self.n_layers, *shape, False, 8192, _embed_nothing, None, norm, unembed)

    @property
    def d_head(self) -> int:
        return self.d_model // self.n_heads

    @property
    def n_bytes(self) -> int:
        layer = self.weights.layers[0]
        parts = (layer.query, layer.key, layer.value, layer.out, layer.mlp_in, layer.mlp_out, layer.gate)
        numbers = self.n_layers * sum(part.weight.numel() for part in parts if part)
        return (numbers + 2 * self.vocab_size * self.d_model) * self.dtype.itemsize

    def _affine(self, d_in: int, d_out: int) -> Affine:
        return Affine(self._empty(d_in, d_out))

    def _empty(self, *size: int) -> torch.Tensor:
        return torch.empty(*size, dtype=self.dtype, device="meta")


SHAPES = (
    Shape("1B", 16, 2048, 32, 8, 8192),
    Shape("8B", 32, 4096, 32, 8, 14336),
    Shape("70B", 80, 8192, 64, 8, 28672),
    Shape("405B", 126, 16384, 128, 8, 53248),
)
"""Llama 3.2 1B, and Llama 3.1 8B, 70B and 405B."""


class OnPaper(Model):
    """What planning asks of a model. memory: what work may take on top of the weights."""

    name, graph, device, dtype, d_model, weights, memory, path = ("",) * 8

    def __init__(self, shape: Shape, memory: int, device: str = "cuda") -> None:
        self.name, self.weights, self.memory = shape.name, shape.weights, memory
        self.graph = Graph(shape.n_layers, shape.n_heads, shape.n_kv_heads)
        self.d_model, self.dtype, self.device = shape.d_model, torch.float32, torch.device(device)


@dataclass(frozen=True)
class Ahead:
    """A task's prompts, on average: tokens, and the column from which clean and corrupt differ."""

    task: str
    length: int
    first: int

    def batch(self) -> Batch:
        clean = (1,) * self.length
        corrupt = clean[: self.first] + (2,) * (self.length - self.first - 1) + clean[:1]
        pair = TokenPair(clean, corrupt, (3,), (4,), {}, corrupt)
        tokens = (torch.tensor([side] * PROMPTS) for side in (clean, corrupt))
        return Batch(tuple(range(PROMPTS)), *tokens, (pair,) * PROMPTS)


def prompts_ahead() -> list[Ahead]:
    """Of the four tasks, as the built-in tokenizer reads them."""
    from circuits.batches import make_batches
    from circuits.models.bridge import load_model
    from cli.prompt_source import sample_task
    from tasks import TASKS as REGISTRY

    model, found = load_model("plain-6l"), []
    for task in TASKS:
        drawn = sample_task(model, REGISTRY.load(task), form=None, corruption=None, n=PAIRS, seed=0)
        pairs = [pair for batch in make_batches(model, drawn.pairs) for pair in batch.pairs]
        length, first = mean(len(p.clean) for p in pairs), mean(p.first_difference for p in pairs)
        found.append(Ahead(task, round(length), round(first)))
    return found


@dataclass(frozen=True)
class Count:
    """flops: of products in the model. training: of the autoencoders. bytes: the most at once beside the weights."""

    flops: float
    training: float = 0.0
    bytes: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(self.flops + other.flops, self.training + other.training, max(self.bytes, other.bytes))


def cell(model: Any, ahead: Ahead, method: str) -> Count:
    """One discovery."""
    batch = ahead.batch()
    problem, entry = Problem((batch,), logit_difference, 0), METHODS.load(method)
    options, training = entry.configure({}), 0.0
    if method == "sae":
        heads = model.graph.heads
        held = 4 * PAIRS * len(heads) * model.d_model
        workload = Workload(heads, passes(model, problem.batches) + Work(bytes=held))
        # As circuits.methods.sae counts it: three products forward and back, over examples and heads.
        rows = options.examples * len(heads)
        training = options.trials * options.epochs * 10 * rows * model.d_model * options.features
    else:
        workload = entry.work(model, problem, options)
    found = Count(0, training)
    for name, work in stages_of(model, problem, (batch,), Plan(((entry, options),)), (workload,)):
        times = 1 if name.endswith(ONCE) else PAIRS / 2 / PROMPTS
        found += Count(work.all_flops * times, 0, work.bytes)
    return found


def counted(shape: Shape, tasks: list[Ahead]) -> dict[tuple[str, str], Count]:
    """A cell of every method and task."""
    model = OnPaper(shape, int(room(shape)))
    return {(method, ahead.task): cell(model, ahead, method) for method in CORE for ahead in tasks}


def scaled(
    known: dict[tuple[str, str], Count], of: Shape, to: Shape, tasks: list[Ahead]
) -> dict[tuple[str, str], Count]:
    """The cells of a larger shape: as many more rows as it has components, each as much longer as its full pass."""
    found = {}
    for ahead in tasks:
        longer = full_pass(to, ahead) / full_pass(of, ahead) * n_components(to) / n_components(of)
        heads = to.n_layers * to.n_heads * to.d_model / (of.n_layers * of.n_heads * of.d_model)
        for method in CORE:
            count = known[method, ahead.task]
            found[method, ahead.task] = Count(count.flops * longer, count.training * heads)
    return found


def full_pass(shape: Shape, ahead: Ahead) -> int:
    return Footprint(shape.weights, 1, ahead.length, 0, resamples=False).base_flops


def n_components(shape: Shape) -> int:
    return shape.n_layers * (shape.n_heads + 1)


def on_paper() -> None:
    """Prints the tables."""
    tasks = prompts_ahead()
    told = (f"{a.task} {a.length} tokens, differing from token {a.first + 1} on" for a in tasks)
    print(f"prompts: {'; '.join(told)}\n")
    print(
        "| shape | weights | components | activation-patching | logit-attribution | sae | training | FLOP in all |"
    )
    print("| --- " * 8 + "|")
    flops, before = {}, None
    for shape in SHAPES:
        if shape.n_layers < LARGEST:
            cells = counted(shape, tasks)
            if before:
                guess = sum(c.flops for c in scaled(*before, shape, tasks).values())
                error = guess / sum(c.flops for c in cells.values())
            before = (cells, shape)
        else:
            cells = scaled(*before, shape, tasks)
        flops[shape] = show_cells(shape, cells)
    print(
        f"\nThe last row is scaled from the one before; so scaled, the one before would be {error:.2f} of its count."
    )
    show_cards(flops, tasks)
    show_sweep(flops)


def show_cells(shape: Shape, cells: dict[tuple[str, str], Count]) -> float:
    """A row; returns the FLOPs of the study."""
    by_method = [SEEDS * sum(c.flops for (name, _), c in cells.items() if name == method) for method in CORE]
    training = SEEDS * sum(c.training for c in cells.values())
    whole = sum(by_method) + training
    figures = " | ".join(f"{n:.2g}" for n in (*by_method, training))
    print(
        f"| {shape.name} | {shape.n_bytes / 1e9:,.1f} GB | {n_components(shape):,} | {figures} | **{whole:.2g}** |",
        flush=True,
    )
    return whole


def show_cards(flops: dict[Shape, float], tasks: list[Ahead]) -> None:
    """What holds it, and for how long."""
    print(
        "\n| shape | cards | hours of one card at work | card-hours | head vectors of sae | tokens in a product |"
    )
    print("| --- " * 6 + "|")
    for shape, whole in flops.items():
        hours = whole / (SHARE * PEAK) / 3600
        vectors = 4 * PAIRS * shape.n_layers * shape.n_heads * shape.d_model
        print(
            f"| {shape.name} | {cards_for(shape)} | {hours:,.2g} | {hours * cards_for(shape):,.2g} "
            f"| {vectors / 1e9:,.1f} GB | {tokens_at_once(shape, int(room(shape)), tasks):,} |"
        )
    print(f"\ntokens from which a product is bound by arithmetic, not by memory: {PEAK / BANDWIDTH:.0f}")


def show_sweep(flops: dict[Shape, float]) -> None:
    """The same for every checkpoint of a training."""
    print("\n| shape | FLOP | card-hours | weights, read once | hours to read | core-hours to hash |")
    print("| --- " * 6 + "|")
    for shape, whole in flops.items():
        hours, read = whole * CHECKPOINTS / (SHARE * PEAK) / 3600, CHECKPOINTS * shape.n_bytes
        print(
            f"| {shape.name} | {whole * CHECKPOINTS:.2g} | {hours * cards_for(shape):,.2g} | {read / 1e12:,.3g} TB "
            f"| {read / DISK / 3600:,.2g} | {read / HASH / 3600:,.2g} |"
        )


def cards_for(shape: Shape) -> int:
    """The fewest that hold the weights and as much as a quarter of a card beside them on each, a power of two."""
    cards = 1
    while shape.n_bytes > 0.75 * CARD * cards:
        cards *= 2
    return cards


def room(shape: Shape) -> float:
    """What is free on the card that works: layers are spread evenly."""
    return 0.9 * CARD - shape.n_bytes / cards_for(shape)


def tokens_at_once(shape: Shape, memory: int, tasks: list[Ahead]) -> int:
    """Rows x prompts x columns of one chunk of patched rows, the least over the tasks."""
    found = []
    for ahead in tasks:
        at = Footprint(shape.weights, PROMPTS, ahead.length, ahead.first)
        found.append(at.rows_at_once(at.n_columns, memory) * PROMPTS * at.n_columns)
    return min(found)


def measured() -> None:
    """Prints the count, the plan and the clock side by side, for cells of the built-in models."""
    tasks = {ahead.task: ahead for ahead in prompts_ahead()}
    compared("ioi", "plain-4l", CORE[1], tasks)  # the first one pays for imports
    print(
        "| cell | GFLOP by this count | by the plan | ratio | s by the plan | by the clock | ratio | files | kB |"
    )
    print("| --- " * 9 + "|")
    for model in ("plain-4l", "plain-6l"):
        for task, method in (("ioi", CORE[0]), ("arithmetic", CORE[0]), ("ioi", CORE[1]), ("ioi", CORE[2])):
            print(compared(task, model, method, tasks), flush=True)


def compared(task: str, name: str, method: str, tasks: dict[str, Ahead]) -> str:
    """A cell, as a row."""
    from circuits.calibration import Seconds
    from cli.discover import discovered, prepared
    from cli.plan import forecast
    from cli.study.cells import Cell

    with TemporaryDirectory() as place:
        folder = Path(place) / "run"
        options = Cell(task, name, method, 0, {"pairs": PAIRS}).discover_options() | {"output": folder}
        ready = prepared(options, silent)
        count = cell(_like(ready.model), tasks[task], method).flops
        ahead = forecast(ready, Seconds())
        start = time.perf_counter()
        discovered(ready, silent, lambda _: None)
        took = time.perf_counter() - start
        sizes = [file.stat().st_size for file in folder.rglob("*") if file.is_file()]
    told, seconds = ahead.work.all_flops, ahead.seconds.wall
    return (
        f"| {task}, {name}, {method} | {count / 1e9:,.3g} | {told / 1e9:,.3g} | {count / told:.2f} "
        f"| {seconds:.1f} | {took:.1f} | {seconds / took:.2f} | {len(sizes)} | {sum(sizes) / 1e3:.0f} |"
    )


def _like(model: Any) -> OnPaper:
    """The same shape, on paper."""
    weights = model.weights
    hidden = weights.layers[0].mlp_in.weight.shape[1]
    sizes = (model.graph.n_layers, model.d_model, weights.n_heads, weights.n_kv_heads, hidden)
    gated = weights.layers[0].gate is not None
    return OnPaper(Shape(model.name, *sizes, weights.vocab_size, gated, torch.float32), model.memory, "cpu")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", action="store_true")
    measured() if parser.parse_args().measure else on_paper()
