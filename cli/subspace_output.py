"""What `circuit subspace` found: sentences, tables, a record, and the directions themselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cli.reading_output import Drawing, Reading, Table, model_record
from cli.subspace_words import (
    EFFECTS,
    MEANING,
    SWEEP,
    effect_rows,
    prompts_words,
    search_words,
    split_words,
    steering_words,
    sweep_rows,
    title,
    verdict_words,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from circuits.models.bridge import BridgeModel
    from circuits.subspaces.alignment import Alignment
    from circuits.subspaces.steering import Steering
    from circuits.subspaces.study import Asked, Study
    from cli.prompt_source import Prompts

RECORD = "subspace.json"
"""By which the folder is known."""


class Found(NamedTuple):
    """A study, and what it was asked for."""

    study: Study
    asked: Asked
    model: BridgeModel
    prompts: Prompts


def reading_of(found: Found) -> Reading:
    study = found.study
    files = {"effects": list(_effects(study))}
    if study.steering:
        files["sweep"] = list(_sweep(study.steering))
    return Reading(
        RECORD,
        title(study, found.model.name, found.prompts.name),
        _record(found),
        tuple(_words(found)),
        tuple(_tables(study)),
        files,
        tuple(_drawings(study, title(study, found.model.name, found.prompts.name))),
        more=partial(_write_directions, found),
    )


def _record(found: Found) -> dict[str, Any]:
    """Nothing in it varies from run to run."""
    study, asked, prompts = found.study, found.asked, found.prompts
    return {
        "model": model_record(found.model),
        "prompts": {"task": prompts.name, "form": prompts.form, "corruption": prompts.corruption},
        "site": str(study.place),
        "dimensions": study.width,
        "n_learned": study.n_learned,
        "n_judged": study.n_judged,
        "judged_on_other": study.new,
        "pairs_left_out": study.left_out,
        "own_answer_preferred": study.own,
        "seed": asked.seed,
        "recipe": asdict(asked.recipe),
        "passes": asdict(study.passes),
        "alignments": [_alignment(each) for each in study.alignments],
        "layer_search": study.searches and {k: asdict(each) for k, each in study.searches.items()},
        "steering": study.steering and _steering(study.steering),
    }


def _alignment(found: Alignment) -> dict[str, Any]:
    return {
        "rank": found.rank,
        "verdict": found.verdict,
        "logit_difference": asdict(found.own),
        "effects": {name: asdict(effect) for name, effect in found.effects.items()},
        "random": [{"fldd": fldd, "accuracy": accuracy} for fldd, accuracy in found.random],
        "split": asdict(found.split),
    }


def _steering(found: Steering) -> dict[str, Any]:
    return {
        "pair_accuracy": asdict(found.pair_accuracy),
        "pair_accuracy_random": found.random,
        "works": found.works,
        "monotone": found.monotone,
        "c_memory": found.sweep[found.up].c,
        "c_context": found.sweep[found.down].c,
        "unsteered": {"memory": found.own[0], "context": found.own[1]},
        "sweep": [asdict(each) | {"memory_ratio": each.memory_ratio} for each in found.sweep],
    }


def _words(found: Found) -> Iterator[str]:
    yield prompts_words(found.study)
    yield MEANING
    for intent, each in (found.study.searches or {}).items():
        yield search_words(intent, each)
    yield f"Seed {found.asked.seed}. Intervals are 95% bootstrap intervals over judged prompts."


def _tables(study: Study) -> Iterator[Table]:
    for one in study.alignments:
        notes = (verdict_words(one), split_words(one))
        yield Table(
            f"Rank {one.rank}", EFFECTS, list(effect_rows(one)), notes, numeric=("FLDD %", "accuracy")
        )
    if study.steering:
        steered = list(sweep_rows(study.steering))
        said = (steering_words(study.steering),)
        yield Table("The knob: h' = h - u (u.h) + u c", SWEEP, steered, said, numeric=SWEEP[1:])


def _drawings(study: Study, title: str) -> Iterator[Drawing]:
    def draw() -> Figure:
        from cli.report.readings import subspace_picture

        return subspace_picture(study.alignments, title)

    if study.alignments:
        yield Drawing("subspace.png", "Effects of subspaces and their parts, beside random ones", draw)


def _write_directions(found: Found, place: Path) -> None:
    """The prompts as well."""
    from safetensors.torch import save_file

    from circuits.records import write_prompts

    study = found.study
    write_prompts(place / "prompts.jsonl", found.prompts.pairs)
    frames = {f"rank-{each.rank}": each.frame.contiguous().cpu() for each in study.alignments}
    if study.steering:
        frames["knob"] = study.steering.direction.clone().cpu()
    save_file(frames, place / "directions.safetensors", metadata={"site": str(study.place)})


def _effects(study: Study) -> Iterator[dict[str, Any]]:
    for found in study.alignments:
        for name, effect in found.effects.items():
            row: dict[str, Any] = {"rank": found.rank, "patched": name}
            for what in ("fldd", "accuracy"):
                value = getattr(effect, what)
                row |= {what: value.value, f"{what}_low": value.low, f"{what}_high": value.high}
            yield row
        for n, (fldd, accuracy) in enumerate(found.random):
            yield {"rank": found.rank, "patched": f"random {n + 1}", "fldd": fldd, "accuracy": accuracy}


def _sweep(found: Steering) -> Iterator[dict[str, Any]]:
    for each in found.sweep:
        row: dict[str, Any] = {"times": each.times, "c": each.c, "other": each.other}
        row["memory_ratio"] = each.memory_ratio
        for name in ("memory", "context", "difference"):
            value = getattr(each, name)
            row |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
        yield row
