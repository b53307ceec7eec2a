"""`circuit subspace`: which directions at one site carry a decision, and whether the model reads them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.guard import guarded
from cli.options import Device, Dtype, ModelName, ReplaceFolder

if TYPE_CHECKING:
    from circuits.models.bridge import BridgeModel
    from circuits.subspaces.study import Asked

PAIRS = 200
"""Half of them to learn on: as many as Makelov et al. took."""


@guarded
def subspace(
    model: ModelName,
    task: Annotated[
        str | None, typer.Option("--task", "-t", help="A task whose corruption flips the answer.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="Your own prompts instead of a task's, one JSON object a line.")
    ] = None,
    corrupt_prompts: Annotated[
        Path | None, typer.Option(help="Their twins, where both files are JSON lists of [prompt, label].")
    ] = None,
    form: Annotated[str | None, typer.Option(help="Which form of the task.")] = None,
    corruption: Annotated[str | None, typer.Option(help="Which corruption of the task.")] = None,
    at: Annotated[
        str | None,
        typer.Option(
            help="The site: KIND.LAYER/POSITION, such as resid_post.1/S2; the last token without a position. Kinds: "
            "resid_pre, resid_mid, resid_post, attn_out, mlp_post, mlp_out. --knob finds one if not given."
        ),
    ] = None,
    rank: Annotated[
        list[int] | None, typer.Option(help="Dimensions of the subspace; repeat for more. 1 if not given.")
    ] = None,
    reader: Annotated[
        list[str] | None,
        typer.Option(
            help="What reads a residual stream, such as a3.h1, a3.h1<k> or logits; repeat for more. Those that the "
            "site acts through if not given."
        ),
    ] = None,
    knob: Annotated[
        bool,
        typer.Option(
            "--knob",
            help="Also steer by the one direction: clean answers (memory) against the others (context).",
        ),
    ] = False,
    epochs: Annotated[int, typer.Option(min=1, help="How often learning goes through the prompts.")] = 30,
    pairs: Annotated[
        int | None,
        typer.Option(min=2, help="How many prompt pairs; 200 of a task, all of yours, if not given."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seeds prompts, halves, learning, intervals.")] = 0,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A folder to write: tables, directions, a report.")
    ] = None,
    force: ReplaceFolder = False,
    json: Annotated[bool, typer.Option("--json", help="Print subspace.json, and nothing else.")] = False,
) -> None:
    """Learn directions that carry a task's answer at one site, and test whether the model really reads them.

    [bold]circuit subspace plain-6l --task ioi --at resid_post.1/S2 --rank 1 --rank 16[/bold]

    [bold]circuit subspace plain-6l --task factual-recall --form counterfactual-context --knob[/bold]
    """
    from circuits.models.bridge import load_model
    from circuits.models.source import find_model
    from circuits.runs import check_output
    from circuits.subspaces.study import study
    from cli.prompt_source import draw_prompts, own_prompts, warn_of_words
    from cli.reading_output import put_out
    from cli.render import progress
    from cli.subspace_output import RECORD, Found, reading_of

    own = own_prompts(task, prompts, corrupt_prompts)
    source = find_model(model)
    if output:
        check_output(output, force, RECORD)
    with progress(quiet=json) as say:
        loaded = load_model(source, device=device, dtype=dtype)
        asked = _asked(loaded, at, rank or [1], reader or [], knob, epochs, seed)
        n = pairs or (PAIRS if own is None else None)
        drawn = draw_prompts(loaded, task, own, form=form, corruption=corruption, n=n, seed=seed)
        if own:
            warn_of_words(loaded, drawn.pairs)
        found = Found(study(loaded, drawn.pairs, asked, say), asked, loaded, drawn)
    put_out(reading_of(found), output, force=force, json=json)


def _asked(
    model: BridgeModel,
    at: str | None,
    ranks: list[int],
    readers: list[str],
    knob: bool,
    epochs: int,
    seed: int,
) -> Asked:
    """Raises CircuitError for a site that the model lacks, and for ranks that a knob has not."""
    from circuits.errors import CircuitError
    from circuits.subspaces.place import place_named
    from circuits.subspaces.readers import require_readers
    from circuits.subspaces.study import Asked
    from circuits.subspaces.training import Recipe

    unique = tuple(dict.fromkeys(ranks))
    if knob and unique != (1,):
        raise CircuitError(
            f"--knob turns one direction, so --rank {max(unique)} has no meaning. Leave --rank out."
        )
    if at is None and not knob:
        raise CircuitError(
            f"Say where with --at, such as resid_post.{max(0, model.graph.n_layers - 2)}/END; only --knob finds a "
            "site itself."
        )
    place = place_named(at, model.graph.n_layers) if at else None
    if place:
        require_readers(readers, place, model.graph)
    return Asked(place, unique, tuple(readers), knob, seed, Recipe(epochs))
