"""`circuit weights low-rank`: how few dimensions of a head's queries, keys and values a task needs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.guard import guarded
from cli.options import Device, Dtype, ModelName, ReplaceFolder, TablesFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from circuits.models.bridge import BridgeModel
    from circuits.weight_reading.low_rank import Ranks
    from cli.reading_output import Reading
    from cli.weights_prompts import Drawn

RECORD = "low-rank.json"
COLUMNS = ("head", "part", "loss at rank 0", "metric at rank 0", "rank for 95%", "recovered", "random")


@guarded
def low_rank(
    model: ModelName,
    task: Annotated[str, typer.Option("--task", "-t", help="The task whose loss is to be recovered.")],
    form: Annotated[str | None, typer.Option(help="Which form of the task.")] = None,
    head: Annotated[
        list[str] | None,
        typer.Option(
            "--head", help="A head; repeat for more. Those that matter most to the last token if none."
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many heads, where none is named.")] = 3,
    pairs: Annotated[int, typer.Option(min=8, help="Prompts; directions are found on the first half.")] = 128,
    seed: Annotated[int, typer.Option(min=0, help="Seeds prompts, random directions, intervals.")] = 0,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    output: TablesFolder = None,
    force: ReplaceFolder = False,
    json: Annotated[bool, typer.Option("--json", help="Print low-rank.json, and nothing else.")] = False,
) -> None:
    """The smallest rank of a head's queries, keys or values that recovers 95% of a task's loss, beside random ones.

    [bold]circuit weights low-rank plain-4l --task ioi[/bold]
    """
    import torch

    from circuits.interventions.intervention import require_heads
    from circuits.models.bridge import load_model
    from circuits.models.source import find_model
    from circuits.runs import check_output
    from cli.reading_output import put_out
    from cli.render import progress
    from cli.weights_prompts import batches_of
    from tasks import TASKS

    TASKS.require(task)
    source = find_model(model)
    if output:
        check_output(output, force, RECORD)
    loaded = load_model(source, device=device, dtype=dtype)
    if head:
        require_heads(loaded.graph, head)
    drawn = batches_of(loaded, task, form, pairs, seed, "The rank of a head")
    with torch.inference_mode(), progress(quiet=json) as say:
        found = list(_measured(loaded, drawn, head or [], top, seed, say))
    put_out(_reading(loaded, drawn, task, found, seed), output, force=force, json=json)


def _measured(
    model: BridgeModel, drawn: Drawn, heads: list[str], top: int, seed: int, say: Any
) -> Iterator[Ranks]:
    from circuits.weight_reading.heads import require_weights
    from circuits.weight_reading.low_rank import PARTS, fit_spaces, largest, measure_ranks

    weights, (fitting, judged) = require_weights(model, "The rank of a head"), drawn.halves
    nodes = [model.graph.node(name) for name in dict.fromkeys(heads or model.graph.heads)]
    wanted = [(node.name, node.layer, node.index) for node in nodes]
    if not heads:
        wanted = largest(weights, fitting, drawn.metric, wanted, top)
    for n, one in enumerate(wanted):
        spaces = fit_spaces(weights, fitting, *one[1:])
        for part in PARTS:
            yield measure_ranks(weights, judged, drawn.metric, one, spaces, part=part, seed=seed)
        say("ranks", n + 1, len(wanted))


def _reading(model: BridgeModel, drawn: Drawn, task: str, found: list[Ranks], seed: int) -> Reading:
    from cli.reading_output import Drawing, Reading, Table, model_record

    record = {
        "model": model_record(model),
        "seed": seed,
        "task": task,
        "form": drawn.form,
        "n_pairs": len(drawn.pairs),
        "ranks": found,
    }
    rows = tuple(_row(ranks) for ranks in found)
    curves = [
        {"head": r.head, "part": r.part, "rank": n, "loss": loss, "metric": metric, "random_loss": random}
        for r in found
        for n, (loss, metric, random) in enumerate(zip(r.loss, r.metric, r.random_loss, strict=True))
    ]
    title = f"Ranks that {task} needs in heads of {model.name}"
    return Reading(
        RECORD,
        title,
        record,
        tuple(_words(drawn, found)),
        (Table("", COLUMNS, rows, numeric=COLUMNS[2:], folding=COLUMNS[2:]),),
        {"ranks": curves},
        (Drawing("low-rank.png", "What each rank recovers of the loss", partial(_draw, found, title)),),
    )


def _draw(found: list[Ranks], title: str) -> Figure:
    from cli.report.ranks import ranks_figure

    return ranks_figure(found, title)


def _row(ranks: Ranks) -> tuple[str, ...]:
    from cli.wording import estimate, number

    full = len(ranks.loss) - 1
    return (
        ranks.head,
        ranks.part,
        f"{number(ranks.lost.value, 4):>7} [{number(ranks.lost.low, 4)}, {number(ranks.lost.high, 4)}]",
        number(-ranks.fallen.value),
        "" if ranks.enough is None else f"{ranks.enough} of {full}",
        "" if ranks.share is None else estimate(ranks.share),
        "" if ranks.random is None else str(ranks.random),
    )


def _words(drawn: Drawn, found: list[Ranks]) -> Iterator[str]:
    from circuits.weight_reading.low_rank import DRAWS

    judged = len(drawn.pairs) - len(drawn.pairs) // 2
    yield (
        f"Directions are principal ones of {len(drawn.pairs) // 2} prompts, judged on {judged} others. At rank 0 the "
        "last token's query (q), the keys (k) or values (v) that it sees, or all three, are their means: what that "
        "adds to the loss, -log p(answer), and to the metric. Rank for 95%: the smallest from which on all recover "
        f"so much of that loss, and what it recovers; random: the same for random directions, mean of {DRAWS}."
    )
    if empty := [f"{ranks.head} {ranks.part}" for ranks in found if ranks.enough is None]:
        yield f"Nothing to recover, for the loss is not clearly larger at rank 0: {', '.join(empty)}."
