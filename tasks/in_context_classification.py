"""In-context classification: the class of a word, after examples that show what the classes are called.

Data: our own words and labels. Papers: Min et al. 2022, "Rethinking the Role of Demonstrations" (arXiv 2202.12837),
on labels that are wrong; Wei et al. 2023, "Larger language models do in-context learning differently" (arXiv
2303.03846), on flipped labels and labels without meaning, the forms `flipped` and `arbitrary`.

    clean     Word: horse. Kind: animal
              Word: apple. Kind: fruit
              Word: tiger. Kind: animal
              Word: lemon. Kind: fruit
              Word: rabbit. Kind:                        -> " animal"
    corrupt   ... Word: grape. Kind:                     -> " fruit"     (other-class)
    corrupt   Word: horse. Kind: fruit ...               -> " fruit"     (labels)
    negative  ... Word: piano. Kind:

    LABEL the last example's label of the answer's class, QUERY "rabbit", END the last token

There are four examples of each class in random order. In `flipped` animals are called fruit and fruits animal; in
`arbitrary` both have names without meaning (foo, bar), so nothing but the examples tells. Every word is one token.
"""

from __future__ import annotations

import random

from circuits.errors import CircuitError
from circuits.prompts import PromptPair
from tasks.task import Lexicon, Task
from tasks.templates import end, fill


def _list(text: str) -> tuple[str, ...]:
    return tuple(text.split())


CLASSES = {
    "animal": _list(
        "horse tiger rabbit lion wolf bear cat dog mouse sheep goat cow pig duck eagle snake fox monkey"
    ),
    "color": _list("red orange yellow green blue purple brown black white pink gray violet"),
    "number": _list("one two three four five six seven eight nine ten eleven twelve twenty thirty"),
    "body": _list("hand foot head nose ear eye leg arm knee neck finger tongue shoulder stomach"),
    "city": _list(
        "Paris London Berlin Madrid Rome Tokyo Moscow Vienna Dublin Boston Chicago Dallas Seattle Cairo"
    ),
    "tool": _list("hammer knife drill rope nail axe brush shovel wrench ladder"),
    "drink": _list("water milk tea coffee beer wine juice soda whiskey"),
}
FOREIGN = _list("piano storm justice window music silence")
ARBITRARY = _list("foo bar left right alpha beta north south")
SHOTS = 4
LINE = "Word: {WORD%d}. Kind: {LABEL%d}\n"
QUERY = "Word: {QUERY}. Kind:"


def _classes(lexicon: Lexicon) -> dict[str, tuple[str, ...]]:
    """The classes whose label is one token, with enough words of one token."""
    labels = lexicon.single("labels", tuple(CLASSES), after="Kind:")
    found = {label: lexicon.single(f"words ({label})", CLASSES[label], after="Word:") for label in labels}
    enough = {label: words for label, words in found.items() if len(words) > SHOTS}
    if len(enough) < 2:
        raise CircuitError(
            f"{lexicon.name} has fewer than two classes with more than {SHOTS} words of one token. "
            "Choose another model."
        )
    return enough


def _labels(rng: random.Random, lexicon: Lexicon, form: str, classes: list[str]) -> list[str]:
    """What the two classes are called in the prompt."""
    if form == "arbitrary":
        return rng.sample(lexicon.single("labels without meaning", ARBITRARY, after="Kind:"), 2)
    return classes if form == "real" else classes[::-1]


def _generate(rng: random.Random, lexicon: Lexicon, form: str, corruption: str) -> PromptPair:
    known = _classes(lexicon)
    classes = rng.sample(sorted(known), 2)
    labels = _labels(rng, lexicon, form, classes)
    drawn = [rng.sample(known[name], SHOTS + 1) for name in classes]
    order = rng.sample([(side, shot) for side in (0, 1) for shot in range(SHOTS)], 2 * SHOTS)
    template = "".join(LINE % (i, i) for i in range(len(order))) + QUERY
    words = {f"WORD{i}": drawn[side][shot] for i, (side, shot) in enumerate(order)}
    words |= {f"LABEL{i}": labels[side] for i, (side, _) in enumerate(order)}
    clean, spans = fill(template, words | {"QUERY": drawn[0][SHOTS]})
    exchanged = {f"LABEL{i}": labels[1 - side] for i, (side, _) in enumerate(order)}
    changed = (
        {"QUERY": drawn[1][SHOTS]} if corruption == "other-class" else exchanged | {"QUERY": drawn[0][SHOTS]}
    )
    last = max(i for i, (side, _) in enumerate(order) if side == 0)
    return PromptPair(
        clean=clean,
        corrupt=fill(template, words | changed)[0],
        answers=(f" {labels[0]}",),
        distractors=(f" {labels[1]}",),
        positions={"LABEL": spans[f"LABEL{last}"], "QUERY": spans["QUERY"], "END": end(clean)},
        negative=fill(template, words | {"QUERY": rng.choice(FOREIGN)})[0],
        template=f"{classes[0]} or {classes[1]}",
        key=f"{drawn[0][SHOTS]}|{labels[0]}|{labels[1]}",
    )


TASK = Task(
    name="in-context-classification",
    summary="In-context classification: the class of a word, after eight examples.",
    paper="Wei et al. 2023, arXiv 2303.03846; Min et al. 2022, arXiv 2202.12837",
    metric="logit-difference",
    forms={
        "real": "the classes have their own names",
        "flipped": "each class has the other's name",
        "arbitrary": "the classes are called foo and bar and the like",
    },
    corruptions={
        "other-class": "the word that is asked for is of the other class, so the answer flips",
        "labels": "the examples have the other label, so the answer flips",
    },
    generate=_generate,
)
