"""`circuit weights observables`: which heads and MLPs turn what into an observable, such as she minus he."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.guard import guarded
from cli.options import Device, Dtype, ModelName, ReplaceFolder, TablesFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from circuits.batches import Batch
    from circuits.models.bridge import BridgeModel
    from circuits.statistics import Correlation
    from circuits.weight_reading.observables import Coupling, Observable, Reader
    from circuits.weight_reading.observables import Path as Route
    from circuits.weight_reading.observed import Bent, Coupled
    from cli.reading_output import Reading, Table

RECORD = "observables.json"
PAIRS = 64
TOKENS = 5
"""Tokens to show that a feature vector raises most, and lowers most."""


@dataclass(frozen=True)
class Found:
    """What was read. first: the observable whose tokens are shown; n: how many there are.

    couplings: head -> that of the first two observables, and what prompts say of it, where there are prompts.
    attribution: rank correlation of norms with sizes of logit attribution, where a task is what is observed.
    """

    first: str
    n: int
    routes: tuple[Route, ...]
    tokens: dict[tuple[str, ...], tuple[list[str], list[str]]]
    second: str = ""
    couplings: dict[str, tuple[Coupling, Coupled | None]] = field(default_factory=dict)
    mlps: tuple[Bent, ...] = ()
    attribution: Correlation | None = None


@guarded
def observables(
    model: ModelName,
    observable: Annotated[
        list[str] | None,
        typer.Option(
            "--observable",
            help="Words for and against, as in she/he or four,five/two,three; a second one is coupled to the first.",
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option("--task", "-t", help="Answers against distractors of its prompts; on these, checks."),
    ] = None,
    form: Annotated[str | None, typer.Option(help="Which form of the task.")] = None,
    length: Annotated[int, typer.Option(min=1, max=4, help="Paths of up to so many heads.")] = 1,
    top: Annotated[
        int, typer.Option(min=1, help="How many paths of each length to show and to go on from.")
    ] = 8,
    pairs: Annotated[int, typer.Option(min=4, help="How many prompts of the task.")] = PAIRS,
    seed: Annotated[int, typer.Option(min=0, help="Seeds random observables and prompts.")] = 0,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    output: TablesFolder = None,
    force: ReplaceFolder = False,
    json: Annotated[bool, typer.Option("--json", help="Print observables.json, and nothing else.")] = False,
) -> None:
    """Observable propagation: the direction that each head and MLP turns into answer minus distractor, and checks.

    [bold]circuit weights observables plain-4l --task ioi[/bold]

    [bold]circuit weights observables gpt2 --observable she/he --observable her/him[/bold]
    """
    import torch

    from circuits.models.bridge import load_model
    from circuits.models.source import find_model
    from circuits.runs import check_output
    from circuits.weight_reading.observables import parse_observable
    from cli.reading_output import put_out
    from cli.weights_prompts import batches_of

    _require_asked(observable or [], task, form)
    source = find_model(model)
    if output:
        check_output(output, force, RECORD)
    loaded = load_model(source, device=device, dtype=dtype)
    given = [parse_observable(text, loaded) for text in observable or []]
    batches = batches_of(loaded, task, form, pairs, seed, "An observable").batches if task else ()
    with torch.inference_mode():
        found = _read(loaded, given, batches, length, top, seed)
    put_out(_reading(loaded, found, task, top, seed), output, force=force, json=json)


def _require_asked(observables: list[str], task: str | None, form: str | None) -> None:
    from circuits.errors import CircuitError
    from tasks import TASKS

    if not observables and task is None:
        raise CircuitError(
            "Say what to observe: --observable she/he, or --task with answers and distractors."
        )
    if len(observables) > 2:
        raise CircuitError(f"{len(observables)} observables are too many; give one, or two that are coupled.")
    if form and task is None:
        raise CircuitError(f"--form {form} is a form of a task: say which with --task.")
    if task is not None:
        TASKS.require(task)


def _read(
    model: BridgeModel,
    given: Sequence[Observable],
    batches: Sequence[Batch],
    length: int,
    top: int,
    seed: int,
) -> Found:
    from collections import Counter

    from circuits.roles.role import Evidence
    from circuits.weight_reading.heads import require_weights
    from circuits.weight_reading.observables import Reader, directions
    from circuits.weight_reading.observed import mlps, observables_of

    weights = require_weights(model, "Observable propagation")
    reader = Reader.of(weights, model.graph, Evidence(model, seed=seed).tokens.tolist(), seed)
    of_prompts = Counter(one for batch in batches for one in observables_of(batch))
    wanted = list(given[:1]) or [one for one, _ in of_prompts.most_common()]
    count = sum(of_prompts.values())
    n = directions(weights, given[:1] or list(of_prompts.elements()))
    first = directions(weights, wanted[:1])
    routes = reader.paths(n, length, top)
    shown = [route.heads for size in range(1, length + 1) for route in _of_length(routes, size)[:top]]
    coupled = _coupled(reader, batches, given, [heads[0] for heads in shown if len(heads) == 1])
    return Found(
        wanted[0].spelled(model),
        1 if given else count,
        routes,
        {heads: _tokens(model, reader, heads, first) for heads in shown},
        given[1].spelled(model) if len(given) > 1 else "",
        coupled,
        mlps(weights, batches) if batches else (),
        _against_attribution(model, batches, routes) if batches and not given else None,
    )


def _of_length(routes: Sequence[Route], n: int) -> list[Route]:
    return [route for route in routes if len(route.heads) == n]


def _tokens(
    model: BridgeModel, reader: Reader, heads: tuple[str, ...], n: Any
) -> tuple[list[str], list[str]]:
    raised = reader.raises(reader.follow(heads, n)[0]).argsort(descending=True).tolist()
    spelled = [model.token_string(token).strip() for token in (*raised[:TOKENS], *raised[: -TOKENS - 1 : -1])]
    return spelled[:TOKENS], spelled[TOKENS:]


def _coupled(
    reader: Reader, batches: Sequence[Batch], given: Sequence[Observable], heads: Sequence[str]
) -> dict[str, tuple[Coupling, Coupled | None]]:
    from circuits.weight_reading.observables import coupling, directions
    from circuits.weight_reading.observed import couplings

    if len(given) < 2:
        return {}
    two = directions(reader.weights, given)
    measured = couplings(reader, batches, heads, two) if batches else {}
    return {head: (coupling(reader, head, two), measured.get(head)) for head in heads}


def _against_attribution(
    model: BridgeModel, batches: Sequence[Batch], routes: Sequence[Route]
) -> Correlation | None:
    """Do heads of long feature vectors write much onto the prompts' logit difference?"""
    import torch

    from circuits.methods.logit_attribution import attribute
    from circuits.statistics import rank_correlation

    heads = {route.heads[0]: route.norm for route in _of_length(routes, 1)}
    columns = [model.graph.components.index(head) for head in heads]
    wrote = torch.cat([attribute(model, batch, batch.clean)[:, columns] for batch in batches])
    return rank_correlation(torch.tensor(list(heads.values())).numpy(), wrote.abs().mean(0).cpu().numpy())


