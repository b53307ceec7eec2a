'''Docstring: which argument does a Python docstring describe next?

Paper: Heimersheim & Janiak 2023, "A circuit for Python docstrings in a 4-layer attention-only transformer"
(LessWrong); the layout as in O'Neill & Bui 2024 (arXiv 2405.12522): reST style, two arguments that the
docstring does not speak of, three that it does, one behind them. Words are our own.

    clean     def town(self, size, label, width, start, score, mode):
                  """road summer plant

                  :param width: silver bridge
                  :param start: winter wall
                  :param                             -> " score", against " size", " label", " width" ...
    corrupt   other names in the definition and in the docstring (random-random, the default), in the
              docstring alone (random-doc: `:param offset:`), or in the definition alone (random-def)
    negative  as random-random: no name of the docstring stands in the definition, so nothing says what is next

Every word is one token and the layout is fixed, so a position means the same in every prompt. The distractors
are the other arguments of the definition.
'''

from __future__ import annotations

import random
from collections.abc import Sequence

from circuits.prompts import PromptPair
from tasks.task import Lexicon, Reference, Task
from tasks.templates import end, fill
from tasks.words import listed

LAYOUT = (
    "def {METHOD}(self, {OTHER1}, {OTHER2}, {A_DEF}, {B_DEF}, {C_DEF}, {OTHER3}):\n"
    '    """{about}\n\n'
    "    :param {A_DOC}: {about_a}\n"
    "    :param {B_DOC}: {about_b}\n"
    "    :param"
)
DEFINITION = ("OTHER1", "OTHER2", "A_DEF", "B_DEF", "C_DEF", "OTHER3")
DOCUMENTED = ("A_DOC", "B_DOC")
POSITIONS = ("A_DEF", "B_DEF", "C_DEF", "A_DOC", "B_DOC")

ARGUMENTS = listed(
    """load size files last name value width height index color path count limit mode label start shift scale
    offset target source level total depth order format text line page group title state field token model input
    output result data key weight length speed range batch image table node cell user event queue stack score
    buffer"""
)
WORDS = listed(
    """oil column piece crime population unit river garden market winter stone metal paper music engine village
    doctor summer forest bridge window kitchen mountain island station animal bottle corner dinner energy family
    finger flower friend glass history horse letter machine minute morning mother nature office party picture
    plant planet police power prison rain road school season silver soldier spring street sugar temple tower town
    traffic train valley wall water wood"""
)


def _phrases(rng: random.Random, lexicon: Lexicon) -> dict[str, str]:
    """What the method is called, and what the docstring says of it and of the arguments."""
    method, *words = rng.sample(lexicon.single("words of a docstring", WORDS, least=8), 8)
    about, about_a, about_b = (" ".join(words[part]) for part in (slice(0, 3), slice(3, 5), slice(5, 7)))
    return {"METHOD": method, "about": about, "about_a": about_a, "about_b": about_b}


def _renamed(words: dict[str, str], fresh: Sequence[str], corruption: str) -> dict[str, str]:
    """The words with new names in the definition, in the docstring, or in both."""
    slots = {
        "random-random": DEFINITION + DOCUMENTED,
        "random-doc": DOCUMENTED,
        "random-def": DEFINITION,
    }
    return words | dict(zip(slots[corruption], fresh, strict=False))


def _generate(rng: random.Random, lexicon: Lexicon, form: str, corruption: str) -> PromptPair:
    needed = 2 * len(DEFINITION) + len(DOCUMENTED)
    known = lexicon.single("names of arguments", ARGUMENTS, least=needed)
    names = rng.sample(known, len(DEFINITION))
    fresh = [name for name in known if name not in names]
    words = dict(zip(DEFINITION, names, strict=True)) | _phrases(rng, lexicon)
    words |= {"A_DOC": words["A_DEF"], "B_DOC": words["B_DEF"]}
    clean, spans = fill(LAYOUT, words)
    corrupt = _renamed(words, rng.sample(fresh, 8), corruption)
    negative = _renamed(words, rng.sample(fresh, 8), "random-random")
    return PromptPair(
        clean=clean,
        corrupt=fill(LAYOUT, corrupt)[0],
        answers=(" " + words["C_DEF"],),
        distractors=tuple(" " + words[slot] for slot in DEFINITION if slot != "C_DEF"),
        positions={name: spans[name] for name in POSITIONS} | {"END": end(clean)},
        negative=fill(LAYOUT, negative)[0],
        template=form,
        key="|".join(names[2:5]),
    )


TASK = Task(
    name="docstring",
    summary="Docstring: the argument that a Python docstring describes next.",
    paper="Heimersheim & Janiak 2023, LessWrong",
    metric="logit-difference",
    forms={"rest": "reST style, the third of three described arguments is asked for"},
    corruptions={
        "random-random": "other names in the definition and others in the docstring",
        "random-doc": "other names in the docstring, so they do not say where in the list it stands",
        "random-def": "other names in the definition, so the answer is not in the prompt",
    },
    generate=_generate,
    references={
        "attn-only-4l": Reference(
            source="Heimersheim & Janiak 2023; list as in ACDC (Conmy et al. 2023)",
            roles={"circuit": ("a0.h5", "a1.h2", "a1.h4", "a2.h0", "a3.h0", "a3.h6")},
            note="O'Neill & Bui 2024 list a1.h0 in place of a1.h2",
        )
    },
)
