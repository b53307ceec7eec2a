"""What a run folder says of one method's circuit, as values that text and pictures are drawn from.

The one idea: everything that is shown is read back from files, so a run of last year and an imported one are shown
like one of today; what a run lacks is None, and whoever draws leaves it out. No torch: reading a run is quick.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from circuits.circuit import Circuit, ends
from circuits.errors import RunFolderError
from circuits.exchange.run_folder import circuit_of_run
from circuits.graph import Graph
from circuits.runs import RunFolder, read_run
from circuits.scored_circuit import ScoredCircuit

if TYPE_CHECKING:
    from circuits.scores import Scores


class Stop(NamedTuple):
    """How faithful a circuit of this size is; low and high are None where that is not known."""

    n: int
    kept: int
    faithfulness: float
    low: float | None = None
    high: float | None = None


class Curve(NamedTuple):
    """Faithfulness of the first n of a ranking. told: on which prompts, under which ablation, and by which file."""

    stops: tuple[Stop, ...]
    told: str


@dataclass(frozen=True)
class Shown:
    """One method of a run. found: what evaluation.json says of it; empty where nothing was evaluated."""

    run: RunFolder
    scored: ScoredCircuit
    found: Mapping[str, Any]

    @property
    def graph(self) -> Graph:
        return self.scored.graph

    @property
    def circuit(self) -> Circuit:
        return self.scored.circuit

    @property
    def method(self) -> str:
        return self.circuit.method

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(entry["method"] for entry in self.run.circuit["circuits"])

    @property
    def task(self) -> str:
        return str((self.run.run.get("config") or {}).get("task") or "unknown task")

    @property
    def model(self) -> str:
        """Its name; of a directory the last part."""
        return Path(self.scored.model or "unknown model").name

    @property
    def details(self) -> Mapping[str, Any]:
        return self.found.get("details") or {}

    @property
    def unit(self) -> str:
        """What one unit of the method's scores is."""
        return str(self.details.get("unit", "score"))

    @property
    def signed(self) -> bool | None:
        """Whether scores can be below zero; None where the run does not say."""
        said = self.details.get("signed", True if self.details else None)
        return None if said is None else bool(said)

    @property
    def n_discovery(self) -> int:
        return len((self.run.run.get("prompts") or {}).get("discovery") or ())

    def title(self, what: str = "", n: int | None = None) -> str:
        """activation-patching, ioi in plain-4l (n = 250 prompts); n: of the discovery prompts if not given."""
        count = self.n_discovery if n is None else n
        told = f" (n = {count:,} prompts)" if count else ""
        return f"{what or self.method}, {self.task} in {self.model}{told}"

    @cached_property
    def scores(self) -> Scores | None:
        """Of components alone: means, as if of one sample. None where the run has none."""
        names = tuple(name for name in self.graph.components if name in self.scored.scores)
        return _means(self.method, names, self.scored.scores) if names else None

    @cached_property
    def ranked(self) -> Scores | None:
        """Of what the circuit consists of: edges, or components."""
        if self.circuit.edges is None:
            return self.scores
        return _means(self.method, tuple(self.scored.edges), self.scored.edges) if self.scored.edges else None

    @cached_property
    def links(self) -> dict[tuple[str, str], float | None]:
        """What joins the circuit's nodes, q, k and v inputs of a head taken together; None: not measured.

        Where the method measured none of a node circuit's links itself, those of another method (see borrowed).
        """
        if self.circuit.edges is None:
            own = self._own_links
            return {link: own.get(link) for link in self.scored.links} if own else dict(self.scored.links)
        total: dict[tuple[str, str], float | None] = {}
        for edge in self.circuit.edges:
            score, before = self.scored.edges.get(edge), total.get(ends(edge))
            total[ends(edge)] = before if score is None else (before or 0.0) + score[0]
        return total

    @cached_property
    def _own_links(self) -> dict[tuple[str, str], float]:
        """Those that the method itself measured: scores of two methods have two units."""
        rows = self.run.edges
        mine = rows[(rows["method"] == self.method) & rows["in_circuit"] & rows["score"].notna()]
        return {(u, v): float(score) for u, v, score in mine[["source", "target", "score"]].itertuples(False)}

    @property
    def borrowed(self) -> bool:
        """Whether the scores of links are another method's."""
        return self.circuit.edges is None and not self._own_links and bool(self.flows)

    @cached_property
    def flows(self) -> dict[str, float]:
        """Edge -> score of every edge, or measured link, that the circuit keeps; names are those of edges."""
        if self.circuit.edges is None:
            return {f"{u}->{v}": score for (u, v), score in self.links.items() if score is not None}
        return {edge: self.scored.edges[edge][0] for edge in self.circuit.edges if edge in self.scored.edges}

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float] | None]:
        """95% of each of `ranked`: as the run says, else 1.96 standard errors either way; None where not known."""
        if self.ranked is None:
            return {}
        scores = self.scored.scores if self.circuit.edges is None else self.scored.edges
        reach = {
            name: None if scores[name][1] is None else _either_way(*scores[name])
            for name in self.ranked.components
        }
        return reach | (self._bootstrapped if self.circuit.edges is None else {})

    @property
    def _bootstrapped(self) -> dict[str, tuple[float, float]]:
        rows = self.run.nodes
        mine = rows[(rows["method"] == self.method) & (rows["position"] == "all")]
        if not {"low", "high"} <= set(mine):
            return {}
        known = mine.dropna(subset=["low", "high"])
        return {c: (float(a), float(b)) for c, a, b in known[["component", "low", "high"]].itertuples(False)}

    @cached_property
    def verdict(self) -> Any:
        """The first verdict, as circuits.evaluation.faithfulness.Verdict names its parts; None if there is none."""
        verdicts = self.found.get("verdicts") or ()
        return as_value(verdicts[0]) if verdicts else None

    @cached_property
    def curve(self) -> Curve | None:
        """By sizes.csv, else by what the selection saw of its own prompts; None where the run has neither."""
        return self._judged_curve() or self._discovery_curve()

    def _judged_curve(self) -> Curve | None:
        if self.run.sizes is None:
            return None
        rows = self.run.sizes[self.run.sizes["method"] == self.method]
        columns = rows[["n", "kept", "faithfulness", "low", "high"]].astype(object)
        stops = [Stop(int(n), int(kept), *map(_known, rest)) for n, kept, *rest in columns.itertuples(False)]  # type: ignore[arg-type]
        if not stops:
            return None
        first = rows.iloc[0]
        told = f"{int(first['n_prompts']):,} judged prompts, {first['ablation']} ablation (sizes.csv)"
        return Curve(tuple(s for s in stops if s.faithfulness is not None), told)

    def _discovery_curve(self) -> Curve | None:
        chosen = self.found.get("selection") or {}
        values = chosen.get("discovery_curve") or ()
        sizes = chosen.get("discovery_sizes") or range(1, len(values) + 1)
        stops = [Stop(n, n, float(v)) for n, v in zip(sizes, values, strict=False) if v is not None]
        told = "discovery prompts, as the selection saw them (evaluation.json)"
        return Curve(tuple(stops), told) if stops else None

    @property
    def finding(self) -> Any:
        """What cli.wording.finding_words reads of a Finding."""
        ranked, scores = self.ranked, self.scores
        return SimpleNamespace(
            circuit=self.circuit,
            scores=scores or SimpleNamespace(method=self.method, components=self.graph.components),
            ranked=ranked or SimpleNamespace(components=self.circuit.kept),
            verdicts=[self.verdict] if self.verdict else [],
            choice=SimpleNamespace(prefix=(self.found.get("selection") or {}).get("prefix")),
        )


