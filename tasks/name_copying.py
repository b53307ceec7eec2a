"""Name copying: a name that was said before is said again.

Data: our own sentences, names and words. Paper: Olsson et al. 2022, "In-context Learning and Induction Heads" (arXiv
2209.11895): after `A B ... A` a model says `B`; repeated random tokens are its test of it, here the form `induction`.

    clean     Once upon a time, there was a cat named Lily. One day,           -> " Lily"
    corrupt   Once upon a time, there was a cat named Timmy. One day,          -> " Timmy"
    negative  Once upon a time, there was a cat. One day,

    clean     ... a cat named Lucy. One day, Lu       -> "cy", where the tokenizer at hand makes Lu|cy of it
    corrupt   ... a cat named Molly. One day, Mol     -> "ly" (other-name); One day, Lu (mention)

    clean     Words: river stone music apple river stone    -> " music"       (induction)
    corrupt   Words: river stone paper apple river stone    -> " paper"

    ANSWER "cy" where the name is first said, PREVIOUS the "Lu" before it, END the last token

The one idea: a name may be of any number of tokens. The prompt stops behind its first token and the answer is the
second, or stops before it and the answer is the first; clean and corrupt names have equally many tokens. No paper
names heads for these sentences.
"""

from __future__ import annotations

import random
from collections import defaultdict
from typing import NamedTuple

from circuits.errors import CircuitError
from circuits.prompts import PromptPair
from tasks.task import Lexicon, Task
from tasks.templates import Span, end, fill


