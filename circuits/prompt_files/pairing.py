"""Pairs from the rows of a prompt file, for the model at hand: token ids become words, and twins are made.

The one idea: a prompt without a corrupted twin borrows from the other prompts of its file. Either one of its spans is
swapped for another prompt's of the same kind and token length (resample: a name for a name, after Wang et al. 2022
and Meng et al. 2022), or there is no twin (mean): another prompt of the same length stands on the corrupt side, so
that every mean over prompts is one over the file, and methods ablate by the mean alone.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from circuits.batches import continuation, tokenize_pair
from circuits.errors import PromptError
from circuits.model import Model
from circuits.prompt_files.records import Dropped, PromptFile, PromptRow, Way, counted, parted
from circuits.prompts import PromptPair

NO_SPAN = "no position to swap"
Partners = Callable[[PromptRow], Iterable[PromptRow]]


@dataclass(frozen=True)
class Paired:
    """rows: with their twins, in the order of the file. dropped: here, not when reading.

    notes: what looks wrong without being certain, a sentence each.
    """

    rows: tuple[PromptRow, ...]
    dropped: tuple[Dropped, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def pairs(self) -> tuple[PromptPair, ...]:
        return tuple(row.pair() for row in self.rows)


def pair_up(model: Model, file: PromptFile, way: Way | None = None, *, seed: int = 0) -> Paired:
    """The pairs of a file; those that have a twin are taken as they stand, whether or not they fit the model.

    way: how twins are made where they are lacking; resample if None. Raises PromptError where a way is given to a
    file that has all twins.
    """
    if way and file.rows and not file.bare:
        raise PromptError(f"--make-corrupt {way}: {file.path} has the corrupted twins of its prompts.")
    spelled = [_spelled(model, row) for row in file.rows]
    rows, _ = parted(spelled)
    by_ids = {row.where for row in file.rows if row.answer_ids}
    notes = tuple(_foreign_ids(model, [row for row in rows if row.where in by_ids]))
    made = _twins(model, [row for row in rows if not row.corrupt], way or "resample", seed)
    entries = [made.get(entry.where, entry) for entry in spelled]
    kept, dropped = parted(entries)
    return Paired(kept, dropped, notes)


def fitting(model: Model, paired: Paired) -> Paired:
    """Without the pairs that do not fit the model's tokenizer, which are dropped and named."""
    kept, dropped = parted(_misfit(model, row) or row for row in paired.rows)
    return replace(paired, rows=kept, dropped=(*paired.dropped, *dropped))


def require_two(model: Model, file: PromptFile, paired: Paired) -> None:
    """Raises PromptError where nothing can be discovered and judged, with the reasons why the rest was dropped."""
    if len(paired.rows) < 2:
        counts = ", ".join(f"{n} {kind}" for kind, n in counted((*file.dropped, *paired.dropped)).items())
        first = f" {paired.dropped[0].where}: {paired.dropped[0].reason}." if paired.dropped else ""
        spans = any(entry.kind == NO_SPAN for entry in paired.dropped)
        way_out = " Name positions to swap, or do without twins by --make-corrupt mean." if spans else ""
        raise PromptError(
            f"Of {file.size} prompts of {file.path} {len(paired.rows)} can be used with {model.name}; at least 2 "
            f"are needed. Dropped: {counts}.{first}{way_out} `circuit tasks import` with --model names all."
        )


def _misfit(model: Model, row: PromptRow) -> Dropped | None:
    where = row.where
    try:
        clean, corrupt = (len(model.tokenize(text)[0]) for text in (row.clean, row.corrupt))
        if clean != corrupt:
            reason = f"clean is {clean} tokens and corrupt {corrupt} for {model.name}"
            return Dropped(where, "twins of unequal length", reason)
        tokenize_pair(model, row.pair(), where)
    except PromptError as error:
        reason = str(error).removeprefix(f"{where}: ").splitlines()[0]
        return Dropped(where, "not for this tokenizer", reason)
    return None


# Token ids


def _spelled(model: Model, row: PromptRow) -> PromptRow | Dropped:
    """Answers by their texts, where the file gives them as token ids."""
    if not row.answer_ids:
        return row
    words = {token: _word(model, row.clean, token) for token in (*row.answer_ids, *row.distractor_ids)}
    for token, word in words.items():
        if word is None:
            reason = (
                f"token id {token} is no word of {model.name}'s vocabulary that can stand behind the prompt"
            )
            return Dropped(row.where, "token ids outside the vocabulary", reason)
    answers, distractors = (
        tuple(str(words[token]) for token in ids) for ids in (row.answer_ids, row.distractor_ids)
    )
    return replace(row, answers=answers, distractors=distractors, answer_ids=(), distractor_ids=())


