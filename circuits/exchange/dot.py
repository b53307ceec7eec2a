"""A circuit as DOT, the language of Graphviz, written and read by hand: no Graphviz is needed.

The one idea: one statement a line; what the circuit leaves out is commented out, so Graphviz draws the circuit, a
reader of the file sees the scores of the rest, and nothing is lost.
Language: https://graphviz.org/doc/info/lang.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from circuits.errors import CircuitError
from circuits.exchange.fields import listable, mapping, number, number_or_none, shape
from circuits.exchange.format import Format
from circuits.graph import INPUT, LOGITS
from circuits.scored_circuit import Link, Measured, ScoredCircuit, chosen, edge_name, input_of

_SUPPORTS, _OPPOSES = "#2166ac", "#b2182b"
# JSON's text is DOT's: a backslash before a quote, and before itself.
_TEXT = r'"(?:[^"\\]|\\.)*"'
_STATEMENT = re.compile(
    rf"\s*(?P<out>// )?(?P<source>{_TEXT}|graph)(?: -> (?P<target>{_TEXT}))? \[(?P<rest>.*)\];"
)
_ATTRIBUTE = re.compile(rf"(\w+)=({_TEXT})")
_SHAPE = ("n_layers", "n_heads", "n_kv_heads", "parallel")


@dataclass(frozen=True)
class _Statement:
    """A node, or an edge where there is a target. kept: not commented out."""

    source: str
    target: str | None
    kept: bool
    attributes: dict[str, str]

    @property
    def where(self) -> str:
        return self.source if self.target is None else f"{self.source} -> {self.target}"

    def measured(self) -> Measured | None:
        """The score and its error, where there is one."""
        if "score" not in self.attributes:
            return None
        score, error = (_value(self.attributes.get(key, "null")) for key in ("score", "stderr"))
        return number(score, f"score of {self.where}"), number_or_none(error, f"stderr of {self.where}")


def write(scored: ScoredCircuit) -> bytes:
    """One line a statement; the same circuit gives the same bytes."""
    lines = ["digraph circuit {", f"  graph [{_attributes(_about(scored))}];", "  rankdir=BT;"]
    lines += [f"  {line}" for line in (*_node_lines(scored), *_edge_lines(scored))]
    return "\n".join([*lines, "}", ""]).encode()


def _about(scored: ScoredCircuit) -> dict[str, object]:
    graph, circuit = scored.graph, scored.circuit
    about: dict[str, object] = {key: json.dumps(getattr(graph, key)) for key in _SHAPE}
    about |= {
        "granularity": scored.granularity,
        "method": circuit.method,
        "selection": circuit.selection,
        "model": scored.model,
        "extras": json.dumps(scored.extras),
    }
    return about


def _attributes(values: dict[str, object]) -> str:
    return ", ".join(f"{key}={json.dumps(str(value), ensure_ascii=False)}" for key, value in values.items())


def _node_lines(scored: ScoredCircuit) -> Iterator[str]:
    kept = {INPUT, LOGITS, *scored.circuit.nodes}
    for name in (*scored.graph.sources, LOGITS):
        if name in kept or name in scored.scores:
            look: dict[str, object] = {"shape": "box" if name[0] == "m" else "ellipse"}
            line = f'"{name}" [{_attributes(look | _score(scored.scores.get(name)))}];'
            yield line if name in kept else f"// {line}"


def _score(measured: Measured | None) -> dict[str, object]:
    if measured is None:
        return {}
    score, error = measured
    side: dict[str, object] = {"score": repr(score), "color": _SUPPORTS if score >= 0 else _OPPOSES}
    return side | ({} if error is None else {"stderr": repr(error)})


def _edge_lines(scored: ScoredCircuit) -> Iterator[str]:
    for (source, target), score in scored.links.items():
        yield f'"{source}" -> "{target}" [{_attributes(_score(None if score is None else (score, None)))}];'
    kept = set(scored.circuit.edges or ())
    for edge in scored.listed:
        source, _, reader = edge.partition("->")
        about: dict[str, object] = {"input": input_of(edge) or ""} | _score(scored.edges.get(edge))
        line = f'"{source}" -> "{reader.partition("<")[0]}" [{_attributes(about)}];'
        yield line if edge in kept else f"// {line}"


def read(data: bytes) -> ScoredCircuit:
    """What write gave. Raises CircuitError where the text is no DOT of ours."""
    try:
        return _scored_circuit(_statements(data.decode("utf-8")))
    except (KeyError, ValueError, RecursionError) as problem:
        what = f"{type(problem).__name__} {problem}"
        raise CircuitError(f"This is no DOT that circuit wrote: {what}.") from problem


def _statements(written: str) -> list[_Statement]:
    lines = written.rstrip().split("\n")
    if lines[0] != "digraph circuit {" or lines[-1] != "}":
        raise CircuitError("This is no DOT that circuit wrote, or not all of it. Export it again.")
    found = []
    for n, line in enumerate(lines[1:-1], 2):
        if line.strip() in ("", "rankdir=BT;"):
            continue
        match = _STATEMENT.fullmatch(line)
        if match is None:
            raise CircuitError(
                f"This is no DOT that circuit wrote: line {n} is {line.strip()[:60]!r}. Export it again."
            )
        source, target = match["source"], match["target"]
        attributes = {key: str(json.loads(value)) for key, value in _ATTRIBUTE.findall(match["rest"])}
        found.append(
            _Statement(
                "" if source == "graph" else str(json.loads(source)),
                None if target is None else str(json.loads(target)),
                match["out"] is None,
                attributes,
            )
        )
    return found


def _value(attribute: str) -> object:
    return json.loads(attribute)


def _scored_circuit(statements: list[_Statement]) -> ScoredCircuit:
    about = next((s.attributes for s in statements if not s.source), {})
    graph = shape(*(_value(about[key]) for key in _SHAPE), where="the graph")
    nodes = [s for s in statements if s.source and s.target is None]
    edges, links = _edges_and_links(statements)
    for node in nodes:
        graph.node(node.source)
    if edges:
        listable(graph).require_edges(edges)
    granularity = about["granularity"]
    kept = {name for name, s in edges.items() if s.kept}
    return ScoredCircuit(
        graph=graph,
        circuit=chosen(
            graph,
            granularity,
            kept if granularity == "edge" else {s.source for s in nodes if s.kept},
            about["method"],
            about["selection"],
        ),
        scores={s.source: m for s in nodes if (m := s.measured()) is not None},
        links=links,
        edges={name: m for name, s in edges.items() if (m := s.measured()) is not None},
        model=about["model"],
        extras=mapping(json.loads(about["extras"]), "extras"),
    )


def _edges_and_links(
    statements: list[_Statement],
) -> tuple[dict[str, _Statement], dict[Link, float | None]]:
    """Edges say which input they enter; links, which take inputs together, do not."""
    edges: dict[str, _Statement] = {}
    links: dict[Link, float | None] = {}
    for s in statements:
        if s.target is None:
            continue
        if "input" in s.attributes:
            edges[edge_name(s.source, s.target, s.attributes["input"])] = s
        else:
            measured = s.measured()
            links[s.source, s.target] = None if measured is None else measured[0]
    return edges, links


FORMAT = Format(
    name="dot",
    summary="Graphviz: the circuit as a drawing, all other scores as comments.",
    extension=".dot",
    write=write,
    read=read,
    recognises=lambda data: data.lstrip().startswith((b"digraph", b"strict", b"graph {")),
)
