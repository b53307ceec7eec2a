"""The user's own prompt file as a command's prompts: read before any work, paired once the model is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuits.errors import CircuitError, UnknownNameError
from circuits.prompt_files.records import WAYS
from cli.prompt_source import Prompts

if TYPE_CHECKING:
    from circuits.models.bridge import BridgeModel


def require_way(make_corrupt: str | None) -> None:
    """Raises UnknownNameError for a name that is no way to make corrupted prompts."""
    if make_corrupt is not None and make_corrupt not in WAYS:
        raise UnknownNameError("way to make corrupted prompts", make_corrupt, WAYS)


def read_own(
    path: Path, twins: Path | None = None, column: str | None = None, make_corrupt: str | None = None
) -> Prompts:
    """The file without its pairs. Raises CircuitError where no pairs can come of it, whatever the model."""
    from circuits.prompt_files.reading import read, require_pairs
    from tasks.colored_objects import positions_of

    require_way(make_corrupt)
    file = read(path, column=column, twins=twins)
    parsed = file.format == "prompt-label"
    if not (parsed and make_corrupt == "mean"):
        require_pairs(file)
    if parsed:
        file = replace(file, rows=tuple(replace(row, positions=positions_of(row.clean)) for row in file.rows))
    return Prompts(path.stem, (), file.metric, parsed=parsed, file=file, make_corrupt=make_corrupt)


def pairs_of(model: BridgeModel, own: Prompts, n: int | None, seed: int) -> Prompts:
    """With the first n pairs that the file gives for the model, all if None."""
    from circuits.prompt_files.pairing import pair_up, require_two

    assert own.file is not None
    way: Any = own.make_corrupt
    paired = pair_up(model, own.file, way, seed=seed)
    require_two(model, own.file, paired)
    made = (way or "resample") if own.file.bare else None
    dropped = (*own.file.dropped, *paired.dropped)
    return replace(own, pairs=paired.pairs[:n], dropped=dropped, notes=paired.notes, make_corrupt=made)


def under_mean(
    asked: list[str] | None, names: list[str], settings: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Methods and settings for prompts that have no corrupted twins: what ablates by the mean.

    Raises CircuitError for methods that were asked for and cannot, and for settings that need twins.
    """
    from circuits.methods import METHODS

    able = [name for name in METHODS.names() if "ablation" in METHODS.load(name).options.model_fields]
    unable = [name for name in asked or [] if name in METHODS.names() and name not in able]
    if unable:
        raise CircuitError(
            f"--make-corrupt mean makes no corrupted prompts, and there is no {' nor '.join(unable)} without them. "
            f"Methods that ablate by the mean: {', '.join(able)}. Or take --make-corrupt resample."
        )
    kept = [name for name in names if name in able or name not in METHODS.names()]
    if others := [
        setting for setting in settings if ".ablation=" in setting and not setting.endswith("=mean")
    ]:
        raise CircuitError(
            f"--set {others[0]}: with --make-corrupt mean, outputs are replaced by their mean."
        )
    return kept, [*settings, *(f"{name}.ablation=mean" for name in kept if name in able)]


def ablations(drawn: Prompts) -> dict[str, Any]:
    """Where there are no twins, circuits are chosen under mean ablation, and judged under it first."""
    return {"ablations": ("mean", "resample")} if drawn.make_corrupt == "mean" else {}


def warn_of_file(drawn: Prompts) -> None:
    """Says what of the file is left out and why, how twins were made, and what looks wrong."""
    from circuits.prompt_files.records import counted
    from cli.render import note, warning

    if drawn.file is None:
        return
    if drawn.dropped:
        counts = ", ".join(f"{n} {kind}" for kind, n in counted(drawn.dropped).items())
        warning(
            f"{len(drawn.dropped)} of {drawn.file.size} prompts of {drawn.file.path.name} are left out: {counts}. "
            "`circuit tasks import` with --model names each."
        )
    for doubt in drawn.notes:
        warning(doubt)
    if drawn.make_corrupt == "resample":
        note(f"Corrupted prompts of {drawn.name} are made: a span of another prompt stands in for the own.")
    if drawn.make_corrupt == "mean":
        note(
            f"{drawn.name} has no corrupted prompts: methods ablate by the mean over its prompts, and circuits are "
            "chosen so; where they are judged by resampling, another prompt of the same length is the donor."
        )


def own_record(drawn: Prompts) -> dict[str, Any]:
    """What run.json says of a file's prompts, where there is anything to say."""
    from circuits.prompt_files.records import counted

    dropped = {"dropped": counted(drawn.dropped)} if drawn.dropped else {}
    return dropped | ({"corrupt_prompts_made_by": drawn.make_corrupt} if drawn.make_corrupt else {})