def read_shown(path: Path, method: str | None = None) -> Shown:
    """Raises CircuitError where there is no such run, it is damaged, or has no such method."""
    run = read_run(path)
    scored = circuit_of_run(run, method)
    try:
        shown = Shown(run, scored, (run.evaluation.get("methods") or {}).get(scored.circuit.method) or {})
        _look_over(shown)
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        what = f"{type(problem).__name__} {problem}"
        raise RunFolderError(
            f"{path}: its tables or evaluation.json are damaged ({what}). Make the run again."
        ) from problem
    return shown


def _look_over(shown: Shown) -> None:
    """Reads all that is shown, so that what is damaged is said before anything is drawn."""
    _ = shown.title(), shown.unit, shown.signed, shown.curve, shown.intervals, shown.flows, shown.links
    for record in (shown.verdict, as_value(shown.run.evaluation.get("baseline"))):
        if record is not None:
            _ = record.preferred.value, record.preferred.low, record.correct.high, record.n_prompts
    if shown.verdict:
        found, band = shown.verdict.faithfulness, shown.verdict.random
        _ = found.value, found.low, found.high, band.n, band.low, band.median, band.high, band.p_value


def as_value(record: Any) -> Any:
    """A JSON record as a value with attributes, so that sentences made for results can be made of records."""
    if isinstance(record, Mapping):
        return SimpleNamespace(**{str(key): as_value(value) for key, value in record.items()})
    return tuple(map(as_value, record)) if isinstance(record, list) else record


def _means(method: str, names: tuple[str, ...], measured: Mapping[str, tuple[float, float | None]]) -> Scores:
    import numpy as np

    from circuits.scores import Scores

    return Scores(method, names, np.array([[measured[name][0] for name in names]]), unit="estimate")


def _either_way(value: float, error: float | None) -> tuple[float, float]:
    reach = 1.96 * (error or 0.0)
    return value - reach, value + reach


def _known(value: Any) -> float | None:
    """None for what is not a number."""
    return float(value) if value is not None and value == value else None
