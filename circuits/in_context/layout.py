"""Where a few-shot prompt has its examples: the text x_i, the forerunner token s_i, the label y_i, and x_q, s_q.

The one idea: a prompt ends where a label is due, so its last token is the forerunner; an example's label is one of
the prompt's labels (its answers and distractors) behind that same token. Read off the tokens that the model sees, so
any prompts will do that are written alike. Source: Cho et al. 2024 (arXiv 2410.04468); that x_i is all between the
label before and the forerunner, template words too, is our definition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from circuits.batches import Batch, TokenPair, require_single_tokens
from circuits.errors import PromptError
from circuits.model import Reader
from circuits.prompts import PromptPair


@dataclass(frozen=True)
class Layout:
    """Columns of one prompt. right: which examples have a label that is an answer."""

    texts: tuple[tuple[int, ...], ...]
    forerunners: tuple[int, ...]
    labels: tuple[int, ...]
    right: tuple[bool, ...]
    asked: tuple[int, ...]
    end: int


@dataclass(frozen=True)
class FewShot:
    """A batch, and where its prompts have their examples."""

    batch: Batch
    layouts: tuple[Layout, ...]


def few_shot(model: Reader, pairs: Sequence[PromptPair], batches: Sequence[Batch]) -> tuple[FewShot, ...]:
    """Raises PromptError for the first prompt without examples, CircuitError where answers are whole strings."""
    require_single_tokens(batches, "in-context")
    rows = {i: pair for batch in batches for i, pair in zip(batch.index, batch.pairs, strict=True)}
    found = {i: layout(model, rows[i], _special(model, pairs[i]), i) for i in sorted(rows)}
    return tuple(FewShot(batch, tuple(found[i] for i in batch.index)) for batch in batches)


def layout(model: Reader, pair: TokenPair, special: int, index: int) -> Layout:
    """Of one prompt, whose first `special` tokens are no text; index: its place, for errors."""
    tokens, names = pair.clean, {*pair.answers, *pair.distractors}
    end = len(tokens) - 1
    labels = [i for i in range(special + 2, end) if tokens[i] in names and tokens[i - 1] == tokens[end]]
    right = tuple(tokens[i] in pair.answers for i in labels)
    if all(right) or not any(right):
        raise PromptError(_problem(model, pair, right, index))
    starts = [special, *(i + 1 for i in labels)]
    texts = [
        tuple(range(start, stop - 1)) for start, stop in zip(starts, [*labels, len(tokens) + 1], strict=True)
    ]
    asked = tuple(range(starts[-1], end))
    if not all([*texts[:-1], asked]):
        raise PromptError(f"prompt {index + 1} has a label with no text before it: nothing to learn from.")
    return Layout(tuple(texts[:-1]), tuple(i - 1 for i in labels), tuple(labels), right, asked, end)


def _special(model: Reader, pair: PromptPair) -> int:
    """How many tokens stand before the text."""
    spans = model.tokenize(pair.clean)[1]
    return next(i for i, (start, stop) in enumerate(spans) if stop > start)


def _problem(model: Reader, pair: TokenPair, right: Sequence[bool], index: int) -> str:
    spelled = ", ".join(repr(model.token_string(token)) for token in (*pair.answers, *pair.distractors))
    shown = f"{len(right)} example{'s' if len(right) != 1 else ''}"
    if right:
        shown += f", {'all' if all(right) else 'none'} of the answer's label"
    return (
        f"prompt {index + 1} shows {shown}. An example is one of its labels ({spelled}) right behind the token that "
        f"the prompt ends with, {model.token_string(pair.clean[-1])!r}; examples of the answer's label and of "
        "another are needed. Take a few-shot task such as in-context-classification, or such prompts."
    )