def _word(model: Model, text: str, token: int) -> str | None:
    """What behind `text` is read as this token alone; None where there is nothing of the kind."""
    spelled = model.token_string(token)
    for word in (f" {spelled.removeprefix(' ')}", spelled):
        if word.strip() and continuation(model, text, word) == (token,):
            return word
    return None


def _foreign_ids(model: Model, rows: Sequence[PromptRow]) -> Iterator[str]:
    """A doubt where ids become words that the prompts never speak of."""
    strange = [row for row in rows if not _spoken(row)]
    if len(strange) > len(rows) / 2:
        some = ", ".join(repr(word) for word in (*strange[0].answers[:1], *strange[0].distractors[:1]))
        yield (
            f"In {len(strange)} of {len(rows)} prompts neither answers nor distractors ({some}) occur: were their "
            f"token ids made with the tokenizer of {model.name}?"
        )


def _spoken(row: PromptRow) -> bool:
    return any(word.strip() in row.clean + row.corrupt for word in (*row.answers, *row.distractors))


# Twins


def _twins(model: Model, rows: Sequence[PromptRow], way: Way, seed: int) -> Mapping[str, PromptRow | Dropped]:
    """By its place, each row with a twin, or why it has none."""
    checked = {row.where: _checked(model, row, way) for row in rows}
    usable, _ = parted(checked.values())
    partners = _swappable(model, usable) if way == "resample" else _as_long(model, usable)
    make = _resampled if way == "resample" else _beside
    rng = random.Random(f"{way}/{seed}")
    found = {row.where: _first(model, row, partners(row), make, rng, way) for row in usable}
    return {**checked, **found}


def _checked(model: Model, row: PromptRow, way: Way) -> PromptRow | Dropped:
    for word in (*row.answers, *row.distractors):
        tokens = continuation(model, row.clean, word)
        if len(tokens) != 1 and row.scoring == "one-token":
            reason = f"{word!r} is {len(tokens)} tokens for {model.name}"
            return Dropped(row.where, "an answer of several tokens", reason)
        if any(map(model.is_unknown, tokens)):
            reason = f"{word!r} is not in the vocabulary of {model.name}"
            return Dropped(row.where, "an answer outside the vocabulary", reason)
    if way == "resample" and not row.span:
        return Dropped(row.where, NO_SPAN, f"no span of {row.clean!r} is named, or it occurs twice")
    return row


def _first(
    model: Model,
    row: PromptRow,
    partners: Iterable[PromptRow],
    make: Callable[[PromptRow, PromptRow], PromptRow],
    rng: random.Random,
    way: Way,
) -> PromptRow | Dropped:
    """The row with the twin that the first fitting partner gives, in an order by chance."""
    others = [other for other in partners if _differs(row, other, way)]
    rng.shuffle(others)
    length = len(model.tokenize(row.clean)[0])
    for other in others:
        twin = make(row, other)
        if len(model.tokenize(twin.corrupt)[0]) == length and not set(twin.distractors) & set(row.answers):
            return twin
    wanted = f"a {row.kind} as long as {row.span!r}" if way == "resample" else f"{length} tokens"
    return Dropped(row.where, "no partner", f"no other prompt has {wanted} and another answer")


def _differs(row: PromptRow, other: PromptRow, way: Way) -> bool:
    """A span that stands in the prompt already would make another question of it than that of its partner."""
    if set(row.answers) & set(other.answers) or row.clean == other.clean:
        return False
    return way == "mean" or other.span not in row.clean


def _resampled(row: PromptRow, other: PromptRow) -> PromptRow:
    """`row` with the other's span in its own's place; what is right there is wrong here."""
    start, stop = row.positions[row.swap]
    corrupt = row.clean[:start] + other.span + row.clean[stop:]
    return replace(row, corrupt=corrupt, distractors=row.distractors or other.answers)


def _beside(row: PromptRow, other: PromptRow) -> PromptRow:
    return replace(row, corrupt=other.clean, distractors=row.distractors or other.answers)


def _swappable(model: Model, rows: Iterable[PromptRow]) -> Partners:
    """Rows whose spans are of the same kind and as many tokens."""
    return _grouped(rows, lambda row: (row.kind, _span_length(model, row)))


def _as_long(model: Model, rows: Iterable[PromptRow]) -> Partners:
    return _grouped(rows, lambda row: len(model.tokenize(row.clean)[0]))


def _grouped(rows: Iterable[PromptRow], by: Callable[[PromptRow], Hashable]) -> Partners:
    keys, groups = {}, defaultdict[Hashable, list[PromptRow]](list)
    for row in rows:
        keys[row.where] = by(row)
        groups[keys[row.where]].append(row)
    return lambda row: groups[keys[row.where]]


def _span_length(model: Model, row: PromptRow) -> int:
    start, stop = row.positions[row.swap]
    return sum(a < stop and b > start and b > a for a, b in model.tokenize(row.clean)[1])
