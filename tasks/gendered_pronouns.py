"""Gendered pronouns: the pronoun that fits who was spoken of.

Data: our own sentences, names, nouns and occupations. Papers: Mathwin et al. 2023, "Identifying a Preliminary
Circuit for Predicting Gendered Pronouns in GPT-2 Small" (names); Vig et al. 2020, "Investigating Gender Bias in
Language Models Using Causal Mediation Analysis" (arXiv 2004.12265; occupations, EAP-IG's gender bias).

    clean     Once upon a time, there was a little girl named Lily who loved the park.     -> " She"
    corrupt   Once upon a time, there was a little boy named Timmy who loved the park.     -> " He"
    negative  Once upon a time, there was a little robot named Bolt who loved the park.

    CHILD "girl", NAME "Lily", END the last token

Words need not be one token: each is exchanged for one of the other gender that has as many. The pronouns are one
token, and a word that has no twin of its length is left out and counted. In the form `occupation` the gender is what
the model takes for likely, so its score is a bias, not a skill.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

from circuits.errors import CircuitError
from circuits.prompts import PromptPair
from tasks.task import Lexicon, Task
from tasks.templates import end, fill


def _list(text: str) -> tuple[str, ...]:
    return tuple(text.split())


WOMEN_MEN = {
    "NAME": (
        _list(
            """Lily Mia Anna Sara Lucy Sue Amy Jane Mary Molly Daisy Emma Ella Emily Sarah Lisa Laura Hannah Julia
            Maria Linda Martha"""
        ),
        _list(
            """Timmy Tim Tom Sam Ben Max Jack Bob Billy John James Robert David William Richard Thomas Mark Paul
            George Edward Jason Ryan Jacob Eric Frank Peter Henry Adam"""
        ),
    ),
    "CHILD": (_list("girl princess sister"), _list("boy prince brother")),
    "NOUN": (
        _list("girl woman lady mother sister queen princess grandma mom"),
        _list("boy man lord father brother king prince grandpa dad"),
    ),
    "OCCUPATION": (
        _list(
            "nurse maid nanny secretary librarian dancer receptionist housekeeper cheerleader florist midwife"
        ),
        _list(
            "doctor soldier mechanic plumber engineer carpenter captain butcher farmer pilot guard sheriff boss"
        ),
    ),
}
PLURALS = {"NAME": "names", "CHILD": "children", "NOUN": "nouns", "OCCUPATION": "occupations"}
NEUTRAL = {
    "NAME": _list("Bolt Rusty Zip Cog Piston"),
    "CHILD": _list("robot machine engine"),
    "NOUN": _list("robot machine tree clock river storm"),
    "OCCUPATION": _list("river storm machine engine bridge"),
}
PRONOUNS = {"she": "he", "She": "He", "her": "his"}
FRAMES = {
    "story": (
        ("Once upon a time, there was a little {CHILD} named {NAME} who loved the {place}.", "She"),
        ("Once upon a time, there was a little {CHILD} named {NAME}. {NAME2} had a {thing}.", "She"),
        ("One day, a little {CHILD} named {NAME} went to the {place}.", "She"),
        ("A little {CHILD} named {NAME} saw a big {thing} at the {place}.", "She"),
        ("There was a {CHILD} named {NAME} who had a {thing}. At the {place}, {NAME2} was very happy because", "she"),
        ("In a house by the {place} lived a little {CHILD} named {NAME}. {NAME2} loved to play with", "her"),
    ),
    "noun": (
        ("Once upon a time, there was a little {NOUN} who loved the {place}.", "She"),
        ("One day, the {NOUN} went to the {place}.", "She"),
        ("A {NOUN} saw a big {thing} at the {place}.", "She"),
        ("One day, a {NOUN} had a {thing}. The {NOUN2} was very happy because", "she"),
        ("One day, a {NOUN} lost a {thing} at the {place}. The {NOUN2} was sad because", "she"),
    ),
    "name": (
        ("One day, {NAME} went to the {place}.", "She"),
        ("One day, {NAME} was very happy at the {place} because", "she"),
        ("Then {NAME} saw a big {thing} near the {place}.", "She"),
        ("One day, {NAME} lost a {thing} and was sad because", "she"),
        ("One day, {NAME} was playing at the {place} with", "her"),
    ),
    "occupation": (
        ("At the {place}, the {OCCUPATION} smiled because", "she"),
        ("The {OCCUPATION} left the {place} early because", "she"),
        ("Near the {place}, the {OCCUPATION} said that", "she"),
        ("The {OCCUPATION} had lost the {thing}, and so", "she"),
        ("After a long day at the {place}, the {OCCUPATION} was tired, but", "she"),
    ),
}  # fmt: skip
PLACES = _list("park beach lake forest garden school market farm house river hill shop town zoo")
THINGS = _list("ball box toy book hat car boat cup bag kite doll coat lamp key")


class Twins(NamedTuple):
    """Words of women and of men that have equally many tokens."""

    women: tuple[str, ...]
    men: tuple[str, ...]


def _twins(lexicon: Lexicon, slot: str) -> tuple[Twins, ...]:
    """One entry for each number of tokens that both genders have; what has no twin is noted as rejected."""
    women, men = WOMEN_MEN[slot]
    tokens = {word: lexicon.length(f" {word}", "the") for word in (*women, *men)}
    shared = sorted({tokens[w] for w in women} & {tokens[m] for m in men})
    alone = tuple(word for word, n in tokens.items() if n not in shared)
    lexicon.rejected[f"{PLURALS[slot]} without a twin of equal length"] = alone
    if not shared:
        raise CircuitError(
            f"For {lexicon.name} no {slot.lower()} of a woman has as many tokens as one of a man. "
            "Choose another model."
        )
    return tuple(
        Twins(tuple(w for w in women if tokens[w] == n), tuple(m for m in men if tokens[m] == n))
        for n in shared
    )


def _word_and_twin(rng: random.Random, lexicon: Lexicon, slot: str, woman: bool) -> tuple[str, str]:
    groups = _twins(lexicon, slot)
    group = rng.choices(groups, weights=[len(g.women) + len(g.men) for g in groups])[0]
    pair = rng.choice(group.women), rng.choice(group.men)
    return pair if woman else pair[::-1]


def _frames(lexicon: Lexicon, form: str) -> Sequence[tuple[int, str, str]]:
    """Number, sentence and woman's pronoun, of those whose two pronouns are one token."""
    single = set(lexicon.single("pronouns", [*PRONOUNS, *PRONOUNS.values()], after="and"))
    usable = [
        (i, *frame) for i, frame in enumerate(FRAMES[form], 1) if {frame[1], PRONOUNS[frame[1]]} <= single
    ]
    if not usable:
        raise CircuitError(
            f"{lexicon.name} has no pair of pronouns of one token for the form {form}. Choose another model."
        )
    return usable


