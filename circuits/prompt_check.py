"""Prompts under the doctor: do the pairs fit the model, are they balanced, and what leaks from half to half?

The one idea: nothing is refused here. Every pair is looked at as far as it can be read, and what is found of all of
them is a value; no forward pass is needed. What the model makes of them is circuits.behaviour.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from circuits.batches import continuation, tokenize_pair, unknown_words
from circuits.errors import PromptError
from circuits.halves import Halves, JudgeOn, split
from circuits.model import Model
from circuits.prompts import PromptPair

Groups = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Alignment:
    """Clean and corrupt, token by token. Counts: a number of tokens, or a position -> how many pairs.

    lengths: of clean. unequal, same_text, same_tokens: pairs by index.
    first_differences, n_differences: where clean and corrupt begin to differ, and in how many tokens they do.
    """

    lengths: Mapping[int, int]
    unequal: tuple[int, ...]
    same_text: tuple[int, ...]
    same_tokens: tuple[int, ...]
    first_differences: Mapping[int, int]
    n_differences: Mapping[int, int]


@dataclass(frozen=True)
class Words:
    """answer_lengths, distractor_lengths: tokens -> how many answers have as many.

    unknown: words of the prompts that the vocabulary lacks. unknown_answers: pairs whose answer or distractor it
    lacks.
    """

    answer_lengths: Mapping[int, int]
    distractor_lengths: Mapping[int, int]
    unknown: tuple[str, ...]
    unknown_answers: tuple[int, ...]


@dataclass(frozen=True)
class Copies:
    """Pairs that are the same prompt: by its text, and by its tokens. contradicting: of them, with other answers."""

    by_text: Groups
    by_tokens: Groups
    contradicting: Groups

    @property
    def extra(self) -> int:
        """Pairs that repeat another."""
        return sum(len(group) - 1 for group in self.by_tokens or self.by_text)


@dataclass(frozen=True)
class Leaks:
    """Of the judged pairs, how many have what a discovered pair had.

    tokens_but_names: the same clean tokens where answers and distractors are left out. words: these themselves.
    """

    n_judged: int
    text: int
    tokens: int
    tokens_but_names: int
    key: int
    words: int
    template: int


@dataclass(frozen=True)
class Balance:
    """How often each value occurs, the most frequent first.

    answer_first, answer_second: pairs whose prompt has answer and distractor, in this order or the other; the
    rest lack one of them.
    """

    templates: Mapping[str, int]
    answers: Mapping[str, int]
    distractors: Mapping[str, int]
    answer_first: int
    answer_second: int


@dataclass(frozen=True)
class PromptCheck:
    """All that can be said of pairs without running the model. unusable: index -> why no run can use the pair."""

    n: int
    unusable: Mapping[int, str]
    alignment: Alignment
    words: Words
    copies: Copies
    balance: Balance
    leaks: Leaks | None


@dataclass(frozen=True)
class _Read:
    """A pair's tokens. answers, distractors: those that each word adds behind clean."""

    pair: PromptPair
    clean: tuple[int, ...]
    corrupt: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]
    distractors: tuple[tuple[int, ...], ...]

    @property
    def words(self) -> frozenset[int]:
        return frozenset(t for ids in (*self.answers, *self.distractors) for t in ids)


def check_prompts(
    model: Model, pairs: Sequence[PromptPair], *, seed: int = 0, judge_on: JudgeOn = "prompts"
) -> PromptCheck:
    """Looks at every pair. seed, judge_on: of the halves that leaks are looked for in."""
    unusable = dict(_unusable(model, pairs))
    read = dict(_read(model, pairs))
    return PromptCheck(
        len(pairs),
        unusable,
        _alignment(read),
        _words(model, read),
        _copies(pairs, read),
        _balance(pairs),
        _leaks(pairs, read, _halves(pairs, seed, judge_on)),
    )


def require_usable(check: PromptCheck, model: str, most: int = 10) -> None:
    """Raises PromptError that names the unusable pairs, where there are any."""
    if not check.unusable:
        return
    told = [f"prompt {i + 1}: {why}" for i, why in check.unusable.items()]
    if len(told) == 1:
        raise PromptError(told[0])
    more = f"\n... and {len(told) - most} more" if len(told) > most else ""
    raise PromptError(
        f"{len(told)} of {check.n} prompts cannot be used with {model}:\n" + "\n".join(told[:most]) + more
    )


def _unusable(model: Model, pairs: Sequence[PromptPair]) -> Iterator[tuple[int, str]]:
    for i, pair in enumerate(pairs):
        try:
            tokenize_pair(model, pair, "")
        except PromptError as problem:
            yield i, str(problem).removeprefix(": ")