def _reading(model: BridgeModel, found: Found, task: str | None, top: int, seed: int) -> Reading:
    from cli.reading_output import Drawing, Reading, model_record

    about = f"{found.first}" if found.n == 1 else f"{found.n} observables of {task}, such as {found.first}"
    record = {
        "model": model_record(model),
        "seed": seed,
        "observable": found.first,
        "n_observables": found.n,
        "task": task,
        "paths": [_path(route) for size in range(1, 5) for route in _of_length(found.routes, size)[:top]],
        "tokens": [
            {"heads": heads, "raised": up, "lowered": down} for heads, (up, down) in found.tokens.items()
        ],
        "second": found.second or None,
        "couplings": {
            head: {
                "weights": one._asdict(),
                "prompts": seen and {**seen._asdict(), "own": seen.own._asdict()},
            }
            for head, (one, seen) in found.couplings.items()
        },
        "mlps": [{**bent._asdict(), "own": bent.own._asdict()} for bent in found.mlps],
        "norms_and_logit_attribution": found.attribution,
    }
    tables = {"paths": [_path(route) | {"heads": " ".join(route.heads)} for route in found.routes]}
    if found.mlps:
        tables["mlps"] = [{**bent._asdict(), **bent.own._asdict()} for bent in found.mlps]
        for row in tables["mlps"]:
            row.pop("own")
    title = f"What becomes {about} in {model.name}"
    shown = [route for size in range(1, 5) for route in _of_length(found.routes, size)[:top]]
    drawing = Drawing("observables.png", "Norms of paths, beside chance", partial(_draw, shown, title))
    shown_tables = tuple(_shown(found, about, top))
    return Reading(RECORD, title, record, tuple(_words(found)), shown_tables, tables, (drawing,))


