"""Attention samples: where some heads of a run look on a few of its judged prompts, with the tokens as text.

The one idea: attention is looked at one head and one prompt at a time, so few of both are enough, and so are per
mille. They are read off the model's own forward pass, on any model; clean and corrupt run side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, zip_longest

import torch
from torch import Tensor

from circuits.batches import TokenPair, tokenize_pair
from circuits.discovery import Discovery, Finding
from circuits.model import Model, Reader, Site
from circuits.prompts import PromptPair

FORMAT_VERSION = 1
PROMPTS, HEADS = 3, 24

LONG = 48
"""Tokens above which only the rows of named positions are kept, and that of the last token."""

NUMBERS = 400_000
"""At most: 2 MB if each had four digits and a comma. Of prompts so long that there would be more, fewer heads."""

SIDES = ("clean", "corrupt")


def attention_samples(model: Model, found: Discovery) -> dict[str, object] | None:
    """attention.json of the run; None where the model's patterns cannot be had. One forward pass a prompt.

    heads: name -> of each prompt and side, the queries that have a row, and what they give each source up to
    themselves, in per mille. Those of the circuits come first, then the largest by score.
    """
    indices = sample(found.prompts, found.halves.judged)
    pairs = [tokenize_pair(model, found.prompts[i], f"prompt {i + 1}") for i in indices]
    named = max(len(pair.clean) for pair in pairs) > LONG
    queries = [_queries(pair, named) for pair in pairs]
    most = NUMBERS // sum(len(SIDES) * (query + 1) for rows in queries for query in rows)
    heads = wanted(found.findings)[: min(HEADS, most)]
    if not heads:
        return None
    try:
        seen = [_patterns(model, *each, heads) for each in zip(pairs, queries, strict=True)]
    except Exception:  # whatever an architecture lacks here, the run is whole without it
        return None
    prompts = [_prompt(model, found.prompts[i], i, pair) for i, pair in zip(indices, pairs, strict=True)]
    return {
        "format_version": FORMAT_VERSION,
        "prompts": prompts,
        "queries": "named" if named else "all",
        "heads": {head: [of_heads[head] for of_heads in seen] for head in heads},
    }


def sample(prompts: Sequence[PromptPair], judged: Sequence[int]) -> tuple[int, ...]:
    """The first judged prompt of each template, and where templates are too few the next ones; no text twice."""
    by_text = {prompts[i].clean: i for i in reversed(judged)}
    once = sorted(by_text.values())
    first = {prompts[i].template: i for i in reversed(once)}
    chosen = dict.fromkeys([*sorted(first.values()), *once])
    return tuple(sorted(list(chosen)[:PROMPTS]))


def wanted(findings: Sequence[Finding]) -> tuple[str, ...]:
    """Heads, the most wanted first: of each circuit by score, then by score of all methods in turn."""
    rankings = [[c for c in finding.scores.ranking() if c[0] == "a"] for finding in findings]
    of_circuits = (
        head
        for finding, ranking in zip(findings, rankings, strict=True)
        for head in sorted(finding.circuit.heads, key=ranking.index)
    )
    in_turn = chain.from_iterable(zip_longest(*rankings))
    return tuple(dict.fromkeys(head for head in chain(of_circuits, in_turn) if head is not None))


def _queries(pair: TokenPair, named: bool) -> list[int]:
    last = len(pair.clean) - 1
    return sorted({*pair.positions.values(), last}) if named else list(range(last + 1))


def _patterns(
    model: Model, pair: TokenPair, queries: list[int], heads: Sequence[str]
) -> dict[str, dict[str, dict[str, object]]]:
    """Head -> side -> its rows."""
    seen: dict[int, Tensor] = {}

    def keeping(layer: int) -> Callable[[Tensor], Tensor]:
        def keep(pattern: Tensor) -> Tensor:
            seen[layer] = (1000 * pattern[:, :, queries].float()).round().int().cpu()
            return pattern

        return keep

    nodes = {head: model.graph.node(head) for head in heads}
    tokens = torch.tensor([pair.clean, pair.corrupt], device=model.device)
    model.run(tokens, edit={Site("pattern", node.layer): keeping(node.layer) for node in nodes.values()})
    return {
        head: {
            side: {"queries": queries, "rows": list(_rows(seen[node.layer][n, node.index], queries))}
            for n, side in enumerate(SIDES)
        }
        for head, node in nodes.items()
    }


def _rows(per_mille: Tensor, queries: Sequence[int]) -> Iterator[list[int]]:
    """What no query sees, the sources behind it, is left out."""
    for row, query in zip(per_mille.tolist(), queries, strict=True):
        yield row[: query + 1]


def _prompt(model: Reader, prompt: PromptPair, index: int, pair: TokenPair) -> dict[str, object]:
    """index: into prompts.jsonl."""
    places = {"END": len(pair.clean) - 1} | dict(pair.positions)
    return {
        "prompt": index,
        "clean": spelled(model, prompt.clean),
        "corrupt": spelled(model, prompt.corrupt),
        "positions": dict(sorted(places.items(), key=lambda place: place[1])),
    }


def spelled(model: Reader, text: str) -> list[str]:
    """The tokens of `text` as the vocabulary spells them, spaces too.

    Byte-level vocabularies spell what is not ASCII in bytes: such a token is the part of the text that it stands in.
    """
    return [
        _spelled(model.token_string(token), text[a:b])
        for token, (a, b) in zip(*model.tokenize(text), strict=True)
    ]


def _spelled(shown: str, part: str) -> str:
    return shown if shown.isascii() or not part else " " * shown.startswith(" ") + part.strip(" ")
