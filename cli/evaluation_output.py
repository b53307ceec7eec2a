"""From judged circuits to the files of an evaluation: evaluation.json, evaluation.md, report.html, pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuits.records import write_json, write_text
from circuits.runs import writing_run

if TYPE_CHECKING:
    from circuits.evaluation.appraisal import Appraisal
    from circuits.evaluation.faithfulness import Baseline
    from circuits.evaluation.run_evaluation import Asked, Judged
    from circuits.models.bridge import BridgeModel
    from circuits.runs import RunFolder

RECORD, FIGURES = "evaluation.md", "evaluation.json"
FORMAT_VERSION = 1


def evaluation_record(
    run: RunFolder,
    model: BridgeModel,
    asked: Asked,
    before: tuple[tuple[str, Baseline], ...],
    judged: tuple[Judged, ...],
    seconds: float,
) -> dict[str, Any]:
    """evaluation.json: every figure beside the six things that make it comparable; what varies stands in "cost"."""
    from circuits.models.source import weights_hash
    from cli.evaluation_words import REFUSED

    return {
        "format_version": FORMAT_VERSION,
        "run": {"name": run.path.absolute().name, "prompts_sha256": _known(run, "prompts", "sha256")},
        "model": {"name": model.name, "weights_sha256": weights_hash(model.directory)},
        "asked": {
            "methods": asked.methods,
            "tasks": [asked.own.task, *(other.task for other in asked.others)],
            "ablations": asked.ablations,
            "metric": asked.own.metric,
            "seed": asked.seed,
            "skip": sorted(asked.skip),
        },
        "refuses_to_compare": REFUSED,
        "baselines": [{"task": task, **asdict(itself)} for task, itself in before],
        "circuits": [_judged(entry) for entry in judged],
        "cost": {"seconds": round(seconds, 3)},
    }


def _known(run: RunFolder, part: str, name: str) -> object:
    found = run.run.get(part, {})
    return found.get(name) if isinstance(found, Mapping) else None


def _judged(entry: Judged) -> dict[str, Any]:
    stability = entry.redrawn.stability
    return {
        "method": entry.recorded.circuit.method,
        "selection": entry.recorded.circuit.selection,
        "granularity": "edge" if entry.recorded.edges else "node",
        "kept": entry.recorded.circuit.kept,
        "of": len(entry.recorded.played),
        "evaluations": [_appraisal(found) for found in entry.appraisals],
        "other_tasks": [{"task": task, **_appraisal(found)} for task, found in entry.elsewhere],
        "stability": None
        if stability is None
        else {name: value for name, value in asdict(stability).items() if name != "pairs"},
        "stability_note": entry.redrawn.note,
        "largest_gap_to_the_scores_of_the_run": entry.redrawn.gap,
    }


def _appraisal(found: Appraisal) -> dict[str, Any]:
    def part(value: Any) -> dict[str, Any] | None:
        return None if value is None else {"stated": found.stated(value.n_prompts), **asdict(value)}

    curves = part(found.curves)
    if curves is not None and found.curves is not None:
        curves["random"]["stated"] = found.stated(found.curves.random.n_prompts)
    minimality = part(found.minimality)
    if minimality is not None and found.minimality is not None:
        for member, record in zip(found.minimality.members, minimality["members"], strict=True):
            record["verdict"] = member.verdict
    return {
        "ablation": found.verdict.ablation,
        "verdict": part(found.verdict),
        "curves": curves,
        "completeness": part(found.completeness),
        "minimality": minimality,
        "tests": [
            {
                "stated": found.stated(test.n_prompts),
                **asdict(test),
                "rejected": test.rejected,
                "favourable": test.favourable,
            }
            for test in found.tests
        ],
    }


def write_evaluation(
    path: Path,
    record: Mapping[str, Any],
    before: tuple[tuple[str, Baseline], ...],
    judged: tuple[Judged, ...],
    model: str,
    *,
    force: bool,
) -> None:
    """Writes the whole folder, or nothing. Raises RunFolderError where the disk refuses."""
    from cli.page.evaluation_page import folder_page
    from cli.page.page import write_page
    from cli.report.evaluation import evaluation_report

    pictures = dict(_pictures(judged))
    report = evaluation_report(record, before, judged, model, tuple(pictures))
    with writing_run(path, force, RECORD) as folder:
        write_json(folder / FIGURES, record)
        write_text(folder / RECORD, report)
        for name, content in pictures.items():
            (folder / name).write_bytes(content)
        write_page(folder_page(folder))


def _pictures(judged: tuple[Judged, ...]) -> Iterator[tuple[str, bytes]]:
    from cli.report.curve import curve_picture, stability_picture
    from cli.report.figure import png

    with_curves = [entry for entry in judged if any(found.curves for found in entry.appraisals)]
    if with_curves:
        yield "curve.png", png(curve_picture(with_curves))
    drawn = [entry for entry in judged if entry.redrawn.stability]
    if drawn:
        yield "stability.png", png(stability_picture(drawn))
