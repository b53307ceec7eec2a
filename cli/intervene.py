"""`circuit intervene`: what becomes of a model's answers when something is done to named heads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.guard import guarded
from cli.options import Device
from cli.run_source import folder_beside, known_tasks, methods_of, model_of, prompt_sets

if TYPE_CHECKING:
    from circuits.evaluation.run_evaluation import PromptSet
    from circuits.graph import Graph
    from circuits.interventions.run_intervention import Circuitry, Treatment
    from circuits.models.bridge import BridgeModel
    from circuits.progress import Progress
    from circuits.runs import RunFolder
    from cli.intervention_output import Done

RECORD = "intervention.json"
"""By which an intervention's folder is known."""


@guarded
def intervene(
    run: Annotated[Path, typer.Argument(help="A run folder, as `circuit discover` makes them.")],
    knock_out: Annotated[bool, typer.Option("--knock-out", help="Heads put out nothing.")] = False,
    mean: Annotated[bool, typer.Option("--mean", help="Heads put out their mean over prompts.")] = False,
    scale: Annotated[
        list[float] | None,
        typer.Option(
            help="Heads' value vectors times this; repeat for a sweep, one of which is chosen on other prompts."
        ),
    ] = None,
    channel: Annotated[
        list[str] | None,
        typer.Option(
            help="A singular component of what a head writes, such as a1.h4:0, is cut, or times --scale; repeat for "
            "more. `circuit weights composition` lists them."
        ),
    ] = None,
    attend: Annotated[
        list[str] | None,
        typer.Option(
            help="The last token's attention goes here alone: a position that prompts name; repeat for more."
        ),
    ] = None,
    interpolate: Annotated[
        float | None,
        typer.Option(help="This share of heads' attention goes to each token's own position: 0 to 1."),
    ] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Attention sinks give 60% of theirs to all other positions.")
    ] = False,
    choose: Annotated[
        bool,
        typer.Option(
            "--choose",
            help="With --calibrate: of all heads, or those of --head, the ones that raise the answer's probability "
            "one at a time, on other prompts.",
        ),
    ] = False,
    offsets: Annotated[
        bool,
        typer.Option("--offsets", help="Learn a vector for each head, on other prompts, and add it."),
    ] = False,
    repair: Annotated[
        Path | None,
        typer.Option(
            metavar="GOOD_RUN",
            help="Give RUN's task what heads do on GOOD_RUN's, a task that the same model does well: heads that "
            "GOOD_RUN's circuit has and RUN's lacks, and that look at what is wrong, are told to do so here.",
        ),
    ] = None,
    onto: Annotated[
        list[str] | None,
        typer.Option(
            help="With --repair: the wrong positions of RUN's prompts; those called WRONG... or holding a distractor "
            "if not given."
        ),
    ] = None,
    head: Annotated[
        list[str] | None,
        typer.Option("--head", help="A head, such as a9.h6; repeat for more. The circuit's if not given."),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option("--method", "-m", help="Whose circuit and scores; the run's first if not given."),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option("--task", "-t", help="Another task to try it on as well; repeat for more."),
    ] = None,
    form: Annotated[str | None, typer.Option(help="Which form of --task.")] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="Your own prompts instead of the run's, one JSON object a line.")
    ] = None,
    toward: Annotated[
        Literal["answer", "distractor"],
        typer.Option(help="What a sweep shall make the model say: by this the factor is chosen."),
    ] = "answer",
    model: Annotated[
        str | None, typer.Option(help="The model; the one that the run names if not given.")
    ] = None,
    pairs: Annotated[
        int | None, typer.Option(min=2, help="The first N judged prompts; all if not given.")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Seeds controls, intervals, other tasks; the run's if not given."),
    ] = None,
    device: Device = "cpu",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The folder to write; RUN-intervention if not given."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the intervention that stands there.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print intervention.json, and nothing else.")] = False,
) -> None:
    """Knock out, mean-ablate, scale, redirect or offset heads, cut channels: what is answered then, by chance, after.

    [bold]circuit intervene runs/ioi-plain-4l --knock-out --head a1.h7[/bold]

    [bold]circuit intervene runs/bad --repair runs/good[/bold]
    """
    from circuits.interventions.run_intervention import Asked
    from circuits.interventions.run_intervention import intervene as on_prompts
    from circuits.runs import read_run
    from cli.intervention_output import Done, show, write
    from cli.render import progress

    asked_for = {
        "knock-out": knock_out,
        "mean": mean,
        "scale": scale,
        "attend": attend,
        "interpolate": None if interpolate is None else [interpolate],
        "calibrate": calibrate,
        "offsets": offsets,
        "channel": None,  # see _channels
        "repair": repair,
    }
    others = any(value for kind, value in asked_for.items() if kind != "scale")
    treatment = (
        _channels(channel, scale or [], head or [], others)
        if channel
        else _treatment(asked_for, onto or [], head or [])
    )
    treatment = _choosing(treatment, choose)
    _require_one_source(task or [], form, prompts, repair)
    held, good = read_run(run), read_run(repair) if repair else None
    folder = folder_beside(run, output, force, "intervention", RECORD)
    tasks = known_tasks(task or [])
    chosen = methods_of(held, [method] if method else None)[0]
    seeded = seed if seed is not None else int((held.run.get("config") or {}).get("seed", 0))
    with progress(quiet=json) as say:
        loaded, _ = model_of(held, model, device, None, None, say)
        if good:
            done = repaired(held, good, method, loaded, treatment, seeded, say, pairs)
        else:
            circuit = circuitry(held, chosen, loaded.graph)
            asked = Asked(circuit, seeded, toward=toward)
            treatment = _with_heads(treatment, circuit, chosen, loaded.graph.heads)
            sets = _prompts(held, loaded, tasks, form, prompts, pairs, seeded)
            results = tuple(on_prompts(loaded, treatment, some, asked, say) for some in sets)
            done = Done(held, None, loaded, treatment, chosen, asked, results)
    record = write(folder, done, force=force)
    if json:
        from circuits.records import json_text

        print(json_text(record), end="")
        return
    show(done, folder)