def _read(model: Model, pairs: Sequence[PromptPair]) -> Iterator[tuple[int, _Read]]:
    """Those that are no longer than the model's context."""
    for i, pair in enumerate(pairs):
        try:
            clean, corrupt = (tuple(model.tokenize(text)[0]) for text in (pair.clean, pair.corrupt))
            answers, distractors = (
                tuple(continuation(model, pair.clean, word) for word in words)
                for words in (pair.answers, pair.distractors)
            )
        except PromptError:
            continue
        yield i, _Read(pair, clean, corrupt, answers, distractors)


def _alignment(read: Mapping[int, _Read]) -> Alignment:
    aligned = [pair for pair in read.values() if len(pair.clean) == len(pair.corrupt)]
    differing = [
        [n for n, (a, b) in enumerate(zip(pair.clean, pair.corrupt, strict=True)) if a != b]
        for pair in aligned
        if pair.clean != pair.corrupt
    ]
    return Alignment(
        _counts(len(pair.clean) for pair in read.values()),
        tuple(i for i, pair in read.items() if len(pair.clean) != len(pair.corrupt)),
        tuple(i for i, pair in read.items() if pair.pair.clean == pair.pair.corrupt),
        tuple(i for i, pair in read.items() if pair.clean == pair.corrupt),
        _counts(places[0] for places in differing),
        _counts(len(places) for places in differing),
    )


def _counts(values: Iterator[int]) -> dict[int, int]:
    return dict(sorted(Counter(values).items()))


def _words(model: Model, read: Mapping[int, _Read]) -> Words:
    return Words(
        _counts(len(ids) for pair in read.values() for ids in pair.answers),
        _counts(len(ids) for pair in read.values() for ids in pair.distractors),
        unknown_words(model, [pair.pair for pair in read.values()]),
        tuple(i for i, pair in read.items() if any(model.is_unknown(t) for t in pair.words)),
    )


def _copies(pairs: Sequence[PromptPair], read: Mapping[int, _Read]) -> Copies:
    by_text = _same(range(len(pairs)), lambda i: pairs[i].clean)
    by_tokens = _same(read, lambda i: read[i].clean)
    return Copies(
        by_text,
        by_tokens,
        tuple(group for group in by_text if len({frozenset(pairs[i].answers) for i in group}) > 1),
    )


def _same(places: Mapping[int, _Read] | range, of: Callable[[int], Hashable]) -> Groups:
    groups = defaultdict[Hashable, list[int]](list)
    for i in places:
        groups[of(i)].append(i)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def _balance(pairs: Sequence[PromptPair]) -> Balance:
    orders = [_answer_is_first(pair) for pair in pairs]
    return Balance(
        dict(Counter(pair.template for pair in pairs).most_common()),
        dict(Counter(word for pair in pairs for word in pair.answers).most_common()),
        dict(Counter(word for pair in pairs for word in pair.distractors).most_common()),
        orders.count(True),
        orders.count(False),
    )


def _answer_is_first(pair: PromptPair) -> bool | None:
    """Of answer and distractor, as the prompt has them in whatever case; None where it lacks one."""
    answer, distractor = (_first_place(pair.clean, words) for words in (pair.answers, pair.distractors))
    return None if answer is None or distractor is None else answer < distractor


def _first_place(text: str, words: Sequence[str]) -> int | None:
    """Where any of the words begins first, as a whole word."""
    found = (re.search(rf"(?<!\w){re.escape(word.strip())}(?!\w)", text, re.IGNORECASE) for word in words)
    return min((match.start() for match in found if match), default=None)


def _halves(pairs: Sequence[PromptPair], seed: int, judge_on: JudgeOn) -> Halves | None:
    try:
        return split(pairs, seed, judge_on)
    except PromptError:  # too few prompts, or too few templates, for halves
        return None


def _leaks(pairs: Sequence[PromptPair], read: Mapping[int, _Read], halves: Halves | None) -> Leaks | None:
    if halves is None:
        return None

    def seen(of: Callable[[int], Hashable]) -> int:
        known = {of(i) for i in halves.discovery} - {None}
        return sum(of(i) in known for i in halves.judged)

    def tokens(i: int) -> Hashable:
        return read[i].clean if i in read else None

    def tokens_but_names(i: int) -> Hashable:
        return tuple(None if t in read[i].words else t for t in read[i].clean) if i in read else None

    return Leaks(
        len(halves.judged),
        seen(lambda i: pairs[i].clean),
        seen(tokens),
        seen(tokens_but_names),
        seen(lambda i: pairs[i].key or None),
        seen(lambda i: (frozenset(pairs[i].answers), frozenset(pairs[i].distractors))),
        seen(lambda i: pairs[i].template or None),
    )
