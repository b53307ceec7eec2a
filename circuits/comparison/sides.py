"""What is compared: the circuits of run folders, and at what granularities they can be.

The one idea: a side is a circuit with its scores, read from files alone; whether two of them can be compared by name
is asked once, here, with a message that says what to do where they cannot.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from circuits.errors import CircuitError, RunFolderError, UnknownNameError
from circuits.exchange.run_folder import UNKNOWN_MODEL, circuit_of_run
from circuits.graph import Graph
from circuits.runs import read_records
from circuits.scored_circuit import ScoredCircuit

Granularity = Literal["node", "edge", "head"]
"""head: pairs of heads that an alignment matched."""
Matched = Literal["index", "behaviour"]


@dataclass(frozen=True)
class Side:
    """One circuit to compare. faithfulness: what its run measured, by ablation; empty where nothing was.

    path: its run folder.
    """

    name: str
    scored: ScoredCircuit
    task: str
    format_version: int
    faithfulness: Mapping[str, float]
    path: Path = Path()

    @property
    def model(self) -> str:
        return self.scored.model or UNKNOWN_MODEL

    @property
    def method(self) -> str:
        return self.scored.circuit.method


def read_side(run: str, method: str | None = None) -> Side:
    """The circuit of RUN, or of RUN:METHOD; `method` where neither the run nor its name says which.

    Raises CircuitError where there is no run, it has no such circuit, or nothing in it is scored.
    """
    path, chosen = run_and_method(run, method)
    held = read_records(path)
    scored = circuit_of_run(held, chosen)
    name = path.absolute().name + (f":{chosen}" if chosen and chosen != method else "")
    if not scored.scores and not scored.edges:
        raise CircuitError(
            f"{run} holds no scores for its circuit, so what else it might have kept is unknown, and with it the "
            "chance level. Import a file that has scores, or discover the circuit here."
        )
    entry = next(e for e in held.circuit["circuits"] if e["method"] == scored.circuit.method)
    config = held.run.get("config") or {}
    version, task = held.run["format_version"], str(config.get("task", ""))
    return Side(name, scored, task, version, _faithfulness(path, entry), path)


def run_and_method(run: str, method: str | None = None) -> tuple[Path, str | None]:
    """The folder of RUN, or of RUN:METHOD, and the method that is asked for; `method` where the name says none."""
    if not Path(run).exists() and ":" in run:
        before, _, after = run.rpartition(":")
        return Path(before), after
    return Path(run), method


def _faithfulness(path: Path, entry: Mapping[str, object]) -> dict[str, float]:
    try:
        verdicts = entry.get("evaluation") or ()
        found = {str(v["ablation"]): v["faithfulness"]["value"] for v in verdicts}  # type: ignore[attr-defined]
    except (KeyError, TypeError) as problem:
        what = f"{path / 'circuit.json'} is damaged: its evaluation lacks {problem}"
        raise RunFolderError(f"{what}. Make the run again.") from problem
    return {ablation: float(value) for ablation, value in found.items() if value is not None}


def read_sides(
    runs: Sequence[str], method: str | None = None, called: Sequence[str] = ()
) -> tuple[Side, ...]:
    """The circuits of `runs`, each under a name of its own. called: what to call them, if not as their folders."""
    sides = [read_side(run, method) for run in runs]
    names = list(called) or [side.name for side in sides]
    if len(set(names)) < len(names):
        names = [f"{i}:{name}" for i, name in enumerate(names, start=1)]
    return tuple(replace(side, name=name) for name, side in zip(names, sides, strict=True))


def granularities(sides: Sequence[Side], nodes_only: bool = False) -> tuple[Granularity, ...]:
    """At what granularities the circuits can be compared.

    Raises CircuitError for fewer than two, for formats or shapes of model that differ, and for nodes against edges
    where `nodes_only` does not say that the nodes are meant that the edges touch.
    """
    if len(sides) < 2:
        raise CircuitError("There is one run only: a comparison takes two or more.")
    for side in sides[1:]:
        _require_alike(sides[0], side, nodes_only)
    return ("node",) if nodes_only or sides[0].scored.granularity == "node" else ("node", "edge")


def _require_alike(first: Side, second: Side, nodes_only: bool) -> None:
    a, b = first.scored, second.scored
    if first.format_version != second.format_version:
        versions = f"{first.format_version} and {second.format_version}"
        raise RunFolderError(
            f"{first.name} and {second.name} have format versions {versions}. Make the older run again."
        )
    if a.graph != b.graph:
        raise CircuitError(
            f"{first.name} is of a model of {_shape(a.graph)}, {second.name} of one of {_shape(b.graph)}: head "
            "9.6 of one is nothing in the other. `circuit compare` takes two such runs with --align behaviour, which "
            "matches heads by what they do; by index, models have one shape."
        )
    if a.granularity != b.granularity and not nodes_only:
        raise CircuitError(
            f"{first.name} keeps {a.granularity}s and {second.name} keeps {b.granularity}s. Pass --nodes to compare "
            "nodes with the nodes that the edges touch, or make both runs of one kind."
        )


def matched_by(sides: Sequence[Side], wanted: str) -> Matched:
    """How components are matched: as `wanted`; auto means by index if all models have one shape, else by behaviour.

    Raises CircuitError where it is none of auto, index and behaviour, or where behaviour meets other than two runs.
    """
    if wanted not in ("auto", "index", "behaviour"):
        raise UnknownNameError("way to align", wanted, ("auto", "index", "behaviour"))
    alike = all(side.scored.graph == sides[0].scored.graph for side in sides)
    if wanted == "index" or (wanted == "auto" and (alike or len(sides) != 2)):
        return "index"
    if len(sides) != 2:
        raise CircuitError(f"--align behaviour takes two runs, not {len(sides)}.")
    return "behaviour"


def _shape(graph: Graph) -> str:
    kv = f" ({graph.n_kv_heads} kv)" if graph.n_kv_heads != graph.n_heads else ""
    return f"{graph.n_layers} layers x {graph.n_heads} heads{kv}{', parallel' * graph.parallel}"


def notes(sides: Sequence[Side], kinds: Sequence[Granularity]) -> tuple[str, ...]:
    """What the reader should know before trusting a figure."""
    found = []
    models = sorted({side.model for side in sides})
    if len(models) > 1:
        found.append(
            f"The models differ ({', '.join(models)}) and have one shape: components are matched by index, which "
            "means something for checkpoints of one model, and little for models trained apart: for those, --align "
            "behaviour matches heads by what they do."
        )
    if any(len({frozenset(scored_names(side, kind)) for side in sides}) > 1 for kind in kinds):
        found.append(
            "Not all methods score the same components (some may score heads alone): each pair is compared on those "
            "that both score."
        )
    return tuple(found)


def scored_names(side: Side, granularity: Granularity) -> Iterable[str]:
    """What the method looked at. Methods that score edges look at the nodes that those touch."""
    scored = side.scored
    if granularity == "edge":
        return scored.edges
    if scored.granularity == "node":
        return scored.scores
    return scored.touched


def kept_names(side: Side, granularity: Granularity) -> tuple[str, ...]:
    """What the circuit keeps."""
    circuit = side.scored.circuit
    return circuit.edges or () if granularity == "edge" else circuit.nodes
