"""Edge patching: what changes when one edge carries what it carries on the other prompt.

The one idea: run the clean prompt, and let one reader alone see what one source writes on the corrupt prompt
(noising), or the corrupt prompt with one edge restored (denoising). What every approximation of edge scores is
measured against. Sources: path patching between two nodes, Wang et al. 2022 (arXiv 2211.00593) and Goldowsky-Dill
et al. 2023 (arXiv 2304.05969).
Cost: a forward pass an edge and prompt, from the reader's layer up; sources below are worked out once for all.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from circuits.edge_patches import cut_effects, fitting_edges
from circuits.edge_scores import edge_scores
from circuits.methods.method import Method, Problem
from circuits.model import Model
from circuits.patches import ReplacementOptions
from circuits.rehearsal import rehearsed
from circuits.scores import Scores
from circuits.work import Workload


class EdgePatchingOptions(ReplacementOptions):
    edges: str = Field(
        "*",
        description="which edges: names or patterns, comma-separated, such as a0.*->* (others get no score)",
    )


def score(model: Model, problem: Problem, options: EdgePatchingOptions) -> Scores:
    """Effects in units of the metric, signs as in activation patching; a component's is the sum of its edges'.

    Raises ModelError where the engine does not cover the model, CircuitError for a pattern that fits no edge.
    """
    graph = model.graph
    edges = fitting_edges(graph, options.edges)
    effects = cut_effects(model, problem, options, METHOD.name, [[edge] for edge in edges])
    samples = np.zeros((len(effects), len(graph.sources), len(graph.readers)))
    rows, columns = zip(*(graph.places[edge] for edge in edges), strict=True)
    samples[:, rows, columns] = effects
    details = {"options": options.model_dump(), "unit": "change of the metric", "n_edges": len(edges)}
    return edge_scores(METHOD.name, graph, samples, details=details, measured=edges)


TRIED, PROMPTS = 256, 64
"""Edges, evenly spread, that tell of the rest; and prompts, for calls cost more than products on few."""


def work(model: Model, problem: Problem, options: EdgePatchingOptions) -> Workload:
    """Told by trying some edges."""
    edges = fitting_edges(model.graph, options.edges)
    some = edges[:: -(-len(edges) // TRIED)]
    few = options.model_copy(update={"edges": ",".join(some)})
    return rehearsed(score, model, problem, few, share=len(some) / len(edges), prompts=PROMPTS)


METHOD = Method(
    name="edge-patching",
    summary="exact effect of letting one edge alone carry what it carries on the other prompt",
    paper="Wang et al. 2022, arXiv 2211.00593",
    options=EdgePatchingOptions,
    score=score,
    work=work,
    granularity="edge",
)
