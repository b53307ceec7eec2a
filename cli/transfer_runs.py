"""Transfer between runs: their models loaded, each circuit judged on the judged prompts of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from cli.run_source import Loader, model_of

if TYPE_CHECKING:
    from circuits.comparison.sides import Side
    from circuits.evaluation.run_evaluation import PromptSet
    from circuits.evaluation.transfer import Journey
    from circuits.progress import Progress
    from circuits.runs import RunFolder


class Asked(NamedTuple):
    """A run to send a circuit from, and to receive others. model: where it is; None for where the run says."""

    side: Side
    run: RunFolder
    model: str | None

    @property
    def name(self) -> str:
        return self.side.name


def transferred(
    sides: Sequence[Side],
    models: Sequence[str | None],
    show: Progress,
    *,
    seed: int = 0,
    pairs: int | None = None,
    device: str = "cpu",
    load: Loader | None = None,
) -> tuple[Journey, ...]:
    """Every circuit on the prompts of every run, in the model of that run, as far as models have one shape.

    Prompts that any of the circuits was found on are left out everywhere. models: where those of the runs are, None
    for where the run says. pairs: the first so many prompts of each run.
    Raises CircuitError where a run has no prompts left, or where its model is not to be found.
    """
    from circuits.evaluation.recorded import recorded
    from circuits.evaluation.transfer import Place, Traveller, transfer
    from circuits.runs import read_run

    asked = [Asked(side, read_run(side.path), model) for side, model in zip(sides, models, strict=True)]
    homes = _homes(asked)
    seen = {pair.clean for entry in asked for pair in _discovered_on(entry.run)}
    journeys: list[Journey] = []
    for group in _by_model(asked):
        model, _ = model_of(group[0].run, group[0].model, device, None, None, show, load)
        here: dict[str, Asked] = {}
        for entry in group:
            here.setdefault(homes[entry.name], entry)
        places = [Place(home, model, _prompts(entry, seen, pairs)) for home, entry in here.items()]
        travellers = [
            Traveller(entry.name, homes[entry.name], recorded(entry.run, entry.side.method, model.graph))
            for entry in asked
            if entry.side.scored.graph == model.graph
        ]
        journeys += transfer(travellers, places, seed=seed, progress=show)
    return tuple(journeys)


def _homes(asked: Sequence[Asked]) -> dict[str, str]:
    """Run -> the place it judges at: one for all runs of one model on the same prompts.

    A place is called by its task where no other place has that task, else by its first run.
    """
    kinds: dict[tuple[str, str, tuple[str, ...]], list[Asked]] = {}
    for entry in asked:
        texts = tuple(pair.clean for pair in entry.run.prompts)
        kinds.setdefault((_weights(entry.run), _task(entry.run), texts), []).append(entry)
    tasks = [task for _, task, _ in kinds]
    return {
        entry.name: task if task and tasks.count(task) == 1 else members[0].name
        for (_, task, _), members in kinds.items()
        for entry in members
    }


def _by_model(asked: Sequence[Asked]) -> list[list[Asked]]:
    groups: dict[str, list[Asked]] = {}
    for entry in asked:
        groups.setdefault(_weights(entry.run), []).append(entry)
    return list(groups.values())


def _weights(run: RunFolder) -> str:
    model = run.run.get("model") or {}
    return str(model.get("weights_sha256") or model.get("name"))


def _task(run: RunFolder) -> str:
    config = run.run.get("config") or {}
    task, form = str(config.get("task") or ""), config.get("form")
    return f"{task}/{form}" if form else task


def _discovered_on(run: RunFolder) -> tuple[Any, ...]:
    from circuits.evaluation.run_evaluation import prompts_of

    return prompts_of(run, "discovery")


def _prompts(entry: Asked, seen: set[str], pairs: int | None) -> PromptSet:
    from circuits.errors import PromptError
    from circuits.evaluation.run_evaluation import own_prompts

    own = own_prompts(entry.run, None)
    new = [i for i, pair in enumerate(own.pairs) if pair.clean not in seen][:pairs] if own else []
    if own is None or len(new) < 2:
        raise PromptError(
            f"{entry.run.path} has no prompts to judge on that no other run discovered on. Make the runs with one "
            "seed, or with more --pairs."
        )
    return replace(own, pairs=tuple(own.pairs[i] for i in new), names=tuple(own.names[i] for i in new))
