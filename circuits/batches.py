"""Batches: pairs of one token length, clean and corrupt aligned position by position.

The one idea: no padding anywhere. Pairs are sorted by length and cut into batches of equal length, so the
answer is always behind the last token and no mask is needed; those of one length are sorted by where clean and
corrupt begin to differ, for columns before that are not computed for any patch. A pair that does not fit is named.

A pair is a row, but where answers are scored as whole strings: there log p(a1 a2 | x) = log p(a1 | x) +
log p(a2 | x a1), and since no token sees a later one, x a1 beside its corrupted twin x' a1 patches x as x beside x'
does; so a pair is a row a token of each string, whose values `by_prompt` adds up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.engine.footprint import prompts_at_once
from circuits.errors import CircuitError, PromptError
from circuits.model import Model, Reader
from circuits.prompts import PromptPair


@dataclass(frozen=True)
class TokenPair:
    """A prompt pair as one model reads it, or one of its rows where answers are scored as whole strings.

    answers, distractors: token ids; positions: name -> token index; negative: tokens of the SAE method's
    negative (may differ in length).
    string: which of the pair's strings the row reads a token of, answers first; that token stands alone in
    `answers` or `distractors`. weight: of the row in the sum that is the pair's value.
    """

    clean: tuple[int, ...]
    corrupt: tuple[int, ...]
    answers: tuple[int, ...]
    distractors: tuple[int, ...]
    positions: Mapping[str, int]
    negative: tuple[int, ...]
    string: int | None = None
    weight: float = 1.0

    @property
    def first_difference(self) -> int:
        """The first position at which clean and corrupt differ; the length where they do not."""
        pairs = enumerate(zip(self.clean, self.corrupt, strict=True))
        return next((position for position, (a, b) in pairs if a != b), len(self.clean))


@dataclass(frozen=True)
class Batch:
    """Rows of one length. index: which pair of the prompt set each row is, or is a part of."""

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

    @property
    def weights(self) -> tuple[float, ...]:
        return tuple(p.weight for p in self.pairs)

    @property
    def has_strings(self) -> bool:
        """Whether any row is but a part of its pair."""
        return any(p.string is not None for p in self.pairs)

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


def places(batches: Sequence[Batch]) -> dict[int, int]:
    """Index of each pair that the rows are of -> its place among them, in the order of the prompt set."""
    return {index: n for n, index in enumerate(sorted({i for batch in batches for i in batch.index}))}


def n_prompts(batches: Sequence[Batch]) -> int:
    """How many pairs the rows are of."""
    return len(places(batches))


def by_prompt(batches: Sequence[Batch], values: Float[Tensor, "..."], dim: int = -1) -> Float[Tensor, "..."]:
    """Values of the rows of all batches, along `dim`, as values of the pairs in the order of the prompt set.

    Rows of one pair are added up by their weights.
    """
    index = [i for batch in batches for i in batch.index]
    if not any(batch.has_strings for batch in batches):
        return values.index_select(dim, torch.tensor(index, device=values.device).argsort())
    place = places(batches)
    shape = [1] * values.dim()
    shape[dim] = -1
    weights = values.new_tensor([w for batch in batches for w in batch.weights]).view(shape)
    rows = torch.tensor([place[i] for i in index], device=values.device)
    size = list(values.shape)
    size[dim] = len(place)
    return values.new_zeros(size).index_add_(dim, rows, values * weights)


def require_single_tokens(batches: Sequence[Batch], what: str) -> None:
    """Raises CircuitError where answers are whole strings, which `what` cannot read."""
    if any(batch.has_strings for batch in batches):
        raise CircuitError(
            f"{what} reads answers of one token, and these are scored as whole strings. "
            "Leave it out, or use --answers first-token."
        )


NEUTRAL = (".", "a", "=", "\n")
"""Texts that a word is asked behind where the tokenizer merges it with its own."""


def continuation(model: Reader, text: str, word: str) -> tuple[int, ...]:
    """The tokens that `word` adds behind `text`, as the tokenizer splits the whole.

    Where it merges across the seam the model reads `text` alone, so what can follow is the word as it is split
    behind something that it does not merge with; not the word on its own, before which some put a space.
    """
    before, after = model.tokenize(text)[0], model.tokenize(text + word)[0]
    if after[: len(before)] == before:
        return tuple(after[len(before) :])
    for other in NEUTRAL:
        seam, whole = _spoken(model, other), _spoken(model, other + word)
        if seam and whole[: len(seam)] == seam:
            return whole[len(seam) :]
    return _spoken(model, word)


def _spoken(model: Reader, text: str) -> tuple[int, ...]:
    """The tokens of `text` that stand for some of it."""
    if not text.strip():
        return ()
    return tuple(t for t, (a, b) in zip(*model.tokenize(text), strict=True) if b > a)


def _strings(model: Reader, pair: PromptPair, what: str, where: str) -> tuple[tuple[int, ...], ...]:
    """The tokens of each answer, or distractor; one each where the pair is scored so."""
    found = []
    for word in pair.answers if what == "answer" else pair.distractors:
        ids = continuation(model, pair.clean, word)
        if not ids or (pair.scoring == "one-token" and len(ids) != 1):
            split = _show(model, ids)
            raise PromptError(
                f"{where}: {what} {word!r} is {len(ids)} tokens for {model.name} ({split}); it must be 1. "
                "Score it by --answers first-token or whole-string, drop the pair, or choose another model."
            )
        if any(map(model.is_unknown, ids)):
            raise PromptError(f"{where}: {what} {word!r} is not in the vocabulary of {model.name}.")
        found.append(ids)
    return tuple(found)


def _show(model: Reader, tokens: Sequence[int]) -> str:
    return " ".join(repr(model.token_string(t)) for t in tokens)


def tokenize_pair(model: Reader, pair: PromptPair, where: str) -> TokenPair:
    """One pair as `model` reads it; `where` names it in errors ("prompt 3", "mine.jsonl line 3").

    Answers stand for their first token. Raises PromptError where clean and corrupt differ in length, an answer is
    not one token and must be, an answer is also a distractor, or a span holds no token.
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
    answers, distractors = (_strings(model, pair, what, where) for what in ("answer", "distractor"))
    if pair.scoring != "whole-string":
        answers, distractors = (tuple(s[:1] for s in side) for side in (answers, distractors))
    if both := set(answers) & set(distractors):
        begins = "the first token of " if pair.scoring == "first-token" else ""
        words = ", ".join(_show(model, ids) for ids in sorted(both))
        raise PromptError(f"{where}: {words} is {begins}both an answer and a distractor.")
    positions = {}
    for name, (start, stop) in pair.positions.items():
        inside = [i for i, (a, b) in enumerate(spans) if a < stop and b > start and b > a]
        if not inside:
            raise PromptError(f"{where}: position {name} ({start}, {stop}) holds no token of {pair.clean!r}.")
        positions[name] = inside[-1]
    negative = tuple(model.tokenize(pair.negative)[0]) if pair.negative else tuple(corrupt)
    first, wrong = (tuple(ids[0] for ids in side) for side in (answers, distractors))
    return TokenPair(tuple(clean), tuple(corrupt), first, wrong, positions, negative)


