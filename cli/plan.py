"""`circuit plan`: what a `circuit discover` of the same options would do, hold and take, before anything runs.

The one idea: it takes the options of discover from discover itself, and goes the same way up to the first stage; so
what discover refuses is refused here, in the same words, and what it accepts is forecast.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any, get_args

from cli.discover import Ready, discover, prepared
from cli.guard import guarded

if TYPE_CHECKING:
    from circuits.calibration import Seconds
    from circuits.planning import Forecast, Stage

OF_RUNS_ALONE = ("output", "force")
"""Options that say where a run goes: they are taken, so that any command line of discover is, and change nothing."""


def _with_options_of(command: Callable[..., None]) -> Callable[[Callable[[Mapping[str, Any]], None]], Any]:
    """A command that takes the options of `command`, as a mapping."""

    def decorate(run: Callable[[Mapping[str, Any]], None]) -> Callable[..., None]:
        def taking(**options: Any) -> None:
            run(options)

        signature = inspect.signature(command, eval_str=True)
        parameters = [_hidden(p) if p.name in OF_RUNS_ALONE else p for p in signature.parameters.values()]
        taking.__name__, taking.__doc__ = run.__name__, run.__doc__
        taking.__annotations__ = {p.name: p.annotation for p in parameters}
        taking.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return guarded(taking)

    return decorate


def _hidden(parameter: inspect.Parameter) -> inspect.Parameter:
    kind, option = get_args(parameter.annotation)
    option = copy(option)
    option.hidden = True
    return parameter.replace(annotation=Annotated[kind, option])


@_with_options_of(discover)
def plan(options: Mapping[str, Any]) -> None:
    """Say what `circuit discover` with these options will do and take; run nothing, write nothing.

    [bold]circuit plan ioi --model plain-6l --method activation-patching --pairs 200[/bold]

    [bold]circuit plan --config configs/ioi.yaml --json[/bold]
    """
    from cli.render import progress

    with progress(quiet=options["json"]) as show:
        ready = prepared(options, show)
        loading = _since_the_start()
        show("calibrating", 0, 1)
        ahead = forecast(ready, loading)
        show("calibrating", 1, 1)
    if options["json"]:
        from circuits.records import json_text

        print(json_text(_record(ready, ahead)), end="")
    else:
        _show(ready, ahead)


def _since_the_start() -> Seconds:
    """What this process took so far: Python and its libraries, the model and the prompts, as in discover."""
    import psutil

    from circuits.calibration import Seconds

    return Seconds(time.time() - psutil.Process().create_time(), time.process_time())


def forecast(ready: Ready, loading: Seconds) -> Forecast:
    """That of circuits.planning, with what the command line does before and after."""
    from circuits.calibration import timed
    from circuits.planning import Stage, made_up, plan_discovery
    from circuits.work import Work
    from cli.run_output import documents
    from cli.run_records import records

    ahead = plan_discovery(ready.model, ready.drawn.pairs, ready.plan)
    found = made_up(ready.model, ready.drawn.pairs, ready.plan, ahead)

    def report() -> None:
        for _ in documents(found, ready.drawn, records(found, ready.model, ready.drawn)["run"]):
            pass

    writing = timed(report, ready.model.device)
    judging = [Stage("evaluation", None, None)] if ready.evaluation else []
    stages = (Stage("load", Work(), loading), *ahead.stages, Stage("report", Work(), writing), *judging)
    return replace(ahead, stages=stages)


def _record(ready: Ready, forecast: Forecast) -> dict[str, Any]:
    """What --json prints."""
    ahead, task = forecast.prompts, ready.drawn.name
    return {
        "task": task,
        "model": ready.model.name,
        "patching": ready.model.path,
        "prompts": {"pairs": ahead.discovery + ahead.judged, **asdict(ahead)},
        "stages": [{"stage": stage.name, **_numbers(stage, forecast)} for stage in forecast.stages],
        "total": _numbers(forecast, forecast),
        "unknown": list(forecast.unknown),
        "memory": _memory(ready, forecast),
    }


def _numbers(part: Stage | Forecast, forecast: Forecast) -> dict[str, object]:
    """Of a stage, or of all; None where nobody knows."""
    work, seconds = part.work, part.seconds
    return {
        "rows": work and work.rows,
        "forward_passes": work and work.passes,
        "full_passes": work and work.all_flops / forecast.full_flops,
        "flops": work and work.all_flops,
        "bytes": work and work.bytes,
        "seconds": seconds and seconds.wall,
        "cpu_seconds": seconds and seconds.cpu,
    }


def _memory(ready: Ready, forecast: Forecast) -> dict[str, int]:
    """Bytes. work: the most that is held at once on top of the model. process: with Python and its libraries."""
    import psutil

    here, work = psutil.Process().memory_info().rss, forecast.work.bytes
    return {"model": ready.model.n_bytes, "work": work, "budget": ready.model.memory, "process": here + work}


def _show(ready: Ready, forecast: Forecast) -> None:
    from cli.render import say, table

    say(_prompts_line(ready, forecast))
    say("")
    columns = ("stage", "passes", "in full", "GFLOP", "MB", "seconds")
    rows = [_row(stage.name, stage, forecast) for stage in forecast.stages]
    table(columns, [*rows, _row("in all", forecast, forecast)], numeric=columns[1:])
    say("")
    for line in _summary(ready, forecast):
        say(line)


def _row(name: str, part: Stage | Forecast, forecast: Forecast) -> tuple[str, ...]:
    work, seconds = part.work, part.seconds
    if work is None or seconds is None:
        return (name, "", "", "", "", "unknown")
    if not work.passes:
        return (name, "", "", "", "", _seconds(seconds.wall))
    counts = (work.passes, work.all_flops / forecast.full_flops, work.all_flops / 1e9, work.bytes / 1e6)
    return (name, *(f"{count:,.0f}" for count in counts), _seconds(seconds.wall))


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f}" if seconds < 10 else f"{seconds:,.0f}"


def _prompts_line(ready: Ready, forecast: Forecast) -> str:
    ahead = forecast.prompts
    return (
        f"{ready.drawn.name} in {ready.model.name} ({ready.model.path}): {ahead.discovery} pairs to discover on, "
        f"{ahead.judged} to judge on, in {ahead.batches} batches; {ahead.tokens:,} tokens, {_range(ahead.lengths)} "
        f"a prompt; clean and corrupt differ from position {_range(ahead.first_differences)} on."
    )


def _range(counts: Mapping[int, int]) -> str:
    least, most = min(counts), max(counts)
    return f"{least}" if least == most else f"{least} to {most}"


def _summary(ready: Ready, forecast: Forecast) -> Iterator[str]:
    from circuits.memory import spell_bytes

    work, seconds, memory = forecast.work, forecast.seconds, _memory(ready, forecast)
    least = "at least " if forecast.unknown else ""
    yield (
        f"{work.passes:,} forward passes of a prompt, {work.rows:,} patched rows on batches of them. In full they "
        f"would be {work.passes * forecast.full_flops / 1e12:,.2f} TFLOP; computing what can change is "
        f"{work.all_flops / 1e12:,.2f} TFLOP, as much as {work.all_flops / forecast.full_flops:,.0f} passes in full."
    )
    yield (
        f"Memory: {spell_bytes(memory['model'])} for the model and {spell_bytes(memory['work'])} on top of it (of "
        f"{spell_bytes(memory['budget'])}, see --memory); {spell_bytes(memory['process'])} with Python and libraries."
    )
    yield (
        f"Time on this machine as it is now: {least}{_seconds(seconds.wall)} s, and {least}{_seconds(seconds.cpu)} s "
        "of processor time."
    )
    yield "Not counted but estimated: how many circuits pruning asks about, and how large circuits are."
