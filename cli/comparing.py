"""A comparison from request to result: sides read, components matched, circuits compared and, if asked, sent to each
other's tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from circuits.comparison.aligned import AlignedComparison
    from circuits.comparison.pairwise import Comparison
    from circuits.comparison.references import ReferenceMatch
    from circuits.comparison.sides import Side
    from circuits.evaluation.transfer import Journey
    from circuits.progress import Progress
    from cli.run_source import Loader


@dataclass(frozen=True)
class Request:
    """What `circuit compare` is asked, by its options. names: what to call the runs, if not as their folders."""

    runs: tuple[str, ...]
    method: str | None = None
    nodes: bool = False
    references: tuple[str, ...] = ()
    align: str = "auto"
    transfer: bool = False
    pairs: int | None = None
    models: tuple[str, ...] = ()
    device: str = "cpu"
    seed: int = 0
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Compared:
    """aligned: None where components were matched by index. journeys: empty where no transfer was asked for."""

    request: Request
    sides: tuple[Side, ...]
    found: tuple[Comparison, ...]
    matches: tuple[ReferenceMatch, ...] = ()
    aligned: AlignedComparison | None = None
    journeys: tuple[Journey, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def record(self) -> dict[str, Any]:
        """What overlap.json holds."""
        from cli.comparison_output import comparison_record

        return comparison_record(self)

    def write(self, folder: Path, *, force: bool) -> None:
        """Writes the whole folder, or nothing. Raises RunFolderError where the disk refuses."""
        from cli.comparison_output import write_comparison

        write_comparison(folder, self, force=force)


def compared(request: Request, show: Progress, load: Loader | None = None) -> Compared:
    """Raises CircuitError for runs that cannot be compared, and says what to do.

    load: what loads models, where any are needed; None: anew.
    """
    from circuits.comparison.references import match_edges, match_reference, read_reference
    from circuits.comparison.sides import matched_by, read_sides

    known = [read_reference(text) for text in request.references]
    sides = read_sides(request.runs, request.method, request.names)
    pairs = [(side, entry) for entry in known for side in sides]
    matches = tuple(m for pair in pairs for m in (match_reference(*pair), match_edges(*pair)) if m)
    models = _models(request)
    if matched_by(sides, request.align) == "behaviour":
        done = _by_behaviour(request, sides, models, show, load)
    else:
        done = _by_index(request, sides, alone=bool(known))
    journeys = _journeys(request, sides, models, show, load) if request.transfer else ()
    return replace(done, matches=matches, journeys=journeys)


def _models(request: Request) -> tuple[str | None, ...]:
    """Where the model of each run is, None for where the run says."""
    from circuits.errors import CircuitError

    n, given = len(request.runs), request.models
    if len(given) not in (0, 1, n):
        raise CircuitError(
            f"--model is given {len(given)} times for {n} runs. Give it once for all, or for each in their order."
        )
    return given * n if len(given) == 1 else given or (None,) * n


def _by_behaviour(
    request: Request,
    sides: tuple[Side, ...],
    models: tuple[str | None, ...],
    show: Progress,
    load: Loader | None,
) -> Compared:
    from cli.aligning import aligned
    from cli.comparison_words import aligned_notes

    found = aligned((sides[0], sides[1]), models, request.device, request.seed, show, load)
    return Compared(request, sides, (found.heads,), aligned=found, notes=aligned_notes(found))


def _by_index(request: Request, sides: Sequence[Side], alone: bool) -> Compared:
    """alone: whether one run will do, because it is compared with what others report."""
    from circuits.comparison.pairwise import compare
    from circuits.comparison.sides import granularities, notes

    kinds = granularities(sides, request.nodes) if len(sides) > 1 or not alone else ()
    found = tuple(pair for kind in kinds for pair in compare(sides, kind, request.seed))
    return Compared(request, tuple(sides), found, notes=notes(sides, kinds))


def _journeys(
    request: Request,
    sides: Sequence[Side],
    models: tuple[str | None, ...],
    show: Progress,
    load: Loader | None,
) -> tuple[Journey, ...]:
    from cli.transfer_runs import transferred

    return transferred(
        sides, models, show, seed=request.seed, pairs=request.pairs, device=request.device, load=load
    )
