"""What is asked: prompts of one length, the token that the model says behind each, and which tokens may be changed.

The one idea: importance is of the prompt's own tokens for the model's own next token; what the model wants before
every text is nobody's to change. Replacements are drawn evenly from the tokens that stand for text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.errors import CircuitError
from circuits.model import Edit, Model, Site


@dataclass(frozen=True)
class Prediction:
    """tokens: prompts of one length. own: the model's next-token distribution. free: columns of the text.

    replacements: tokens that others may be exchanged for."""

    model: Model
    tokens: Int[Tensor, "prompt pos"]
    own: Float[Tensor, "prompt vocab"]
    free: Bool[Tensor, "pos"]
    replacements: Int[Tensor, "token"]

    @property
    def said(self) -> Int[Tensor, "prompt"]:
        """The model's next token."""
        return self.own.argmax(-1)

    @property
    def probability(self) -> Float[Tensor, "prompt"]:
        """Of that token."""
        return self.own.amax(-1)

    def of(self, tokens: Int[Tensor, "row pos"], edit: Edit | None = None) -> Float[Tensor, "row vocab"]:
        """Probabilities behind these tokens, whose embeddings `edit` may change."""
        edits = {Site("input", 0): edit} if edit else {}
        return self.model.run(tokens, edit=edits).logits.softmax(-1)

    @property
    def n_free(self) -> int:
        return int(self.free.sum())


def predict(
    model: Model, tokens: Int[Tensor, "prompt pos"], n_opening: int, replacements: Int[Tensor, "token"]
) -> Prediction:
    """One forward pass. Raises CircuitError for prompts with fewer than two tokens of text."""
    free = torch.arange(tokens.shape[1], device=tokens.device) >= n_opening
    if int(free.sum()) < 2:
        text = " ".join(model.token_string(int(t)) for t in tokens[0])
        raise CircuitError(
            f"{text!r} has fewer than 2 tokens of text, so there is nothing to choose between. "
            "Give a longer prompt."
        )
    return Prediction(model, tokens, model.run(tokens).logits.softmax(-1), free, replacements)


def text_tokens(model: Model, vocabulary: int) -> Int[Tensor, "token"]:
    """Tokens that stand for text: no special ones, no padding of the vocabulary."""
    found = [token for token in range(vocabulary) if _stands_for_text(model, token)]
    return torch.tensor(found, device=model.device)


def _stands_for_text(model: Model, token: int) -> bool:
    spelling = model.token_string(token)
    special = spelling[:1] + spelling[-1:] in ("<>", "[]") and len(spelling) > 2
    return not (special or spelling == "None" or model.is_unknown(token))


Importance = Float[Tensor, "prompt pos"]
"""Of every token of the text, none negative, summing to 1 over a prompt; 0 elsewhere."""

Explain = Callable[[Prediction, torch.Generator], Importance]


def gradient_by_input(asked: Prediction) -> Importance:
    """|sum over the embedding of input x gradient of log p|: first order, one forward pass and a backward."""
    site, said = Site("input", 0), asked.said

    def log_probability(logits: Float[Tensor, "prompt vocab"]) -> Float[Tensor, "prompt"]:
        return logits.log_softmax(-1).gather(1, said[:, None])[:, 0]

    inputs, slopes = asked.model.gradients(asked.tokens, [site], log_probability)
    sizes = (inputs[site].float() * slopes[site].float()).sum(-1).abs() * asked.free
    return even_where_nothing(sizes, asked)


def even_where_nothing(sizes: Float[Tensor, "prompt pos"], asked: Prediction) -> Importance:
    """As shares; where all are 0, the same for all."""
    total = sizes.sum(1, keepdim=True)
    even = asked.free.float()[None] / asked.n_free
    return torch.where(total > 0, sizes / total.clamp_min(torch.finfo(torch.float32).tiny), even)


def shuffled(importance: Importance, free: Bool[Tensor, "pos"], generator: torch.Generator) -> Importance:
    """The same numbers at random tokens: what an importance of this shape is worth by chance."""
    found, columns = importance.clone(), free.nonzero()[:, 0]
    for row in range(len(importance)):
        order = torch.randperm(len(columns), generator=generator).to(columns.device)
        found[row, columns] = importance[row, columns[order]]
    return found
