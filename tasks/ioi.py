"""Indirect object identification: who receives the thing that S gives?

Data: our own fifteen sentences in both orders of the names (ABBA and BABA), names, places and things of
tasks/words.py. Paper: Wang et al. 2022, "Interpretability in the Wild" (arXiv 2211.00593), section 2 for the
layout and section 3 for the ABC corruption; the swap corruption is Merullo et al. 2023 (arXiv 2310.08744),
the negative is O'Neill & Bui 2024 (arXiv 2405.12522): same sentence, three names, none twice.

    clean     After lunch, Mary and John walked to the library. John handed a book to     -> " Mary"
    corrupt   After lunch, Mary and John walked to the library. Mary handed a book to     -> " John"   (swap)
    corrupt   After lunch, Emma and Paul walked to the library. Ruth handed a book to                  (abc)
    negative  After lunch, Paul and Mary walked to the library. John handed a book to

No sentence begins with a name, so every name has a space before it. The names of a pair are of one token each;
where longer answers are scored and a tokenizer splits most names, of equally many.
"""

from __future__ import annotations

import random

from circuits.prompts import PromptPair
from tasks.task import Lexicon, Reference, Task, one_of
from tasks.templates import end, fill, next_word
from tasks.words import GIFTS, NAMES, PLACES

FRAMES = (
    "After lunch, {A} and {B} walked to the {place}. {S2} handed a {gift} to",
    "When {A} and {B} arrived at the {place}, {S2} gave a {gift} to",
    "Last week, {A} and {B} met at the {place}, and {S2} lent a {gift} to",
    "While {A} and {B} were waiting near the {place}, {S2} passed a {gift} to",
    "Because {A} and {B} were old friends, {S2} brought a {gift} from the {place} for",
    "At the {place}, {A} and {B} had a long talk. Then {S2} showed a {gift} to",
    "Yesterday {A} and {B} cleaned the {place}. Later {S2} sold a {gift} to",
    "Before {A} and {B} left the {place}, {S2} offered a {gift} to",
    "In the morning, {A} and {B} opened the {place}. At noon {S2} sent a {gift} to",
    "Once {A} and {B} had found a {gift} at the {place}, {S2} gave it to",
    "During the trip to the {place}, {A} and {B} shared a room. {S2} threw a {gift} to",
    "As soon as {A} and {B} sat down in the {place}, {S2} returned the {gift} to",
    "The teacher saw {A} and {B} in the {place}, where {S2} carried a {gift} to",
    "On Friday, {A} and {B} were working at the {place}. {S2} decided to give a {gift} to",
    "Since {A} and {B} lived by the {place}, {S2} often took a {gift} to",
)
ORDERS = {"ABBA": ("{IO}", "{S1}"), "BABA": ("{S1}", "{IO}")}
OPENINGS = (
    "The house belonged to {X}. ",
    "It was the birthday of {X}. ",
    "Nobody had seen {X}. ",
    "The story was told by {X}. ",
    "Earlier, {X} had called. ",
)
ASIDES = (
    "{S2}, a cousin of {Y},",
    "{S2}, unlike {Y},",
    "{S2}, without telling {Y},",
)
GIVERS = ("{S2} and {Y}", "{Y} and {S2}")


def _template(rng: random.Random, form: str) -> tuple[str, str]:
    """The sentence with its name slots in place, and what to call it."""
    number, order = rng.randrange(len(FRAMES)), rng.choice(tuple(ORDERS))
    first, second = ORDERS[order]
    text, label = FRAMES[number].replace("{A}", first).replace("{B}", second), f"{number + 1} | {order}"
    if form == "two-givers":
        text = text.replace("{S2}", rng.choice(GIVERS))
    if form == "distractors":
        where = rng.randrange(3)
        if where != 1:
            text = rng.choice(OPENINGS) + text
        if where != 0:
            text = text.replace("{S2}", rng.choice(ASIDES))
    return text, label


def _corrupted(words: dict[str, str], fresh: list[str], corruption: str) -> dict[str, str]:
    if corruption == "swap":
        return words | {"S2": words["IO"]}
    return words | dict(zip(("IO", "S1", "S2"), fresh, strict=True))


def _generate(rng: random.Random, lexicon: Lexicon, form: str, corruption: str) -> PromptPair:
    names = one_of(rng, lexicon.alike("names", NAMES, least=8, single=lexicon.scoring == "one-token"))
    template, label = _template(rng, form)
    io, subject, x, y, *fresh = rng.sample(names, 8)
    words = {"IO": io, "S1": subject, "S2": subject, "X": x, "Y": y}
    words |= {"place": rng.choice(PLACES), "gift": rng.choice(GIFTS)}
    clean, spans = fill(template, words)
    positions = {name: spans[name] for name in ("IO", "S1", "S2")}
    return PromptPair(
        clean=clean,
        corrupt=fill(template, _corrupted(words, fresh[:3], corruption))[0],
        answers=(" " + io,),
        distractors=(" " + subject,),
        positions=positions | {"S1+1": next_word(clean, spans["S1"]), "END": end(clean)},
        negative=fill(template, words | {"IO": fresh[3], "S1": io})[0],
        template=label,
        key="|".join(sorted((io, subject))),
    )


TASK = Task(
    name="ioi",
    summary="Indirect object identification: the name of the pair that is not said twice.",
    paper="Wang et al. 2022, arXiv 2211.00593",
    metric="logit-difference",
    forms={
        "plain": "fifteen sentences, the receiver named first or second, mixed",
        "distractors": "one or two more names are mentioned, before the pair or behind the giver",
        "two-givers": "a third person gives along, so the last name is not always the repeated one",
    },
    corruptions={
        "swap": "the giver becomes the receiver, so the answer flips",
        "abc": "three other names, none twice, so there is no answer",
    },
    generate=_generate,
    references={
        "gpt2": Reference(
            source="Wang et al. 2022, figure 2 and appendix; list as in ACDC (Conmy et al. 2023)",
            roles={
                "name mover": ("a9.h9", "a10.h0", "a9.h6"),
                "backup name mover": (
                    "a10.h10",
                    "a10.h6",
                    "a10.h2",
                    "a10.h1",
                    "a11.h2",
                    "a9.h7",
                    "a9.h0",
                    "a11.h9",
                ),
                "negative name mover": ("a10.h7", "a11.h10"),
                "S-inhibition": ("a7.h3", "a7.h9", "a8.h6", "a8.h10"),
                "induction": ("a5.h5", "a5.h8", "a5.h9", "a6.h9"),
                "duplicate token": ("a0.h1", "a0.h10", "a3.h0"),
                "previous token": ("a2.h2", "a4.h11"),
            },
            note="26 heads; found with the ABC corruption and mean ablation",
        ),
        "gpt2-medium": Reference(
            source="Merullo et al. 2023, arXiv 2310.08744, section 4",
            roles={
                "mover": ("a15.h14", "a16.h15", "a17.h4", "a18.h5", "a19.h15"),
                "inhibition": ("a12.h3", "a13.h4", "a13.h13"),
                "negative mover": ("a19.h1",),
                "induction": ("a9.h3",),
                "duplicate token": ("a6.h4",),
            },
            note="the heads that the text names; the full list stands in a figure only",
        ),
    },
)
