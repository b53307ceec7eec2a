"""What `circuit subspace` found: in the terminal, as a record, and as a folder of tables, directions and a report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

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
    from circuits.models.bridge import BridgeModel
    from circuits.subspaces.alignment import Alignment
    from circuits.subspaces.steering import Steering
    from circuits.subspaces.study import Asked, Study
    from cli.prompt_source import Prompts

RECORD, FORMAT_VERSION = "subspace.json", 1
"""By which the folder is known, and its version."""


class Found(NamedTuple):
    """A study, and what it was asked for."""

    study: Study
    asked: Asked
    model: BridgeModel
    prompts: Prompts


def record(found: Found) -> dict[str, Any]:
    """subspace.json; nothing in it varies from run to run."""
    from circuits.models.source import weights_hash

    study, asked, prompts = found.study, found.asked, found.prompts
    return {
        "format_version": FORMAT_VERSION,
        "model": {"name": found.model.name, "weights_sha256": weights_hash(found.model.directory)},
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


def show(found: Found, folder: Path | None) -> None:
    """What the terminal says."""
    from cli.render import say, table

    study = found.study
    say(prompts_words(study))
    for intent, each in (study.searches or {}).items():
        say(search_words(intent, each))
    for one in study.alignments:
        head = title(study, found.model.name, found.prompts.name)
        table(EFFECTS, effect_rows(one), title=head, numeric=("FLDD %", "accuracy"))
        say(split_words(one))
        say(verdict_words(one))
    if study.steering:
        table(SWEEP, sweep_rows(study.steering), title="h' = h - u (u.h) + u c", numeric=SWEEP[1:])
        say(steering_words(study.steering))
    if folder:
        say(f"Written to {folder}")


def write(folder: Path, found: Found, kept: Mapping[str, Any], *, force: bool) -> None:
    """Writes the whole folder, or nothing. Raises RunFolderError where the disk refuses."""
    import pandas as pd
    from safetensors.torch import save_file

    from circuits.records import write_json, write_prompts, write_table, write_text
    from circuits.runs import writing_run

    study = found.study
    with writing_run(folder, force, RECORD) as place:
        write_json(place / RECORD, kept)
        write_prompts(place / "prompts.jsonl", found.prompts.pairs)
        write_table(place / "effects.csv", pd.DataFrame(_effects(study)))
        if study.steering:
            write_table(place / "sweep.csv", pd.DataFrame(_sweep(study.steering)))
        frames = {f"rank-{each.rank}": each.frame.contiguous().cpu() for each in study.alignments}
        if study.steering:
            frames["knob"] = study.steering.direction.clone().cpu()
        save_file(frames, place / "directions.safetensors", metadata={"site": str(study.place)})
        write_text(place / "report.md", "\n\n".join(_sections(found)) + "\n")


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


def _sections(found: Found) -> Iterator[str]:
    from cli.report.markdown import table

    study = found.study
    yield f"# {title(study, found.model.name, found.prompts.name)}"
    yield prompts_words(study)
    yield MEANING
    if study.searches:
        yield "## Layers that decide"
        yield "\n".join(f"- {search_words(intent, each)}" for intent, each in study.searches.items())
    for one in study.alignments:
        yield f"## Rank {one.rank}"
        yield verdict_words(one)
        yield table(EFFECTS, effect_rows(one))
        yield split_words(one)
    if study.steering:
        yield "## The knob"
        yield steering_words(study.steering)
        yield table(SWEEP, sweep_rows(study.steering))
    yield (
        f"Seed {found.asked.seed}. Intervals are 95% bootstrap intervals over judged prompts. The directions stand "
        "in directions.safetensors."
    )