def tokenize_rows(model: Reader, pair: PromptPair, where: str) -> tuple[TokenPair, ...]:
    """The rows that a pair is: itself, or where answers are scored as whole strings one a token of each string.

    The value of a string is the sum over its tokens, that of the pair the mean over answers minus the mean over
    distractors. Raises PromptError as tokenize_pair does.
    """
    whole = tokenize_pair(model, pair, where)
    return tuple(_string_rows(model, pair, whole, where)) if pair.scoring == "whole-string" else (whole,)


def _string_rows(model: Reader, pair: PromptPair, whole: TokenPair, where: str) -> Iterator[TokenPair]:
    answers, distractors = (_strings(model, pair, what, where) for what in ("answer", "distractor"))
    for string, tokens in enumerate(answers + distractors):
        side = answers if string < len(answers) else distractors
        for n, token in enumerate(tokens):
            yield replace(
                whole,
                clean=whole.clean + tokens[:n],
                corrupt=whole.corrupt + tokens[:n],
                answers=(token,) if side is answers else (),
                distractors=() if side is answers else (token,),
                string=string,
                weight=1 / len(side),
            )


def unknown_words(model: Reader, pairs: Sequence[PromptPair]) -> tuple[str, ...]:
    """Words of the prompts that the model's vocabulary lacks, sorted."""
    return unknown_in(model, (text for pair in pairs for text in (pair.clean, pair.corrupt)))


def unknown_in(model: Reader, texts: Iterable[str]) -> tuple[str, ...]:
    """Words of texts that the model's vocabulary lacks, sorted."""
    missing = set()
    for text in texts:
        tokens, spans = model.tokenize(text)
        missing |= {text[a:b].strip() for t, (a, b) in zip(tokens, spans, strict=True) if model.is_unknown(t)}
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
    called = names or [f"prompt {i + 1}" for i in range(len(pairs))]
    rows = [(i, row) for i, pair in enumerate(pairs) for row in tokenize_rows(model, pair, called[i])]
    order = sorted((len(row.clean), row.first_difference, n) for n, (_, row) in enumerate(rows))
    batches = []
    while order:
        length, first, _ = order[0]
        at_once = min(batch_size, prompts_at_once(model, length, first))
        some = [rows[n] for other, _, n in order[:at_once] if other == length]
        order = order[len(some) :]
        batches.append(batch_of(model, tuple(i for i, _ in some), tuple(row for _, row in some)))
    return tuple(batches)


def batch_of(model: Model, index: tuple[int, ...], pairs: tuple[TokenPair, ...]) -> Batch:
    """Rows of one length as a batch on the model's device; index: which pair of the prompt set each is."""
    clean, corrupt = (
        torch.tensor([getattr(pair, side) for pair in pairs], device=model.device)
        for side in ("clean", "corrupt")
    )
    return Batch(index, clean, corrupt, pairs)
