"""`circuit weights composition`: which heads write what which later heads read, by the weights alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.guard import guarded
from cli.options import Device, Dtype, ModelName, ReplaceFolder, TablesFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from circuits.models.bridge import BridgeModel
    from circuits.weight_reading.composition import Composition, Link
    from cli.reading_output import Reading

RECORD = "composition.json"
COLUMNS = ("channel", "read by", "score", "chance", "peers", "z", "whole", "share", "alone")
NUMERIC = ("score", "chance", "peers", "z", "whole", "share")


@guarded
def composition(
    model: ModelName,
    head: Annotated[
        list[str] | None, typer.Option("--head", help="Links from or to this head alone; repeat for more.")
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option("--input", help="q, k or v of the later head; repeat for more."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many links to show, highest score first.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Seeds the random heads that give the chance level.")] = 0,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    output: TablesFolder = None,
    force: ReplaceFolder = False,
    json: Annotated[bool, typer.Option("--json", help="Print composition.json, and nothing else.")] = False,
) -> None:
    """Composition scores of every pair of heads (q, k, v), whole and by singular component, beside random heads.

    [bold]circuit weights composition plain-4l[/bold]
    """
    from circuits.interventions.intervention import require_heads
    from circuits.models.bridge import load_model
    from circuits.models.source import find_model
    from circuits.runs import check_output
    from circuits.weight_reading.composition import composition as read
    from circuits.weight_reading.heads import require_weights
    from cli.reading_output import put_out

    _require_inputs(by or [])
    source = find_model(model)
    if output:
        check_output(output, force, RECORD)
    loaded = load_model(source, device=device, dtype=dtype)
    if head:
        require_heads(loaded.graph, head)
    found = read(require_weights(loaded, "A composition score"), loaded.graph, seed)
    links = list(found.links(head or (), by or ()))
    put_out(_reading(loaded, found, links, top, seed), output, force=force, json=json)


def _require_inputs(names: list[str]) -> None:
    from circuits.errors import UnknownNameError
    from circuits.weight_reading.composition import MODES

    for name in names:
        if name not in MODES:
            raise UnknownNameError("input of a head", name, MODES)


def _reading(model: BridgeModel, found: Composition, links: list[Link], top: int, seed: int) -> Reading:
    from circuits.weight_reading.composition import MODES
    from cli.reading_output import Drawing, Reading, Table, model_record

    chance = found.chance
    rows = tuple(_row(link, chance.best_max) for link in links[:top])
    record = {
        "model": model_record(model),
        "seed": seed,
        "inputs": found.modes,
        "inputs_left_out": [mode for mode in MODES if mode not in found.modes],
        "chance": chance,
        "peers": [
            {"input": mode, "layers_apart": apart, "mean_of_best_components": value}
            for (mode, apart), value in found.peers().items()
        ],
        "links": links[:top],
    }
    return Reading(
        RECORD,
        f"Composition of heads of {model.name}",
        record,
        tuple(_words(model, found, links)),
        (Table("Strongest links", COLUMNS, rows, numeric=NUMERIC, folding=()),),
        {"pairs": [vars(link) for link in links], "components": list(_components(found))},
        (
            Drawing(
                "composition.png",
                "Scores of every pair of heads, white at chance",
                partial(_draw, found, model),
            ),
        ),
    )


def _draw(found: Composition, model: BridgeModel) -> Figure:
    from cli.report.readings import composition_picture

    return composition_picture(found, f"Composition of heads of {model.name}")


def _row(link: Link, chance: float) -> tuple[str, ...]:
    from cli.wording import number

    return (
        f"{link.source}:{link.component}",
        f"{link.target}<{link.mode}>",
        number(link.score, 3),
        number(chance, 3),
        number(link.peers, 3),
        number(link.z, 1),
        number(link.whole, 3),
        number(link.share, 3),
        "no" if link.near else "yes",
    )


def _words(model: BridgeModel, found: Composition, links: list[Link]) -> Iterator[str]:
    from cli.wording import number

    chance = found.chance
    above = sum(link.score > chance.best_max for link in links)
    whole = sum(link.whole > chance.whole_max for link in links)
    yield (
        f"Chance: in {chance.n_pairs} pairs of Gaussian heads of this shape the best component scores "
        f"{number(chance.best_mean, 3)} on average and {number(chance.best_max, 3)} at most, whole heads "
        f"{number(chance.whole_mean, 3)} and {number(chance.whole_max, 3)}. Of {len(links)} links {above} are above "
        f"that most by their best component, {whole} as whole heads."
    )
    yield (
        "Peers: mean best component of pairs as many layers apart. z: the component against the head's others. "
        "Whole: the score of the whole head. Share: of the head's squared singular values. Alone: whether no other "
        "singular value is within 1% of its own; where one is, the direction is arbitrary, and only the whole head's "
        "score says something."
    )
    if left := [mode for mode in ("q", "k", "v") if mode not in found.modes]:
        yield (
            f"{' and '.join(left)} are left out: {model.name} rotates or normalises its queries and keys, so no "
            "fixed matrix says what they read."
        )
    yield "Weights alone: no task, no sign. `circuit intervene RUN --channel HEAD:COMPONENT` tries a link out."


def _components(found: Composition) -> Iterator[Mapping[str, Any]]:
    """The components that score above all random ones."""
    import numpy as np

    for s, i, t, m in np.argwhere(np.nan_to_num(found.parts) > found.chance.best_max):
        yield {
            "source": found.heads[s],
            "component": int(i),
            "target": found.heads[t],
            "mode": found.modes[m],
            "score": float(found.parts[s, i, t, m]),
            "singular_value": float(found.sizes[s, i]),
        }