def _treatment(asked: Mapping[str, Any], onto: list[str], heads: list[str]) -> Treatment:
    """The one thing that is asked for. Raises CircuitError where there is none, or several."""
    import math

    from circuits.errors import CircuitError
    from circuits.interventions.run_intervention import Treatment

    kinds = [kind for kind, value in asked.items() if value]
    if len(kinds) != 1:
        given = f"; {' and '.join(f'--{kind}' for kind in kinds)} cannot go together" if kinds else ""
        *most, last = (f"--{kind}" for kind in asked)
        raise CircuitError(f"Say one thing to do: {', '.join(most)} or {last}{given}.")
    (kind,) = kinds
    if kind == "repair" and heads:
        raise CircuitError("--repair finds the heads itself: leave --head out, or use --attend.")
    if onto and kind != "repair":
        raise CircuitError("--onto belongs to --repair. To tell heads where to attend, use --attend.")
    factors = tuple(asked[kind]) if kind in ("scale", "interpolate") else ()
    if bad := [factor for factor in factors if not math.isfinite(factor)]:
        raise CircuitError(f"--{kind} {bad[0]} is no factor. Give a finite number.")
    if kind == "interpolate" and not 0 <= factors[0] <= 1:
        raise CircuitError(f"--interpolate {factors[0]:g} is no share. Give a number from 0 to 1.")
    places = tuple(dict.fromkeys(asked["attend"] or onto))
    return Treatment(kind, tuple(dict.fromkeys(heads)), tuple(sorted(set(factors))), places)  # type: ignore[arg-type]


def _channels(names: list[str], scale: list[float], heads: list[str], more: bool) -> Treatment:
    """Channels to cut or scale. Raises CircuitError where something else is asked for as well."""
    import math

    from circuits.errors import CircuitError
    from circuits.interventions.run_intervention import Treatment

    if more or heads:
        raise CircuitError(
            "--channel names its heads itself and goes with --scale alone: leave the rest out."
        )
    if len(scale) > 1 or not all(map(math.isfinite, scale)):
        given = ", ".join(f"{factor:g}" for factor in scale)
        raise CircuitError(f"--channel takes one finite --scale, or none to cut it; got {given}.")
    owners = tuple(dict.fromkeys(name.partition(":")[0] for name in names))
    return Treatment("channel", owners, tuple(scale), channels=tuple(dict.fromkeys(names)))


