"""Batches: pairs of one token length, clean and corrupt aligned position by position.

The one idea: no padding anywhere. Pairs are sorted by length and cut into batches of equal length, so the
answer is always behind the last token and no mask is needed; those of one length are sorted by where clean and
corrupt begin to differ, for columns before that are not computed for any patch. A pair that does not fit is named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from circuits.engine.footprint import prompts_at_once
from circuits.errors import CircuitError, PromptError
from circuits.model import Model
from circuits.prompts import PromptPair


@dataclass(frozen=True)
class TokenPair:
    """A prompt pair as one model reads it.

    answers, distractors: token ids; positions: name -> token index; negative: tokens of the SAE method's
    negative (may differ in length).
    """

    clean: tuple[int, ...]
    corrupt: tuple[int, ...]
    answers: tuple[int, ...]
    distractors: tuple[int, ...]
    positions: Mapping[str, int]
    negative: tuple[int, ...]

    @property
    def first_difference(self) -> int:
        """The first position at which clean and corrupt differ; the length where they do not."""
        pairs = enumerate(zip(self.clean, self.corrupt, strict=True))
        return next((position for position, (a, b) in pairs if a != b), len(self.clean))


@dataclass(frozen=True)
class Batch:
    """Rows of one length. index: which pair of the prompt set each row is."""

    index: tuple[int, ...]
    clean: Int[Tensor, "batch pos"]
    corrupt: Int[Tensor, "batch pos"]
    pairs: tuple[TokenPair, ...]

    @property
    def answers(self) -> tuple[tuple[int, ...], ...]:
        return tuple(p.answers for p in self.pairs)

    @property
    def distractors(self) -> tuple[tuple[int, ...], ...]:
        return tuple(p.distractors for p in self.pairs)

    def where(self, keep: Callable[[int], bool]) -> Batch:
        """The rows whose prompt index `keep` accepts."""
        return self.of_rows([row for row, index in enumerate(self.index) if keep(index)])

    def of_rows(self, rows: Sequence[int]) -> Batch:
        """The rows that are named, as a batch of their own."""
        pairs = tuple(self.pairs[row] for row in rows)
        return Batch(tuple(self.index[row] for row in rows), self.clean[rows], self.corrupt[rows], pairs)

    def until(self, row: int) -> Batch:
        """The rows before `row`."""
        return Batch(self.index[:row], self.clean[:row], self.corrupt[:row], self.pairs[:row])

    def __len__(self) -> int:
        return len(self.pairs)


def first_prompts(batches: Sequence[Batch], n: int) -> tuple[Batch, ...]:
    """The batches with the first n prompts alone: which ones does not depend on how they are batched."""
    kept = (batch.where(lambda index: index < n) for batch in batches)
    return tuple(batch for batch in kept if len(batch))


def continuation(model: Model, text: str, word: str) -> tuple[int, ...]:
    """The tokens that `word` adds behind `text`, as the tokenizer splits the whole."""
    before, after = model.tokenize(text)[0], model.tokenize(text + word)[0]
    if after[: len(before)] != before:
        # The tokenizer merges across the seam: only the word on its own is left to ask.
        return tuple(t for t, (a, b) in zip(*model.tokenize(word), strict=True) if b > a)
    return tuple(after[len(before) :])


def _answer_tokens(model: Model, text: str, words: Sequence[str], what: str, where: str) -> tuple[int, ...]:
    tokens = []
    for word in words:
        ids = continuation(model, text, word)
        if len(ids) != 1:
            split = " ".join(repr(model.token_string(t)) for t in ids)
            raise PromptError(
                f"{where}: {what} {word!r} is {len(ids)} tokens for {model.name} ({split}); it must be 1. "
                "Drop the pair, use another word, or choose another model."
            )
        if model.is_unknown(ids[0]):
            raise PromptError(f"{where}: {what} {word!r} is not in the vocabulary of {model.name}.")
        tokens.append(ids[0])
    return tuple(tokens)


def _show(model: Model, tokens: Sequence[int]) -> str:
    return " ".join(repr(model.token_string(t)) for t in tokens)


def tokenize_pair(model: Model, pair: PromptPair, where: str) -> TokenPair:
    """One pair as `model` reads it; `where` names it in errors ("prompt 3", "mine.jsonl line 3").

    Raises PromptError where clean and corrupt differ in length, an answer is not one token, an answer is
    also a distractor, or a span holds no token.
    """
    clean, spans = model.tokenize(pair.clean)
    corrupt = model.tokenize(pair.corrupt)[0]
    if len(clean) != len(corrupt):
        raise PromptError(
            f"{where}: clean is {len(clean)} tokens and corrupt {len(corrupt)} for {model.name}; they must align.\n"
            f"  clean:   {_show(model, clean)}\n  corrupt: {_show(model, corrupt)}"
        )
    if clean == corrupt:
        what = "text" if pair.clean == pair.corrupt else f"tokens for {model.name}"
        raise PromptError(
            f"{where}: clean and corrupt are the same {what}, so nothing can be patched: "
            f"{pair.clean!r}, {pair.corrupt!r}."
        )
    answers = _answer_tokens(model, pair.clean, pair.answers, "answer", where)
    distractors = _answer_tokens(model, pair.clean, pair.distractors, "distractor", where)
    if both := set(answers) & set(distractors):
        raise PromptError(f"{where}: {_show(model, sorted(both))} is both an answer and a distractor.")
    positions = {}
    for name, (start, stop) in pair.positions.items():
        inside = [i for i, (a, b) in enumerate(spans) if a < stop and b > start and b > a]
        if not inside:
            raise PromptError(f"{where}: position {name} ({start}, {stop}) holds no token of {pair.clean!r}.")
        positions[name] = inside[-1]
    negative = tuple(model.tokenize(pair.negative)[0]) if pair.negative else tuple(corrupt)
    return TokenPair(tuple(clean), tuple(corrupt), answers, distractors, positions, negative)


def unknown_words(model: Model, pairs: Sequence[PromptPair]) -> tuple[str, ...]:
    """Words of the prompts that the model's vocabulary lacks, sorted."""
    missing = set()
    for pair in pairs:
        for text in (pair.clean, pair.corrupt):
            tokens, spans = model.tokenize(text)
            missing |= {
                text[a:b].strip() for t, (a, b) in zip(tokens, spans, strict=True) if model.is_unknown(t)
            }
    return tuple(sorted(missing - {""}))


