"""`circuit discover`: from a task, or the user's prompts, to a judged circuit in a run folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from cli.config import use_config
from cli.evaluate import RECORD, Place, Wanted, evaluated
from cli.guard import guarded
from cli.options import Dtype
from cli.run_source import Loader, folder_beside
from cli.task_files import TaskFile, named_task, short_name

if TYPE_CHECKING:
    from circuits.discovery import Discovery, Plan, Stand
    from circuits.evaluation.faithfulness import Baseline
    from circuits.methods.method import Method, Options
    from circuits.models.bridge import BridgeModel
    from circuits.progress import Progress
    from circuits.prompt_check import PromptCheck
    from circuits.selection import Selection
    from cli.evaluate import Done
    from cli.prompt_source import Prompts

MethodNames = Annotated[
    list[str] | None,
    typer.Option("--method", "-m", help="A method; repeat for more. All three core methods if not given."),
]
CORE_METHODS = ("activation-patching", "logit-attribution", "sae")


@guarded
def discover(
    task: Annotated[
        str | None, typer.Argument(help="A built-in task, such as ioi; see `circuit tasks`.")
    ] = None,
    model: Annotated[
        str,
        typer.Option(help="A built-in model, a Hugging Face directory, or a hub name.", show_default=True),
    ] = "plain-4l",
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="Your own prompts instead of a task, in any format of `circuit tasks import`.",
            dir_okay=False,
        ),
    ] = None,
    corrupt_prompts: Annotated[
        Path | None,
        typer.Option(
            help="The corrupted twins, where both files are JSON lists of [prompt, label].", dir_okay=False
        ),
    ] = None,
    corrupt_column: Annotated[
        str | None,
        typer.Option(help="Which corrupted twin, where the file has several, such as corrupted_hard."),
    ] = None,
    make_corrupt: Annotated[
        str | None,
        typer.Option(
            help="How twins are made that the file lacks: resample (a span from another prompt) or mean (none: mean "
            "ablation)."
        ),
    ] = None,
    task_file: TaskFile = None,
    method: MethodNames = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="METHOD.OPTION=VALUE; `circuit methods NAME` lists them."),
    ] = None,
    form: Annotated[
        str | None, typer.Option(help="Which form of the task, see `circuit tasks NAME`.")
    ] = None,
    corruption: Annotated[str | None, typer.Option(help="Which corruption of the task.")] = None,
    pairs: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Prompt pairs to draw, half to discover on; 500 or as many as the task has. Of your own, the first.",
        ),
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(
            min=2, help="Patch exactly on at most N prompts; a cheap guess on all of them fills in."
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(help="logit-difference, probability-difference or log-probability-difference."),
    ] = None,
    answers: Annotated[
        str | None,
        typer.Option(
            help="one-token (the default), first-token, or whole-string: the log-probability of all its tokens."
        ),
    ] = None,
    top: Annotated[int | None, typer.Option(min=1, help="Select the N largest scores.")] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Select scores of at least this share of the largest.")
    ] = None,
    significance: Annotated[
        float | None, typer.Option(min=0, max=1, help="Select by sign-flip permutation at this level.")
    ] = None,
    correction: Annotated[str, typer.Option(help="holm, bonferroni or benjamini-hochberg.")] = "holm",
    smallest: Annotated[
        float | None, typer.Option(min=0, help="Select the shortest prefix of the ranking this faithful.")
    ] = None,
    prune: Annotated[
        float | None,
        typer.Option(min=0, help="Prune from the weakest up while this faithful (the default, at 0.9)."),
    ] = None,
    verify: Annotated[
        int | None,
        typer.Option(
            min=1, help="Measure the N largest edges of each method that scores edges again, exactly."
        ),
    ] = None,
    missed: Annotated[
        int | None,
        typer.Option(
            min=40,
            help="Patch N random subsets of what each circuit leaves out, and bound the effect of any of it.",
        ),
    ] = None,
    min_accuracy: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Refuse unless the model prefers the answer on this share of the prompts."
        ),
    ] = None,
    keep_solved: Annotated[
        bool,
        typer.Option(
            "--keep-solved", help="Leave out prompts on which the model does not prefer the answer."
        ),
    ] = False,
    judge_on: Annotated[
        Literal["prompts", "templates"],
        typer.Option(help="What is new in the judged half: its prompts, or their templates too."),
    ] = "prompts",
    evaluate: Annotated[
        bool,
        typer.Option("--evaluate", help="Then judge as `circuit evaluate` does, into OUTPUT-evaluation."),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seeds prompts, halves, methods, and intervals.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Prompts in a batch; scores do not depend on it.")] = 64,
    device: Annotated[
        str,
        typer.Option(
            help="cpu, cuda, cuda:1, mps; auto: an accelerator if there is one, and several together for a model "
            "too large for one; balanced: several together in any case."
        ),
    ] = "cpu",
    dtype: Dtype = "float32",
    bos: Annotated[
        bool,
        typer.Option(
            "--bos/--no-bos", help="Whether prompts begin with the model's BOS token, if it has one."
        ),
    ] = True,
    memory: Annotated[
        str | None,
        typer.Option(
            help="What the work may take on top of the model, such as 4GB; by what is free if not given."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The run folder; runs/TASK-MODEL if not given.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the run folder that --output names.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print the summary as JSON, and nothing else.")
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option(
            help="YAML file of these options; what the command line says wins.",
            dir_okay=False,
            is_eager=True,
            callback=use_config,
        ),
    ] = None,
) -> None:
    """Find and judge the circuit that carries out a task.

    [bold]circuit discover ioi[/bold]

    [bold]circuit discover ioi --model gpt2 --method activation-patching --pairs 64 --output runs/ioi-gpt2[/bold]

    [bold]circuit discover --prompts mine.jsonl --model ./my-hf-model[/bold]

    [bold]circuit discover --task-file my_task.py --model gpt2[/bold]

    [bold]circuit discover --config configs/ioi.yaml[/bold]
    """
    options = locals()
    from cli.render import progress

    with progress(quiet=json) as show:
        ready = prepared(options, show)
        found = discovered(ready, show, lambda before: _state_baseline(ready, before, json), force=force)
        done = _evaluated(ready, Place(ready.evaluation, force), show) if ready.evaluation else None
    from cli.run_output import summary

    brief = summary(found, ready.drawn, ready.folder)
    _report(found, ready.folder, brief | ({"evaluation": done.record} if done else {}), json)
    if done and ready.evaluation and not json:
        done.show(ready.model.name, ready.evaluation)


def _evaluated(ready: Ready, place: Place, show: Progress) -> Done:
    """All that `circuit evaluate` asks of the run that was just written."""
    from circuits.runs import read_run

    wanted = Wanted(tuple(method.name for method, _ in ready.plan.methods))
    held = read_run(ready.folder)
    return evaluated(held, ready.model, wanted, place, show, batch_size=ready.plan.batch_size)


class Ready(NamedTuple):
    """A discovery that can begin. check: what the doctor says of its prompts. folder, evaluation: where its run
    goes, and what is asked of it then."""

    model: BridgeModel
    drawn: Prompts
    check: PromptCheck
    plan: Plan
    folder: Path
    evaluation: Path | None


def discovered(
    ready: Ready,
    show: Progress,
    on_baseline: Callable[[Baseline], None],
    *,
    force: bool = False,
    stand: Stand | None = None,
) -> Discovery:
    """Discovers, and writes the run folder.

    on_baseline: told first how the model does. stand: see circuits.discovery.
    """
    from circuits.discovery import discover as run_discovery
    from cli.run_output import write_run

    found = run_discovery(ready.model, ready.drawn.pairs, ready.plan, show, on_baseline, stand)
    write_run(ready.folder, found, ready.model, ready.drawn, force=force)
    return found


def prepared(options: Mapping[str, Any], show: Progress, load: Loader | None = None) -> Ready:
    """What the options of `circuit discover` ask for: all checked, the model loaded, the prompts drawn.

    load: what loads a model; None: anew each time.
    """
    from circuits.memory import parse_bytes
    from circuits.models.source import find_model
    from cli.answers import methods_for, metric_for, scored, scoring_named, whole
    from cli.own_prompts import ablations, under_mean
    from cli.prompt_source import draw_prompts, own_prompts
    from cli.screening import checked, screened

    options = {**options, "task": named_task(options["task"], options["task_file"])}
    rules = ("top", "threshold", "significance", "correction", "smallest", "prune")
    selection = _selection(**{name: options[name] for name in rules})
    memory = None if options["memory"] is None else parse_bytes(options["memory"])
    files = ("prompts", "corrupt_prompts", "corrupt_column", "make_corrupt")
    own = own_prompts(options["task"], *(options[name] for name in files))
    settings = [*(options["set_"] or []), *_budget(options["budget"], options["method"])]
    scoring = scoring_named(options["answers"])
    own = scored(own, scoring)
    strings = whole(scoring, own)
    metric = metric_for(strings, options["metric"])
    names = methods_for(strings, options["method"], CORE_METHODS)
    if own and own.make_corrupt == "mean":
        names, settings = under_mean(options["method"], names, settings)
    methods = _configured(names, settings)
    source = find_model(options["model"])
    folder = _output(
        options["output"],
        options["force"],
        f"{own.name if own else short_name(options['task'])}-{source.name}",
    )
    evaluation = (
        folder_beside(folder, None, options["force"], "evaluation", RECORD) if options["evaluate"] else None
    )

    from circuits.discovery import Plan
    from circuits.models.bridge import load_model

    show("loading the model", 0, 1)
    where = {name: options[name] for name in ("device", "dtype")}
    model = (load or load_model)(source, **where, prepend_bos=options["bos"], memory=memory)
    show("loading the model", 1, 1)
    kind = {name: options[name] for name in ("form", "corruption", "seed")}
    drawn = draw_prompts(model, options["task"], own, n=options["pairs"], scoring=scoring, **kind)
    halves = {name: options[name] for name in ("seed", "judge_on")}
    check = checked(model, drawn, **halves)
    able = screened(model, drawn, options["min_accuracy"], options["keep_solved"], options["batch_size"])
    check = check if able.pairs == drawn.pairs else checked(model, able, **halves)
    _warn_of_prompts(model, able, check)
    plan = Plan(
        methods,
        metric or drawn.metric,
        selection,
        options["seed"],
        options["batch_size"],
        references=drawn.references,
        direct_references=drawn.direct_references,
        edge_references=drawn.edge_references,
        memory=memory,
        verify=_verify(options["verify"], methods),
        missed=_missed(options["missed"], methods),
        **ablations(drawn),
        judge_on=options["judge_on"],
    )
    return Ready(model, able, check, plan, folder, evaluation)


def _selection(
    top: int | None,
    threshold: float | None,
    significance: float | None,
    correction: str,
    smallest: float | None,
    prune: float | None,
) -> Selection:
    from pydantic import ValidationError

    from circuits.errors import CircuitError
    from circuits.selection import Selection

    given = {
        "--top": ({"rule": "top", "n": top}, top),
        "--threshold": ({"rule": "threshold", "share": threshold}, threshold),
        "--significance": (
            {"rule": "significance", "alpha": significance, "correction": correction},
            significance,
        ),
        "--smallest": ({"rule": "smallest", "target": smallest}, smallest),
        "--prune": ({"rule": "pruned", "target": prune}, prune),
    }
    chosen = {name: settings for name, (settings, value) in given.items() if value is not None}
    if len(chosen) > 1:
        raise CircuitError(f"{' and '.join(chosen)} are different ways to select; give one of them.")
    try:
        return Selection.model_validate(next(iter(chosen.values()), {}))
    except ValidationError as error:
        reasons = "; ".join(f"{e['loc'][-1]} = {e['input']!r}: {e['msg']}" for e in error.errors())
        raise CircuitError(f"The selection cannot be used: {reasons}.") from None


def _configured(names: list[str], settings: list[str]) -> tuple[tuple[Method, Options], ...]:
    """Methods with their options, in the order given. Raises CircuitError for a --set that fits no method."""
    from circuits.errors import CircuitError
    from circuits.methods import METHODS

    by_method: dict[str, dict[str, str]] = {name: {} for name in names}
    unknown = [name for name in names if name not in METHODS.names()]
    if unknown:
        METHODS.load(unknown[0])
    for setting in settings:
        target, equals, value = setting.partition("=")
        name, dot, option = target.partition(".")
        if not (equals and dot):
            raise CircuitError(f"--set {setting} is not METHOD.OPTION=VALUE, such as sae.trials=20.")
        if name not in by_method:
            raise CircuitError(
                f"--set {setting} names {name!r}, which is not among the methods {', '.join(names)}."
            )
        by_method[name][option] = value
    loaded = {name: METHODS.load(name) for name in by_method}
    return tuple((entry, entry.configure(by_method[name])) for name, entry in loaded.items())


def _verify(n: int | None, methods: tuple[tuple[Method, Options], ...]) -> int | None:
    """--verify, where there is a method that it is for."""
    from circuits.errors import CircuitError

    if n is not None and not any(method.granularity == "edge" for method, _ in methods):
        names = ", ".join(method.name for method, _ in methods)
        raise CircuitError(
            f"--verify {n} is for methods that score edges, such as eap; {names} scores components."
        )
    return n


def _missed(n: int | None, methods: tuple[tuple[Method, Options], ...]) -> int | None:
    """--missed, where there is a method that it is for."""
    from circuits.errors import CircuitError

    if n is not None and all(method.granularity == "edge" for method, _ in methods):
        names = ", ".join(method.name for method, _ in methods)
        raise CircuitError(
            f"--missed {n} is for methods that score components, such as attribution-patching; {names} scores edges."
        )
    return n


def _budget(budget: int | None, methods: list[str] | None) -> list[str]:
    """--budget as a setting of the method that it is for."""
    from circuits.errors import CircuitError

    if budget is not None and methods and "activation-patching" not in methods:
        raise CircuitError(
            f"--budget {budget} is for activation-patching, which is not among the methods {', '.join(methods)}."
        )
    return [] if budget is None else [f"activation-patching.budget={budget}"]


def _output(output: Path | None, force: bool, stem: str) -> Path:
    """The run folder to write: what --output says, or the first free runs/STEM, runs/STEM-2, ..."""
    from circuits.runs import check_output

    if output is None:
        free = (Path("runs") / (stem if n == 1 else f"{stem}-{n}") for n in range(1, 100_000))
        output = next(path for path in free if not path.exists())
    check_output(output, force)
    return output


def _warn_of_prompts(model: BridgeModel, drawn: Prompts, check: PromptCheck) -> None:
    from cli.own_prompts import warn_of_file
    from cli.prompt_source import warn_of_unknown
    from cli.render import warning

    warn_of_file(drawn)
    warn_of_unknown(model, check.words.unknown)
    if drawn.unplaced:
        warning(
            f"{drawn.unplaced} of {len(drawn.pairs)} prompts are not of the layout of colored objects: of their "
            "positions END alone has a name."
        )


def _state_baseline(ready: Ready, before: Baseline, quiet: bool) -> None:
    """One line: what the doctor found of the prompts, and what the model does with them."""
    from cli.render import note, warning
    from cli.screening import check_line
    from cli.wording import baseline_line, unsolved_warning

    name = ready.model.name
    if not quiet:
        note(baseline_line(name, ready.drawn.name, before, f"{check_line(ready.check, ready.drawn)}; "))
    if doubt := unsolved_warning(name, before):
        warning(doubt)


def _report(found: Discovery, folder: Path, brief: dict[str, object], json: bool) -> None:
    if json:
        from circuits.records import json_text

        print(json_text(brief), end="")
        return
    from cli.summary import show_discovery

    show_discovery(found, folder)