def _require_one_source(
    tasks: list[str], form: str | None, prompts: Path | None, repair: Path | None
) -> None:
    from circuits.errors import CircuitError

    if form and not tasks:
        raise CircuitError(f"--form {form} is a form of a task: say which with --task.")
    if repair and (tasks or prompts):
        raise CircuitError("--repair works on the prompts of its two runs: leave --task and --prompts out.")
    if tasks and prompts:
        raise CircuitError("Give either --task or --prompts FILE, not both.")


def circuitry(run: RunFolder, method: str, graph: Graph) -> Circuitry:
    """What the run says of heads by `method`. Raises CircuitError where the model lacks what the circuit names."""
    from circuits.evaluation.recorded import node_scores, recorded
    from circuits.interventions.run_intervention import Circuitry

    entry = recorded(run, method, graph)
    scores = node_scores(run, method, graph)
    by_head = {} if scores is None else dict(zip(scores.components, scores.values.tolist(), strict=True))
    heads = set(graph.heads)
    return Circuitry(entry.circuit.heads, {name: value for name, value in by_head.items() if name in heads})


def _choosing(treatment: Treatment, choose: bool) -> Treatment:
    from dataclasses import replace

    from circuits.errors import CircuitError

    if choose and treatment.kind != "calibrate":
        raise CircuitError(f"--choose belongs to --calibrate, and not to --{treatment.kind}. Leave it out.")
    return replace(treatment, choose=choose)


def _with_heads(treatment: Treatment, circuit: Circuitry, method: str, every: tuple[str, ...]) -> Treatment:
    """With the circuit's heads where none are named; to choose from, with every head."""
    from dataclasses import replace

    from circuits.errors import CircuitError

    if treatment.choose:
        return replace(treatment, heads=treatment.heads or every)
    if not (treatment.heads or circuit.heads):
        raise CircuitError(f"The circuit of {method} holds no head. Name one with --head.")
    return replace(treatment, heads=treatment.heads or circuit.heads)


def _prompts(
    run: RunFolder,
    model: BridgeModel,
    tasks: tuple[str, ...],
    form: str | None,
    prompts: Path | None,
    pairs: int | None,
    seed: int,
) -> list[PromptSet]:
    from circuits.evaluation.run_evaluation import PromptSet
    from cli.prompt_source import draw_prompts, own_prompts, warn_of_words

    if prompts is None:
        own, others = prompt_sets(run, model, tasks, pairs, seed, form)
        return [own, *others]
    mine = draw_prompts(
        model, None, own_prompts(None, prompts), form=None, corruption=None, n=pairs, seed=seed
    )
    some = mine.pairs
    warn_of_words(model, some)
    names = tuple(f"{prompts}, pair {i + 1}" for i in range(len(some)))
    return [PromptSet(mine.name, some, names, mine.metric, f"prompts of {prompts.name}")]


def repaired(
    run: RunFolder,
    good: RunFolder,
    method: str | None,
    model: BridgeModel,
    treatment: Treatment,
    seed: int,
    say: Progress,
    pairs: int | None = None,
) -> Done:
    """Raises CircuitError where the runs are not of one model, or hold no prompts."""
    from circuits.errors import RunFolderError
    from circuits.evaluation.run_evaluation import own_prompts, prompts_of
    from circuits.interventions.run_intervention import Asked, repair_run
    from cli.intervention_output import Done

    bad, shown = own_prompts(run, pairs), own_prompts(good, None)
    for held, found in ((run, bad), (good, shown)):
        if found is None or not prompts_of(held, "discovery"):
            raise RunFolderError(
                f"{held.path} holds no prompts of both halves, which --repair needs. Make it with `circuit discover`."
            )
    assert bad is not None
    assert shown is not None
    hashes = [(held.run.get("model") or {}).get("weights_sha256") for held in (run, good)]
    if hashes[0] != hashes[1]:
        raise RunFolderError(f"{run.path} and {good.path} are runs of different models; --repair needs one.")
    mine, theirs = (methods_of(held, [method] if method else None)[0] for held in (run, good))
    asked = Asked(circuitry(run, mine, model.graph), seed)
    known = circuitry(good, theirs, model.graph)
    result = repair_run(model, known, shown, treatment.onto, bad, asked, say)
    return Done(run, good, model, treatment, mine, asked, (result,))
