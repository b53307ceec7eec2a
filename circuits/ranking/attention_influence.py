"""AttentionInfluence: how much worse a text is predicted by a model whose retrieval heads look evenly.

    score = (loss of the masked model - loss of the model) / loss of the model       (mean token cross-entropy)

The one idea: where masking hurts most, the text asks for what these heads do. Whether it is their doing is said by as
many random heads of the same layers, masked in their place: `excess` is the score less the mean of theirs.
Source: AttentionInfluence (arXiv 2505.07293): the first 5 % of heads by retrieval score; texts compared within one
domain. The excess over random heads by text is ours: the paper has that control for benchmarks.
Cost: two forward passes a text, and one more for each random set.
Trap: a text that is predicted with hardly any loss has a score that explodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from circuits.errors import CircuitError, ModelError
from circuits.graph import Graph
from circuits.head_masking import Mask, mask_of, masked_residual, random_sets
from circuits.model import Model
from circuits.patching import engine_weights
from circuits.progress import Progress, silent
from circuits.ranking.texts import Text, by_length

SHARE, DRAWS, AT_ONCE = 0.05, 5, 16


@dataclass(frozen=True)
class Influence:
    """losses: of the model, and masked. random: scores with random heads masked, a row a draw. heads: masked.

    same_layers: whether random sets have as many heads in each layer.
    """

    heads: tuple[str, ...]
    loss: Float[np.ndarray, "text"]
    masked_loss: Float[np.ndarray, "text"]
    drawn: tuple[tuple[str, ...], ...]
    random: Float[np.ndarray, "draw text"]
    same_layers: bool

    @property
    def scores(self) -> Float[np.ndarray, "text"]:
        return np.asarray(self.masked_loss / self.loss - 1)

    @property
    def excess(self) -> Float[np.ndarray, "text"]:
        """Of the score over the mean of random heads; the score itself where there are none to draw."""
        return np.asarray(self.scores - self.random.mean(0)) if len(self.random) else self.scores


def attention_influence(
    model: Model,
    texts: Sequence[Text],
    heads: Sequence[str],
    *,
    seed: int = 0,
    draws: int = DRAWS,
    progress: Progress = silent,
) -> Influence:
    """Raises ModelError where the engine does not serve, CircuitError for a text without any loss."""
    require_readable(model, texts)
    drawn, same_layers = random_sets(model.graph, heads, draws, seed)
    masks = [None, mask_of(model.graph, heads), *(mask_of(model.graph, some) for some in drawn)]
    rows = []
    for done, mask in enumerate(masks):
        rows.append(losses(model, texts, mask))
        progress("attention-influence", done + 1, len(masks))
    if (rows[0] <= 0).any():
        line = texts[int(rows[0].argmin())].line
        raise CircuitError(
            f"The text of line {line} has no loss at all, so a ratio to it is no number. Leave it out."
        )
    random = np.stack(rows[2:]) / rows[0] - 1 if drawn else np.zeros((0, len(texts)))
    return Influence(tuple(heads), rows[0], rows[1], drawn, random, same_layers)


def first_heads(graph: Graph, ranking: Sequence[str], share: float = SHARE) -> tuple[str, ...]:
    """The first `share` of all heads of a ranking, one at least."""
    return tuple(ranking[: max(1, round(share * len(graph.heads)))])


def require_readable(model: Model, texts: Sequence[Text]) -> None:
    """Raises ModelError where the engine does not serve the model, or texts of such a length."""
    longest = max(len(text.tokens) for text in texts)
    if engine_weights(model, longest) is None:
        why = model.path if model.weights is None else f"a text has {longest} tokens"
        raise ModelError(
            f"Texts are ranked by the exact engine, which does not serve {model.name} here ({why}). "
            "Choose another model, or shorter texts."
        )


@torch.inference_mode()
def losses(model: Model, texts: Sequence[Text], mask: Mask | None = None) -> Float[np.ndarray, "text"]:
    """Mean cross-entropy of each text's tokens but the first, in nats; heads of the mask look evenly."""
    weights = model.weights
    assert weights is not None, "see require_readable"
    found = np.zeros(len(texts))
    for places, tokens in by_length(texts, AT_ONCE):
        tokens = tokens.to(model.device)
        logits = weights.logits(masked_residual(weights, tokens, mask)[:, :-1]).log_softmax(-1)
        said = logits.gather(2, tokens[:, 1:, None])[..., 0]
        found[places] = -said.double().mean(1).cpu().numpy()
    return found
