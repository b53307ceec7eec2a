"""Tokenizers that the task tests run under, read as a model reads texts: made here of our own words, or shared.

The one idea: what a family does to text (a space put before it, digits split, bytes for what is unknown, merges
across words) comes from its settings and not from its training data, so a small one trained on our sentences splits
the same way where it matters.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from circuits.prompts import PromptPair
from tasks.arithmetic import LARGEST, OPERATORS
from tasks.colored_objects import LIST, QUESTION, STARTS
from tasks.facts import FACTS, PHRASINGS
from tasks.ioi import FRAMES
from tasks.words import COLOURS, GIFTS, NAMES, OBJECTS, PLACES, SURFACES

BOS = "<s>"
SHARED = Path(__file__).resolve().parents[3] / "shared"
BUILTIN = Path(__file__).resolve().parents[2] / "circuits/models/builtin/plain-4l/tokenizer.json"
MADE = ("llama-like", "neox-like", "words")
PLACES_OF = {
    "words": BUILTIN,
    "gpt2": SHARED / "tokenizers/gpt2/tokenizer.json",
    "stories260K": SHARED / "models/stories260K/tokenizer.json",
}


@dataclass(frozen=True)
class TextReader:
    """circuits.model.Reader over a tokenizer, with its BOS token if it has one."""

    name: str
    tokenizer: Any
    bos: int | None
    unknown: int | None

    def tokenize(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        encoded = self.tokenizer.encode(text, add_special_tokens=False)
        before: tuple[list[int], list[tuple[int, int]]] = (
            ([], []) if self.bos is None else ([self.bos], [(0, 0)])
        )
        return before[0] + encoded.ids, before[1] + encoded.offsets

    def token_string(self, token: int) -> str:
        return str(self.tokenizer.id_to_token(token))

    def is_unknown(self, token: int) -> bool:
        return token == self.unknown


def _sentences() -> list[str]:
    """Every word and every template of the four tasks that the families' tokenizers are trained on."""
    rng = random.Random(0)
    words = {"surface": SURFACES, "start": STARTS, "place": PLACES, "gift": GIFTS, "ASKED": OBJECTS}
    words |= dict.fromkeys(("A", "B", "S2"), NAMES)
    words |= {f"COLOR{i}": COLOURS for i in range(3)} | {f"OBJECT{i}": OBJECTS for i in range(3)}
    texts = []
    for n in range(600):
        drawn = {slot: rng.choice(choices) for slot, choices in words.items()} | {
            f"an{i}": "a " for i in range(3)
        }
        relation = rng.choice(tuple(FACTS))
        subject, answer = rng.choice(FACTS[relation])
        fact = rng.choice(PHRASINGS[relation]).format(SUBJECT=subject)
        texts.append(FRAMES[n % len(FRAMES)].format(**drawn) + f" {drawn['A']}.")
        texts.append((LIST + QUESTION).format(**drawn) + f" {drawn['COLOR0'].capitalize()}")
        texts.append(f"{fact} {answer}.")
        texts.append(f"{rng.randint(0, LARGEST)}{rng.choice(OPERATORS['mixed'])}{rng.randint(0, LARGEST)}=")
    listed = (NAMES, PLACES, GIFTS, OBJECTS, COLOURS, [c.capitalize() for c in COLOURS])
    facts = [word for pairs in FACTS.values() for pair in pairs for word in pair]
    # Each word often enough to be merged, whatever was drawn above.
    return texts + [f"the {word}" for words in (*listed, facts) for word in words for _ in range(3)]


def llama_like() -> Tokenizer:
    """As Llama's: a space put before the text, merges that stop at digits alone, bytes for what is unknown."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(prepend_scheme="first"),
            pre_tokenizers.Digits(individual_digits=True),
        ]
    )
    tokenizer.decoder = decoders.Metaspace()
    special = ["<unk>", BOS, *(f"<0x{byte:02X}>" for byte in range(256))]
    _train(tokenizer, special, 3000)
    return tokenizer


def neox_like() -> Tokenizer:
    """As GPT-NeoX's: bytes, no space put before the text, numbers of any length merged as they come."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    _train(tokenizer, ["<|endoftext|>"], 3000, pre_tokenizers.ByteLevel.alphabet())
    return tokenizer


def _train(tokenizer: Tokenizer, special: list[str], size: int, alphabet: Any = ()) -> None:
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=special,
        initial_alphabet=list(alphabet),
        show_progress=False,
        min_frequency=2,
    )
    tokenizer.train_from_iterator(_sentences(), trainer)


@cache
def read_by(name: str) -> TextReader | None:
    """The tokenizer of that name, once a session; None where it is shared and absent."""
    making: dict[str, Callable[[], Tokenizer]] = {"llama-like": llama_like, "neox-like": neox_like}
    if name in PLACES_OF and not PLACES_OF[name].is_file():
        return None
    tokenizer = making[name]() if name in making else Tokenizer.from_file(str(PLACES_OF[name]))
    bos = tokenizer.token_to_id(BOS) if name != "words" else tokenizer.token_to_id("<bos>")
    return TextReader(name, tokenizer, bos, tokenizer.token_to_id("<unk>"))


def text_at(reader: TextReader, pair: PromptPair, index: int) -> tuple[int, int]:
    """The character span of a token of the clean prompt."""
    return reader.tokenize(pair.clean)[1][index]