def _draw(routes: Sequence[Route], title: str) -> Figure:
    from cli.report.readings import observables_picture

    return observables_picture(routes, title)


def _path(route: Route) -> dict[str, Any]:
    return {"heads": route.heads, "norm": route.norm, "chance": route.chance, "chance_reaches": route.reached}


def _shown(found: Found, about: str, top: int) -> Iterator[Table]:
    from cli.reading_output import Table
    from cli.wording import number

    rows = []
    for size in range(1, 5):
        for route in _of_length(found.routes, size)[:top]:
            up, down = found.tokens[route.heads]
            figures = (number(route.norm, 3), number(route.chance, 3), number(route.reached))
            rows.append((" ".join(route.heads), *figures, " ".join(up), " ".join(down)))
    columns = ("heads", "norm", "chance", "as large", f"raises {found.first}", "lowers it")
    numeric = ("norm", "chance", "as large")
    yield Table(f"Paths to {about}", columns, rows, numeric=numeric, folding=columns[-2:])
    if found.couplings:
        yield _coupling_table(found)
    if found.mlps:
        columns = ("MLP", "boundary found", "mean change", "slope", "r²", "r² shuffled")
        bends = [
            (
                f"m{bent.layer}",
                f"{bent.boundaries} of {bent.prompts}",
                *(number(x) for x in (bent.change, *bent.own, bent.shuffled)),
            )
            for bent in found.mlps
        ]
        title = "MLPs: change foretold by feature vectors"
        yield Table(title, columns, bends, numeric=columns[1:], folding=())


def _coupling_table(found: Found) -> Table:
    from cli.reading_output import Table
    from cli.wording import number

    columns = ("head", "C", "cosine", "by chance", "slope", "r²", "r² by chance")
    rows = []
    for head, (one, seen) in found.couplings.items():
        checked = ("", "", "") if seen is None else tuple(map(number, (*seen.own, seen.random)))
        rows.append((head, *(number(x) for x in one), *checked))
    title = f"Coupling of {found.first} with {found.second}"
    return Table(title, columns, rows, numeric=columns[1:], folding=())


def _words(found: Found) -> Iterator[str]:
    from circuits.weight_reading.observables import DRAWS
    from cli.wording import number, p_value

    yield (
        f"Norm: of the direction that the heads turn into it, mean over {found.n}. Chance: mean norm of {DRAWS} "
        "random contrasts of two tokens, as long at the logits; as large: the share of those that reach the norm. "
        "Raises, lowers: tokens whose bare embedding does so most, if the first head looks at them."
    )
    if found.attribution:
        found_ = found.attribution
        yield (
            "Norms of heads against sizes of what they write onto the logit difference of the prompts: Spearman "
            f"{number(found_.rho)} (p {p_value(found_.p_value)}). Norms know nothing of where heads look."
        )
    if found.mlps:
        yield (
            "MLPs: how each prompt's observable changes in the MLP's output from corrupt to clean, regressed on what "
            "the gradient at the boundary foretells; shuffled: with the gradients of other prompts."
        )
    if found.couplings:
        yield (
            "C: what the second observable grows by per unit of the first, by the weights. By chance: mean size of "
            "the cosine with random contrasts. Slope, r²: over tokens of the prompts; by chance: random contrasts."
        )
