"""A task: a seeded generator of prompt pairs with named forms and corruptions; it knows no model, no device.

The one idea: words are filtered by what the tokenizer at hand makes of them (Lexicon), so one generator
serves every model, and what was rejected is counted and shown.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, TypeVar

from circuits.errors import CircuitError, PromptError, UnknownNameError
from circuits.prompts import PromptPair, Scoring
from tasks.sampling import stratified

Found = TypeVar("Found")


@dataclass
class Lexicon:
    """Word lists as one tokenizer sees them.

    n_tokens(text, after): how many tokens `text` adds when it stands behind `after`.
    breaks(text, after): whether no token of `after + text` is part of both; none is where it is not given.
    scoring: what of an answer counts; unless it is its one token, answers may be longer.
    fault: what of a pair the tokenizer cannot align or score, "" where it can; where it joins words with their
    neighbours, the words alone do not tell. faults: (clean, corrupt) of those that were left out for one -> it.
    rejected: class of words -> words that were left out, in the order of their lists.
    """

    n_tokens: Callable[[str, str], int]
    name: str = "this tokenizer"
    breaks: Callable[[str, str], bool] = field(default=lambda text, after: True, kw_only=True)
    scoring: Scoring = "one-token"
    fault: Callable[[PromptPair], str] = lambda pair: ""
    faults: dict[tuple[str, str], str] = field(default_factory=dict)
    rejected: dict[str, tuple[str, ...]] = field(default_factory=dict)
    kept: dict[str, tuple[str, ...]] = field(default_factory=dict)
    lengths: dict[tuple[str, str], int] = field(default_factory=dict)
    found: dict[str, Any] = field(default_factory=dict)

    def once(self, name: str, work_out: Callable[[], Found]) -> Found:
        """What a task works out of its words for this tokenizer: the first time that the name is asked for."""
        if name not in self.found:
            self.found[name] = work_out()
        held: Found = self.found[name]
        return held

    def length(self, text: str, after: str) -> int:
        """n_tokens, asked of the tokenizer once a text."""
        if (text, after) not in self.lengths:
            self.lengths[text, after] = self.n_tokens(text, after)
        return self.lengths[text, after]

    @property
    def counts(self) -> dict[str, int]:
        """How many words of each class were left out, and how many pairs that were drawn."""
        pairs = {"pairs that do not fit": len(self.faults)} if self.faults else {}
        return {kind: len(words) for kind, words in self.rejected.items()} | pairs

    def fits(self, pair: PromptPair) -> bool:
        """Whether the tokenizer can align and score the pair; asked once where it cannot."""
        texts = pair.clean, pair.corrupt
        if texts not in self.faults and (fault := self.fault(pair)):
            self.faults[texts] = fault
        return texts not in self.faults

    @property
    def why(self) -> str:
        """What was wrong with the first pair that did not fit, as a sentence; empty where all did."""
        first = next(iter(self.faults.values()), "")
        return f"{len(self.faults)} that were drawn do not fit: {first} " if first else ""

    def single(
        self, kind: str, words: Sequence[str], *, after: str = "the", prefix: str = " ", least: int = 2
    ) -> tuple[str, ...]:
        """The words that are one token as `prefix + word` behind `after`.

        The same `kind` must always name the same list: it is filtered once.
        Raises CircuitError where fewer than `least` are left.
        """
        return self.keep(kind, words, lambda word: self.n_tokens(prefix + word, after) == 1, least=least)

    def keep(
        self,
        kind: str,
        words: Sequence[str],
        fits: Callable[[str], bool],
        *,
        what: str = "one token",
        least: int = 2,
    ) -> tuple[str, ...]:
        """The words that fit; `what` says in the error what that means. Else as `single`."""
        if kind not in self.kept:
            kept = tuple(w for w in words if fits(w))
            self.kept[kind] = kept
            self.rejected[kind] = tuple(w for w in words if w not in set(kept))
        if len(self.kept[kind]) < least:
            some = ", ".join(repr(w) for w in self.rejected[kind][:3])
            raise CircuitError(
                f"Of {len(words)} {kind} {len(self.kept[kind])} are {what} for {self.name} "
                f"(rejected: {some} ...); at least {least} are needed. "
                "Score longer answers with --answers whole-string or first-token, choose another model, or bring "
                "your own pairs with --prompts."
            )
        return self.kept[kind]

    def of_one_length(self, kind: str, words: Sequence[str], *, after: str = "the") -> tuple[str, ...]:
        """The words of the commonest number of tokens, so that a sentence with any of them has one layout.

        The same `kind` must always name the same list: it is filtered once.
        """
        if kind not in self.kept:
            lengths = [self.length(f" {word}", after) for word in words]
            common = max(lengths, key=lambda n: (lengths.count(n), -n))
            self.kept[kind] = tuple(w for w, n in zip(words, lengths, strict=True) if n == common)
            self.rejected[kind] = tuple(w for w, n in zip(words, lengths, strict=True) if n != common)
        return self.kept[kind]

    def answers(
        self, kind: str, words: Sequence[str], *, after: str, prefix: str = " ", least: int = 2
    ) -> tuple[str, ...]:
        """The words that can be answers behind `after`: those of one token, or all where longer ones are scored."""
        if self.scoring == "one-token":
            return self.single(kind, words, after=after, prefix=prefix, least=least)
        return tuple(words)

    def alike(
        self, kind: str, words: Sequence[str], *, least: int, single: bool = False, after: str = "the"
    ) -> tuple[tuple[str, ...], ...]:
        """Groups of at least `least` words, those of a group of equally many tokens, so that they can change places.

        Words of one token where there are enough of them, or where they have to be (`single`); else of any length.
        Raises CircuitError where there is no such group.
        """
        if single:
            return (self.single(kind, words, after=after, least=least),)
        groups: dict[int, list[str]] = {}
        for word in words:
            groups.setdefault(self.length(" " + word, after), []).append(word)
        if len(groups.get(1, ())) >= least:
            return (self.single(kind, words, after=after, least=least),)
        usable = tuple(tuple(group) for _, group in sorted(groups.items()) if len(group) >= least)
        held = {word for group in usable for word in group}
        self.rejected[kind] = tuple(word for word in words if word not in held)
        if not usable:
            sizes = ", ".join(f"{len(group)} of {n}" for n, group in sorted(groups.items()))
            raise CircuitError(
                f"No {least} of {len(words)} {kind} have equally many tokens for {self.name} (words of so many "
                f"tokens: {sizes}). Choose another model, or bring your own pairs with --prompts."
            )
        return usable


def one_of(rng: random.Random, groups: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """A group, larger ones more often; draws nothing where there is one."""
    return groups[0] if len(groups) == 1 else rng.choices(groups, weights=[len(g) for g in groups])[0]


Generator = Callable[[random.Random, Lexicon, str, str], PromptPair]
"""(random, lexicon, form, corruption) -> one pair; the same random state gives the same pair."""


@dataclass(frozen=True)
class Reference:
    """A circuit that a paper reports for one model: node names such as "a9.h6", grouped by role.

    forms: the forms of the task that it was found on; empty means all.
    """

    source: str
    roles: Mapping[str, tuple[str, ...]]
    note: str = ""
    forms: tuple[str, ...] = ()

    @property
    def heads(self) -> frozenset[str]:
        return frozenset(head for heads in self.roles.values() for head in heads)


@dataclass(frozen=True)
class Task:
    """forms and corruptions: name -> what it means, the default first. references: model name -> circuit."""

    name: str
    summary: str
    paper: str
    metric: str
    forms: Mapping[str, str]
    corruptions: Mapping[str, str]
    generate: Generator
    references: Mapping[str, Reference] = field(default_factory=dict)

    def choose(self, form: str | None, corruption: str | None) -> tuple[str, str]:
        """Form and corruption by name, the defaults where None. Raises UnknownNameError."""
        form, corruption = form or next(iter(self.forms)), corruption or next(iter(self.corruptions))
        if form not in self.forms:
            raise UnknownNameError(f"form of {self.name}", form, self.forms)
        if corruption not in self.corruptions:
            raise UnknownNameError(f"corruption of {self.name}", corruption, self.corruptions)
        return form, corruption

    def sample(
        self,
        n: int,
        *,
        seed: int,
        lexicon: Lexicon,
        form: str | None = None,
        corruption: str | None = None,
        accept: Callable[[PromptPair], bool] = lambda pair: True,
        fewer: bool = False,
    ) -> tuple[PromptPair, ...]:
        """n distinct pairs, of each template equally many to within one until it has no more; the same arguments give
        the same pairs, and fewer are a prefix of more.

        accept: pairs that it refuses are not drawn (held-out keys).
        Raises PromptError where the task has fewer than n distinct pairs to give, unless `fewer` will do.
        """
        form, corruption = self.choose(form, corruption)
        rng = random.Random(f"{self.name}/{form}/{corruption}/{seed}")

        def draw() -> PromptPair:
            return replace(self.generate(rng, lexicon, form, corruption), scoring=lexicon.scoring)

        pairs = tuple(islice(stratified(draw, lambda pair: accept(pair) and lexicon.fits(pair)), n))
        if len(pairs) < (min(n, 2) if fewer else n):
            raise PromptError(
                f"{self.name} ({form}, {corruption}) has {len(pairs)} distinct prompts for {lexicon.name}, "
                f"{n} were asked for. " + lexicon.why + f"Ask for fewer with --pairs {len(pairs)}."
            )
        return pairs
