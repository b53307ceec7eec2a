"""Subject-verb agreement: is the subject one or many, whatever stands between it and its verb?

Paper: Finlayson et al. 2021, "Causal Analysis of Syntactic Agreement Mechanisms in Neural Language Models"
(arXiv 2106.06087), section 3: simple sentences, and a second noun (the attractor) in a prepositional phrase or
in a relative clause, which may have the other number. All verbs of the right number are answers, all of the
other are distractors. Sentences and words are our own.

    clean     The old author near the ministers    -> " is", " has", " walks" ... against " are", " have", " walk" ...
    corrupt   The old authors near the ministers
    negative  The old sheep near the ministers     (one or many: the noun does not say)

Only the subject's number changes; the attractor, and the verb of its clause, stay as they are.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from circuits.prompts import PromptPair
from tasks.task import Lexicon, Task
from tasks.templates import end, fill
from tasks.words import listed

OPENINGS = (
    "The",
    "Today the",
    "We hear that the",
    "In this town the",
    "Everyone knows that the",
    "Perhaps the",
)
FRAMES = {
    "simple": "{opening} {adjective} {SUBJECT}",
    "prepositional": "{opening} {adjective} {SUBJECT} {link} the {ATTRACTOR}",
    "relative": "{opening} {adjective} {SUBJECT} that the {ATTRACTOR} {link}",
}
ADJECTIVES = listed("old young tall small famous quiet angry clever new strange busy rich kind brave")
PREPOSITIONS = ("near", "behind", "beside", "with", "above", "before")
NUMBERS = ("one", "many")
UNMARKED = ("sheep", "deer", "fish", "aircraft", "salmon")


class Word(NamedTuple):
    """One word in both numbers."""

    one: str
    many: str


def _words(text: str) -> tuple[Word, ...]:
    return tuple(Word(*entry.split("/")) for entry in listed(text))


NOUNS = _words(
    """girl/girls boy/boys dog/dogs cat/cats bird/birds horse/horses teacher/teachers author/authors
    doctor/doctors farmer/farmers student/students driver/drivers guard/guards king/kings lawyer/lawyers
    manager/managers minister/ministers neighbor/neighbors officer/officers painter/painters pilot/pilots
    player/players poet/poets sailor/sailors singer/singers soldier/soldiers writer/writers worker/workers
    actor/actors artist/artists athlete/athletes baker/bakers captain/captains child/children man/men
    woman/women friend/friends guest/guests judge/judges customer/customers dancer/dancers engineer/engineers
    scientist/scientists senator/senators prince/princes nurse/nurses lion/lions"""
)
VERBS = _words(
    """is/are was/were has/have does/do goes/go knows/know wants/want needs/need likes/like looks/look seems/seem
    works/work runs/run plays/play walks/walk sits/sit comes/come takes/take gives/give makes/make says/say
    thinks/think lives/live stands/stand"""
)
CLAUSE_VERBS = _words(
    """likes/like knows/know sees/see helps/help follows/follow hates/hate loves/love wants/want calls/call
    visits/visit trusts/trust remembers/remember fears/fear"""
)


def _both(lexicon: Lexicon, kind: str, words: tuple[Word, ...], after: str) -> tuple[Word, ...]:
    """The words of which both numbers are one token."""
    by_name = {"/".join(word): word for word in words}

    def fits(name: str) -> bool:
        return all(lexicon.length(" " + form, after) == 1 for form in by_name[name])

    kept = lexicon.keep(kind, tuple(by_name), fits, what="in both numbers one token")
    return tuple(by_name[name] for name in kept)


def _generate(rng: random.Random, lexicon: Lexicon, form: str, corruption: str) -> PromptPair:
    nouns = _both(lexicon, "nouns", NOUNS, "the")
    verbs = _both(lexicon, "verbs", VERBS, "they")
    subject, attractor = rng.sample(nouns, 2)
    number, other = rng.randrange(2), rng.randrange(2)
    opening = rng.choice(OPENINGS)
    linking = rng.choice(CLAUSE_VERBS)[other] if form == "relative" else rng.choice(PREPOSITIONS)
    words = {
        "opening": opening,
        "adjective": rng.choice(ADJECTIVES),
        "SUBJECT": subject[number],
        "ATTRACTOR": attractor[other],
        "link": linking,
    }
    clean, spans = fill(FRAMES[form], words)
    named = {slot: span for slot, span in spans.items() if slot.isupper()}
    return PromptPair(
        clean=clean,
        corrupt=fill(FRAMES[form], words | {"SUBJECT": subject[1 - number]})[0],
        answers=tuple(" " + verb[number] for verb in verbs),
        distractors=tuple(" " + verb[1 - number] for verb in verbs),
        positions=named | {"END": end(clean)},
        negative=fill(FRAMES[form], words | {"SUBJECT": rng.choice(UNMARKED)})[0],
        template=f"{opening} ... | {NUMBERS[number]}"
        + (f", {NUMBERS[other]} beside" if form != "simple" else ""),
        key=f"{words['adjective']} {subject.one}",
    )


TASK = Task(
    name="subject-verb-agreement",
    summary="Subject-verb agreement: a verb of the subject's number, past a noun of another.",
    paper="Finlayson et al. 2021, arXiv 2106.06087",
    metric="probability-difference",
    forms={
        "prepositional": "a second noun, of either number, stands behind a preposition",
        "relative": "a second noun, of either number, is the subject of a relative clause",
        "simple": "no second noun",
    },
    corruptions={"number": "the subject's number flips, so answers and distractors trade places"},
    generate=_generate,
)
