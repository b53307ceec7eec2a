"""The records of a run: what stands in run.json, nodes.csv, edges.csv, circuit.json and evaluation.json."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from circuits.records import plain
from cli.answers import scorings
from cli.own_prompts import own_record

if TYPE_CHECKING:
    import pandas as pd

    from circuits.discovery import Discovery, Finding
    from circuits.models.bridge import BridgeModel
    from cli.prompt_source import Prompts

LIBRARIES = ("circuit-toolkit", "torch", "transformers", "transformer-lens", "numpy", "scipy", "scikit-learn")


def links(found: Discovery, finding: Finding) -> dict[tuple[str, str], float | None]:
    """What joins the nodes of a circuit: its edges, those into q, k and v of a head taken together; or every legal
    link, where the score is one that this or another method measured."""
    if finding.circuit.edges is not None:
        return _joined(finding)
    measured: dict[tuple[str, str], float] = {}
    for other in reversed(found.findings):
        if other.scores.method != "sae" or other is finding:
            measured.update(other.scores.links)
    return {link: measured.get(link) for link in found.graph.links(finding.circuit.nodes)}


def _joined(finding: Finding) -> dict[tuple[str, str], float | None]:
    from circuits.circuit import ends

    value = dict(zip(finding.ranked.components, finding.ranked.values.tolist(), strict=True))
    total: dict[tuple[str, str], float | None] = {}
    for edge in finding.circuit.kept:
        total[ends(edge)] = (total.get(ends(edge)) or 0.0) + value[edge]
    return total


def records(found: Discovery, model: BridgeModel, drawn: Prompts) -> dict[str, Any]:
    """What circuits.runs.write_records writes, by the names that it gives them."""
    import pandas as pd

    from circuits.attention_samples import attention_samples

    return {
        "run": run_record(found, model, drawn),
        "prompts": found.prompts,
        "nodes": nodes_table(found),
        "edges": edges_table(found),
        "circuit": circuit_record(found),
        "evaluation": evaluation_record(found, drawn),
        "attention": attention_samples(model, found),
        "parts": parts_table(found),
        "sizes": sizes_table(found),
        **{
            name: pd.DataFrame(columns)
            for finding in found.findings
            for name, columns in finding.scores.tables.items()
        },
    }


def run_record(found: Discovery, model: BridgeModel, drawn: Prompts) -> dict[str, Any]:
    """run.json: what was asked for, on what, with what; everything that varies from run to run is under "cost"."""
    import torch

    from circuits.models.source import weights_hash
    from circuits.probes import probe

    plan = found.plan
    text = "".join(json.dumps(plain(pair), ensure_ascii=False) for pair in found.prompts)
    return {
        "config": {
            "task": drawn.name,
            **({"task_file": dict(drawn.source)} if drawn.source else {}),
            "form": drawn.form,
            "corruption": drawn.corruption,
            "model": found.model,
            "methods": {method.name: options.model_dump() for method, options in plan.methods},
            "metric": plan.metric,
            "answers": " and ".join(scorings(found.prompts)),
            "selection": plan.selection.model_dump(),
            "pairs": len(found.prompts),
            "batch_size": plan.batch_size,
            "random_circuits": plan.n_random,
            "seed": plan.seed,
            "device": ", ".join(map(str, model.devices)),
            "dtype": str(model.dtype).removeprefix("torch."),
            "bos": model.bos is not None,
            "memory": plan.memory,
            "verify": plan.verify,
            "missed": plan.missed,
            "judge_on": plan.judge_on,
        },
        "model": {
            "name": found.model,
            "weights_sha256": weights_hash(model.directory),
            **asdict(found.graph),
            "d_model": model.d_model,
            "patching": model.path,
            "probes": asdict(probe(model, torch.tensor([model.tokenize(found.prompts[0].clean)[0]]))),
        },
        "prompts": {
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
            "discovery": list(found.halves.discovery),
            "judged": list(found.halves.judged),
            "rejected_words": dict(drawn.rejected),
            **own_record(drawn),
            "screening": drawn.screening and drawn.screening.record(),
        },
        "references": {name: sorted(heads) for name, heads in plan.references.items()},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
        "cost": {
            "seconds": {finding.scores.method: round(finding.seconds, 3) for finding in found.findings},
            "peak_memory_bytes": _peak_memory(model),
            "memory_budget_bytes": model.memory,
        },
    }


def _peak_memory(model: BridgeModel) -> int | None:
    from circuits.memory import peak_bytes

    peaks = [peak_bytes(device) for device in model.devices]
    return sum(peak for peak in peaks if peak is not None) or None


def nodes_table(found: Discovery) -> pd.DataFrame:
    """One row a method, component and position ("all" first)."""
    import pandas as pd

    return pd.DataFrame([row for finding in found.findings for row in _node_rows(found, finding)])


def _node_rows(found: Discovery, finding: Finding) -> Iterator[dict[str, object]]:
    from circuits.statistics import bootstrap_interval

    scores = finding.scores
    if scores.unit == "estimate":  # pseudo-samples: their mean has a standard error, and no bootstrap
        low, high = scores.values - 1.96 * scores.stderr, scores.values + 1.96 * scores.stderr
    else:
        low, high = bootstrap_interval(scores.samples, seed=found.plan.seed)
    rank = {component: n for n, component in enumerate(scores.ranking(), start=1)}
    for i, component in enumerate(scores.components):
        node = found.graph.node(component)
        head = node.index if node.kind == "head" else None
        about = {
            "method": scores.method,
            "component": component,
            "kind": node.kind,
            "layer": node.layer,
            "head": head,
        }
        yield {
            **about,
            "position": "all",
            "score": scores.values[i],
            "stderr": scores.stderr[i],
            "low": low[i],
            "high": high[i],
            "rank": rank[component],
            "in_circuit": component in finding.circuit,
        }
        for position, values in scores.by_position.items():
            yield {
                **about,
                "position": position,
                "score": values[i],
                "in_circuit": component in finding.circuit,
            }


def parts_table(found: Discovery) -> pd.DataFrame:
    """One row a method, part and position ("all" first); empty where no method scored any."""
    import pandas as pd

    rows = [
        {"method": scores.method, "part": part, **row}
        for scores in (finding.scores.parts for finding in found.findings)
        if scores is not None
        for i, part in enumerate(scores.components)
        for row in (
            {"position": "all", "score": scores.values[i], "stderr": scores.stderr[i]},
            *({"position": place, "score": values[i]} for place, values in scores.by_position.items()),
        )
    ]
    return pd.DataFrame(rows)


def sizes_table(found: Discovery) -> pd.DataFrame:
    """One row a method and size of circuit: how faithful the first n of its ranking are; no interval where none is
    finite."""
    import numpy as np
    import pandas as pd

    rows = [
        {
            "method": finding.scores.method,
            "n": prefix.n,
            "kept": prefix.kept,
            "faithfulness": prefix.faithfulness.value,
            "low": prefix.faithfulness.low,
            "high": prefix.faithfulness.high,
            "ablation": finding.verdicts[0].ablation,
            "n_prompts": finding.verdicts[0].n_prompts,
        }
        for finding in found.findings
        for prefix in finding.sizes
    ]
    return pd.DataFrame(rows).replace([np.inf, -np.inf], np.nan)


def edges_table(found: Discovery) -> pd.DataFrame:
    """One row a method and edge: those inside its circuit, and all that the method measured.

    input: q, k or v where the edge enters a head there; empty for MLPs and logits, and for links of nodes.
    """
    import pandas as pd

    columns = ["method", "source", "target", "input", "score", "stderr", "in_circuit"]
    rows: list[tuple[object, ...]] = []
    for finding in found.findings:
        rows += _edge_rows(finding) if finding.scores.edges else _link_rows(found, finding)
    return pd.DataFrame(rows, columns=columns)


def _edge_rows(finding: Finding) -> Iterator[tuple[object, ...]]:
    scores, inside = finding.ranked, set(finding.circuit.kept)
    for edge, score, stderr in zip(scores.components, scores.values, scores.stderr, strict=True):
        yield finding.scores.method, *edge_columns(edge), score, stderr, edge in inside


def edge_columns(edge: str) -> tuple[str, str, str | None]:
    """Source, target and input of "a9.h6->a10.h0<q>"."""
    from circuits.circuit import ends

    _, _, entered = edge.partition("<")
    return *ends(edge), entered.rstrip(">") or None


def _link_rows(found: Discovery, finding: Finding) -> Iterator[tuple[object, ...]]:
    inside, measured = set(found.graph.links(finding.circuit.nodes)), finding.scores.links
    for link in sorted({*inside, *measured}, key=lambda pair: _place(found, pair)):
        yield finding.scores.method, *link, None, measured.get(link), None, link in inside


def _place(found: Discovery, link: tuple[str, str]) -> tuple[int, int]:
    order = {name: i for i, name in enumerate((*found.graph.sources, "logits"))}
    return order[link[0]], order[link[1]]


def circuit_record(found: Discovery) -> dict[str, Any]:
    """circuit.json: each method's circuit, the run's own first, with scores and what was measured of it."""
    return {
        "schema": "circuit/1",
        "model": {"name": found.model, **asdict(found.graph)},
        "circuits": [
            {
                "method": finding.scores.method,
                "selection": finding.circuit.selection,
                "selection_reached": finding.choice.reached,
                "granularity": "node" if finding.circuit.edges is None else "edge",
                "component_set": sorted({found.graph.node(c).kind for c in finding.scores.components}),
                "nodes": [
                    {"name": node, "score": finding.scores.of(node), "stderr": finding.scores.stderr_of(node)}
                    for node in finding.circuit.nodes
                ],
                "edges": list(_circuit_edges(found, finding)),
                "evaluation": [asdict(verdict) for verdict in finding.verdicts],
            }
            for finding in found.findings
        ],
    }


def _circuit_edges(found: Discovery, finding: Finding) -> Iterator[dict[str, object]]:
    names = ("source", "target", "input", "score", "stderr")
    if finding.circuit.edges is None:
        for link, score in links(found, finding).items():
            yield dict(zip(names, (*link, None, score, None), strict=True))
        return
    for row in _edge_rows(finding):
        if row[-1]:
            yield dict(zip(names, row[1:-1], strict=True))


def evaluation_record(found: Discovery, drawn: Prompts) -> dict[str, Any]:
    """evaluation.json: the model itself, every verdict with what makes it comparable, and the overlaps."""
    from circuits.evaluation.faithfulness import six_things
    from circuits.halves import NEW, SOLVED

    solved = SOLVED if drawn.screening and drawn.screening.keep_solved else ""
    prompts = f"{len(found.halves.judged)} judged prompts, {NEW[found.plan.judge_on]}{solved}"
    return {
        "baseline": asdict(found.baseline),
        "rounding": None if found.rounding is None else asdict(found.rounding),
        "methods": {
            finding.scores.method: {
                "selection": {
                    "rule": finding.circuit.selection,
                    "reached": finding.choice.reached,
                    "note": finding.choice.note,
                    "prefix": finding.choice.prefix,
                    "discovery_curve": finding.choice.curve,
                    "discovery_sizes": finding.choice.sizes,
                },
                "verdicts": [
                    {**asdict(v), "stated": six_things(v, finding.ranked.components, found.graph, prompts)}
                    for v in finding.verdicts
                ],
                "references": [asdict(known) for known in finding.matches],
                "audit": finding.audit and finding.audit.record(),
                "missed": finding.missed and finding.missed.record(),
                "details": finding.scores.details,
            }
            for finding in found.findings
        },
        "overlaps": [asdict(pair) for pair in found.overlaps],
    }
