"""Copying heads: attending to a token, they raise that token.

Score: share of random tokens that the head's OV circuit, fed what the first layer's MLP makes of the token (beside
its embedding), raises to the first five of the vocabulary. Source: Wang et al. 2022, section 3.1 and appendix: the
copying score of name movers, there on names.
"""

from __future__ import annotations

import torch

from circuits.roles.role import Evidence, Measured, Role
from circuits.roles.writes import among_first, chance_of_first, through_first_mlp

TOKENS = 128


def measure(evidence: Evidence) -> Measured:
    weights = evidence.weights
    tokens = torch.tensor(evidence.tokens[:TOKENS], device=evidence.model.device)
    embedded = weights.token_embedding(tokens)
    above = embedded + through_first_mlp(weights, tokens)
    layers = range(len(weights.layers))
    copied = [among_first(weights, depth, above if depth else embedded, tokens) for depth in layers]
    return Measured(torch.cat(copied, 1).float(), "token", chance_of_first(weights), counts=True)


ROLE = Role(
    name="copying",
    definition="share of random tokens that the OV circuit raises to the first five of the vocabulary",
    paper="Wang et al. 2022, arXiv 2211.00593",
    measure=measure,
)