def _list(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NAMES = _list(
    """Lily Tim Timmy Tom Sam Ben Mia Anna Sara Lucy Max Jack Sue Amy Jane Mary Bob Billy John Molly Jill Daisy Emma
    Ella Spot Rex Kitty Bobo Fluffy Peter Paul Mark James Robert David William Richard Thomas Daniel Andrew George
    Edward Ryan Jacob Eric Frank Henry Adam Helen Laura Ruth Rachel Maria Alice Julia Martha Hannah Linda Nancy"""
)
WORDS = _list(
    """the to and was he her it in day be with said play his up that on mom she very you they big of friend little
    time had we there so want happy saw but do river stone music apple house tree book water door light night bread
    table glass paper road king song snow fire gold horse ship tower green seven under never slow kind small old"""
)
N_WORDS = 8
TRIES = 1000
NAMED = " named {NAME}"
FRAMES = (
    "Once upon a time, there was a {kind} named {NAME}. {NAME2} had a {thing}. One day,",
    "Once upon a time, there was a {kind} named {NAME}. One day, {NAME2} went to the {place} with a {thing}.",
    "In the {place} lived a {kind} named {NAME}. {NAME2} loved the {thing}. One day,",
    "One day, a {kind} named {NAME} went to the {place}. {NAME2} saw a {thing}. Then",
    "There was a {kind} named {NAME} who had a {thing}. Every day, {NAME2} went to the {place}. One day,",
)
KINDS = _list("child bird cat dog bear frog lion wolf mouse fish")
PLACES = _list("park garden house forest lake shop town zoo farm hill river beach school")
THINGS = _list("ball box toy hat car boat cup kite book bag coat doll key")


class Piece(NamedTuple):
    """One token of " name": the characters from start to stop, the place-th of so many tokens."""

    name: str
    start: int
    stop: int
    place: int
    tokens: int

    @property
    def text(self) -> str:
        return f" {self.name}"[self.start : self.stop]

    @property
    def before(self) -> str:
        return f" {self.name}"[: self.start]


def _pieces(lexicon: Lexicon, name: str) -> list[Piece]:
    """The tokens of " name"; none where the lengths of its beginnings do not tell where they divide it."""
    text = f" {name}"
    tokens = lexicon.length(text, "the")
    if tokens == 1:
        return [Piece(name, 0, len(text), 0, 1)]
    counts = {0: 0, len(text): tokens}
    for stop in range(1, len(text)):
        first = lexicon.length(text[:stop], "the")
        if first > 0 and first + lexicon.length(text[stop:], f"the{text[:stop]}") == tokens:
            counts[stop] = first
    ends = sorted(counts)
    if [counts[stop] for stop in ends] != list(range(tokens + 1)):
        return []
    return [Piece(name, ends[i], ends[i + 1], i, tokens) for i in range(tokens)]


def _fits(lexicon: Lexicon, other: Piece, piece: Piece) -> bool:
    """Whether the token of `other` is another one, and stays a token of its own behind what stands before `piece`."""
    if other.text == piece.text or not piece.place:
        return other.text != piece.text
    return any(
        p.place == piece.place and p.text == other.text
        for p in _pieces(lexicon, piece.before[1:] + other.text)
    )


def _groups(lexicon: Lexicon, form: str) -> list[list[Piece]]:
    """Pieces that may stand for each other: of names of one length, at one place, at least two different ones."""
    groups: dict[tuple[int, int], list[Piece]] = defaultdict(list)
    for piece in (piece for name in NAMES for piece in _pieces(lexicon, name)):
        if piece.place == (0 if form == "start" or piece.tokens == 1 else 1):
            groups[piece.tokens, piece.place].append(piece)
    kept = [group for _, group in sorted(groups.items()) if len({piece.text for piece in group}) > 1]
    usable = {piece.name for group in kept for piece in group}
    lexicon.rejected[f"names ({form})"] = tuple(name for name in NAMES if name not in usable)
    return kept


def _two_names(rng: random.Random, lexicon: Lexicon, form: str) -> tuple[Piece, Piece]:
    groups = lexicon.once(f"names to copy ({form})", lambda: _groups(lexicon, form))
    for _ in range(TRIES if groups else 0):
        group = rng.choices(groups, weights=[len(g) for g in groups])[0]
        piece = rng.choice(group)
        if others := [other for other in group if _fits(lexicon, other, piece)]:
            return piece, rng.choice(others)
    raise CircuitError(
        f"{lexicon.name} divides no two names alike, so that one token could answer. Choose another model."
    )


def _story(rng: random.Random, lexicon: Lexicon, form: str, corruption: str) -> PromptPair:
    piece, other = _two_names(rng, lexicon, form)
    number = rng.randrange(len(FRAMES))
    lists = {"kind": KINDS, "place": PLACES, "thing": THINGS}
    scene = {slot: rng.choice(lexicon.of_one_length(f"{slot}s", words)) for slot, words in lists.items()}

    def told(template: str, name: str, tail: str) -> tuple[str, dict[str, Span]]:
        text, spans = fill(template, scene | {"NAME": name, "NAME2": name})
        return text + tail, spans

    clean, spans = told(FRAMES[number], piece.name, piece.before)
    name = spans["NAME"][0] - 1
    first = name + 1  # behind the space
    previous = (first, name + piece.start) if piece.start else (name - len("named"), name)
    return PromptPair(
        clean=clean,
        corrupt=told(FRAMES[number], other.name, (other if corruption == "other-name" else piece).before)[0],
        answers=(piece.text,),
        distractors=(other.text,),
        positions={
            "PREVIOUS": previous,
            "ANSWER": (max(first, name + piece.start), name + piece.stop),
            "END": end(clean),
        },
        negative=told(FRAMES[number].replace(NAMED, ""), "it", "")[0],
        template=f"{form} {number + 1}, token {piece.place + 1} of {piece.tokens}",
        key=f"{number}|{piece.name}|{scene['kind']}",
    )


def _induction(rng: random.Random, lexicon: Lexicon, corruption: str) -> PromptPair:
    """The words, and the first of them again; only what stands before the repetition is corrupted."""
    words = lexicon.single("words", WORDS)
    if len(words) < 2 * N_WORDS:
        raise CircuitError(
            f"{lexicon.name} has {len(words)} words of one token for induction, {2 * N_WORDS} are needed. "
            "Choose another model."
        )
    drawn = rng.sample(words, 2 * N_WORDS)
    first, fresh = drawn[:N_WORDS], drawn[N_WORDS:]
    at = rng.randrange(2, N_WORDS)
    again = first[:at]
    changed = [*first[:at], fresh[at], *first[at + 1 :]] if corruption == "other-name" else fresh

    def said(words: list[str]) -> str:
        return " ".join(["Words:", *words])

    clean = said([*first, *again])
    start, stop = len(said(first[:at])), len(said(first[: at + 1]))
    return PromptPair(
        clean=clean,
        corrupt=said([*changed, *again]),
        answers=(f" {first[at]}",),
        distractors=(f" {fresh[at]}",),
        positions={
            "PREVIOUS": (start - len(first[at - 1]), start),
            "ANSWER": (start + 1, stop),
            "END": end(clean),
        },
        negative=said([*first, *fresh[:at]]),
        template=f"induction, word {at + 1} of {N_WORDS}",
        key=f"{first[at - 1]}|{first[at]}",
    )


def _generate(rng: random.Random, lexicon: Lexicon, form: str, corruption: str) -> PromptPair:
    if form == "induction":
        return _induction(rng, lexicon, corruption)
    return _story(rng, lexicon, form, corruption)


TASK = Task(
    name="name-copying",
    summary="Name copying: a name that was said before is said again.",
    paper="Olsson et al. 2022, arXiv 2209.11895",
    metric="logit-difference",
    forms={
        "story": "a name in a story; where it is several tokens, the prompt ends behind the first of them",
        "start": "the same, and the answer is always the first token of the name",
        "induction": "random words, and the first of them again: induction proper",
    },
    corruptions={
        "other-name": "another name (or word) stands there, so the answer flips",
        "mention": "the mention is another, and what the prompt repeats of it at the end stays",
    },
    generate=_generate,
)