def make_batches(
    model: Model, pairs: Sequence[PromptPair], *, batch_size: int = 64, names: Sequence[str] | None = None
) -> tuple[Batch, ...]:
    """Batches of at most `batch_size` rows of one length, shortest first, and of no more than memory holds.

    names: what errors call each pair; "prompt 1", "prompt 2" ... where None.
    Raises PromptError (see tokenize_pair), and where there are no pairs; CircuitError where memory is short even
    for one.
    """
    if not pairs:
        raise PromptError("There are no prompts to work on.")
    if batch_size < 1:
        raise CircuitError(f"A batch of {batch_size} prompts is too small; --batch-size must be at least 1.")
    tokenized = [
        tokenize_pair(model, pair, names[i] if names else f"prompt {i + 1}") for i, pair in enumerate(pairs)
    ]
    order = sorted((len(pair.clean), pair.first_difference, i) for i, pair in enumerate(tokenized))
    batches = []
    while order:
        length, first, _ = order[0]
        at_once = min(batch_size, prompts_at_once(model, length, first))
        index = tuple(i for other, _, i in order[:at_once] if other == length)
        order = order[len(index) :]
        batches.append(_batch(model, index, tuple(tokenized[i] for i in index)))
    return tuple(batches)


def _batch(model: Model, index: tuple[int, ...], pairs: tuple[TokenPair, ...]) -> Batch:
    clean, corrupt = (
        torch.tensor([getattr(pair, side) for pair in pairs], device=model.device)
        for side in ("clean", "corrupt")
    )
    return Batch(index, clean, corrupt, pairs)