def _filled(words: dict[str, str]) -> dict[str, str]:
    """With the second mention of a word, which is the same."""
    return words | {f"{slot}2": word for slot, word in words.items()}


def _generate(rng: random.Random, lexicon: Lexicon, form: str, corruption: str) -> PromptPair:
    number, template, she = rng.choice(_frames(lexicon, form))
    woman = rng.random() < 0.5
    slots = [slot for slot in WOMEN_MEN if f"{{{slot}}}" in template]
    chosen = {slot: _word_and_twin(rng, lexicon, slot, woman) for slot in slots}
    scene = {
        "place": rng.choice(lexicon.of_one_length("places", PLACES)),
        "thing": rng.choice(lexicon.of_one_length("things", THINGS)),
    }
    clean, spans = fill(template, scene | _filled({slot: pair[0] for slot, pair in chosen.items()}))
    neutral = {slot: "the robot" if form == "name" else rng.choice(NEUTRAL[slot]) for slot in slots}
    pronouns = (she, PRONOUNS[she]) if woman else (PRONOUNS[she], she)
    return PromptPair(
        clean=clean,
        corrupt=fill(template, scene | _filled({slot: pair[1] for slot, pair in chosen.items()}))[0],
        answers=(f" {pronouns[0]}",),
        distractors=(f" {pronouns[1]}",),
        positions={n: s for n, s in spans.items() if n.isupper()} | {"END": end(clean)},
        negative=fill(template, scene | _filled(neutral))[0],
        template=f"{form} {number}, {'woman' if woman else 'man'}",
        key="|".join((form, str(number), *(pair[0] for pair in chosen.values()), *scene.values())),
    )


TASK = Task(
    name="gendered-pronouns",
    summary="Gendered pronouns: she or he, after who was spoken of.",
    paper="Mathwin et al. 2023; Vig et al. 2020, arXiv 2004.12265",
    metric="logit-difference",
    forms={
        "story": "a girl or a boy (or princess ...) with a name, in the words of children's stories",
        "noun": "the noun alone says the gender",
        "name": "the name alone says it, as in Mathwin et al.",
        "occupation": "an occupation that is thought of as a woman's or a man's, as in Vig et al.",
    },
    corruptions={
        "other-gender": "who is spoken of is of the other gender, in as many tokens, so the answer flips"
    },
    generate=_generate,
)
