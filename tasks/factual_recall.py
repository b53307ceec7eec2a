"""Factual recall: capitals, languages, countries of cities, continents.

Data: our own table and phrasings (tasks/facts.py). Papers: Meng et al. 2022 (arXiv 2202.05262) for recall
as such; Yu, Merullo & Pavlick 2023, "Characterizing Mechanisms for Factual Recall" (arXiv 2310.15910),
section 3, for the form `counterfactual-context`, in which a false capital stands in the prompt.

    clean     The capital of France is    -> " Paris"
    corrupt   The capital of Italy is     -> " Rome"
    negative  The capital of butter is

    clean     The capital of France is Rome. Q: What is the capital of France? A:    (counterfactual-context)
    corrupt   The capital of Italy is Rome. Q: What is the capital of Italy? A:      -> " Rome"

In `counterfactual-context` the answer is the fact that the model has learned (" Paris") and the distractor
is the capital that stands in the prompt (" Rome"); a model that trusts the prompt scores below zero. The
corrupted prompt asks for the country of which the prompt's capital is the true one, so there both agree on
" Rome".

Clean and corrupted subjects have the same number of tokens. The negative puts a word in the subject's place
that has no such fact.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

from circuits.errors import CircuitError
from circuits.prompts import PromptPair
from tasks.facts import FACTS, IN_CONTEXT, PHRASINGS
from tasks.task import Lexicon, Reference, Task
from tasks.templates import end, fill
from tasks.words import NO_COUNTRY

Fact = tuple[str, str]
_BEFORE_SUBJECT = "of"


def _groups(lexicon: Lexicon, relation: str) -> tuple[tuple[Fact, ...], ...]:
    """The facts whose answer can be scored, grouped by the tokens of the subject; groups with two answers."""
    answers = tuple(dict.fromkeys(answer for _, answer in FACTS[relation]))
    known = set(lexicon.answers(f"answers ({relation})", answers, after="is"))
    groups: dict[int, list[Fact]] = defaultdict(list)
    for subject, answer in FACTS[relation]:
        if answer in known:
            groups[lexicon.length(" " + subject, _BEFORE_SUBJECT)].append((subject, answer))
    usable = tuple(tuple(group) for _, group in sorted(groups.items()) if len({a for _, a in group}) > 1)
    if not usable:
        raise CircuitError(
            f"For {lexicon.name} no two subjects of {relation} have equally many tokens. "
            "Choose another model."
        )
    return usable


def _two_facts(rng: random.Random, lexicon: Lexicon, relation: str) -> tuple[Fact, Fact]:
    """A fact, and one of the same relation and subject length with another answer."""
    groups = lexicon.once(f"facts ({relation})", lambda: _groups(lexicon, relation))
    group = rng.choices(groups, weights=[len(g) for g in groups])[0]
    fact = rng.choice(group)
    return fact, rng.choice([other for other in group if other[1] != fact[1]])


def _nothing(rng: random.Random, lexicon: Lexicon, subject: str) -> str:
    """A word without such a fact, as long in tokens as the subject where there is one."""
    length = lexicon.length(" " + subject, _BEFORE_SUBJECT)
    same: Sequence[str] = [w for w in NO_COUNTRY if lexicon.length(" " + w, _BEFORE_SUBJECT) == length]
    return rng.choice(same or NO_COUNTRY)


def _relations(lexicon: Lexicon) -> tuple[str, ...]:
    """Those that have facts to give; the tokenizer is asked once. Raises CircuitError where none has."""
    if "relations" not in lexicon.kept:
        usable, problems = [], []
        for relation in FACTS:
            try:
                _groups(lexicon, relation)
                usable.append(relation)
            except CircuitError as problem:
                problems.append(str(problem))
        if not usable:
            raise CircuitError("\n".join(problems))
        lexicon.rejected["relations"] = tuple(relation for relation in FACTS if relation not in usable)
        lexicon.kept["relations"] = tuple(usable)
    return lexicon.kept["relations"]


def _sentence(rng: random.Random, lexicon: Lexicon, form: str) -> tuple[str, str, str]:
    """Relation, phrasing, and what to call it."""
    if form == "counterfactual-context":
        return "capital", IN_CONTEXT, form
    relation = rng.choice(_relations(lexicon)) if form == "mixed" else form
    number = rng.randrange(len(PHRASINGS[relation]))
    return relation, PHRASINGS[relation][number], f"{relation} {number + 1}"


def _generate(rng: random.Random, lexicon: Lexicon, form: str, corruption: str) -> PromptPair:
    relation, phrasing, label = _sentence(rng, lexicon, form)
    (subject, answer), (other, wrong) = _two_facts(rng, lexicon, relation)
    words = {"SUBJECT": subject, "DISTRACTOR": wrong}
    clean, spans = fill(phrasing, words)
    return PromptPair(
        clean=clean,
        corrupt=fill(phrasing, words | {"SUBJECT": other})[0],
        answers=(" " + answer,),
        distractors=(" " + wrong,),
        positions=spans | {"END": end(clean)},
        negative=fill(phrasing, words | {"SUBJECT": _nothing(rng, lexicon, subject)})[0],
        template=label,
        key=f"{phrasing}|{subject}",
    )


TASK = Task(
    name="factual-recall",
    summary="Factual recall: capitals, languages, countries of cities, continents.",
    paper="Yu, Merullo & Pavlick 2023, arXiv 2310.15910",
    metric="logit-difference",
    forms={
        "mixed": "the four relations, or those that the tokenizer leaves, equally often",
        "capital": "the capital of a country",
        "language": "the language of a country",
        "country": "the country of a city",
        "continent": "the continent of a country",
        "counterfactual-context": "a false capital stands in the prompt; the answer is the learned one",
    },
    corruptions={"subject": "another subject of the same length, so the answer changes"},
    generate=_generate,
    references={
        "gpt2": Reference(
            source="Ortu et al. 2024, arXiv 2402.11655",
            roles={
                "factual": ("a10.h7", "a11.h10"),
                "counterfactual": ("a9.h6", "a9.h9", "a10.h0", "a10.h10"),
            },
            note="heads that decide between the learned fact and the prompt",
            forms=("counterfactual-context",),
        ),
        "EleutherAI/pythia-1.4b": Reference(
            source="Yu et al. 2023, arXiv 2310.15910, section 5",
            roles={"memory": ("a15.h7",)},
            note="scaling this head down makes the model trust the prompt",
            forms=("counterfactual-context",),
        ),
    },
)
