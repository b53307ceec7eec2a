"""A task: a seeded generator of prompt pairs with named forms and corruptions; it knows no model, no device.

The one idea: words are filtered by what the tokenizer at hand makes of them (Lexicon), so one generator
serves every model, and what was rejected is counted and shown.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from circuits.errors import CircuitError, PromptError, UnknownNameError
from circuits.prompts import PromptPair
from tasks.sampling import stratified


@dataclass
class Lexicon:
    """Word lists as one tokenizer sees them.

    n_tokens(text, after): how many tokens `text` adds when it stands behind `after`.
    rejected: class of words -> words that were left out, in the order of their lists.
    """

    n_tokens: Callable[[str, str], int]
    name: str = "this tokenizer"
    rejected: dict[str, tuple[str, ...]] = field(default_factory=dict)
    kept: dict[str, tuple[str, ...]] = field(default_factory=dict)
    lengths: dict[tuple[str, str], int] = field(default_factory=dict)

    def length(self, text: str, after: str) -> int:
        """n_tokens, asked of the tokenizer once a text."""
        if (text, after) not in self.lengths:
            self.lengths[text, after] = self.n_tokens(text, after)
        return self.lengths[text, after]

    def single(
        self, kind: str, words: Sequence[str], *, after: str = "the", prefix: str = " "
    ) -> tuple[str, ...]:
        """The words that are one token as `prefix + word` behind `after`.

        The same `kind` must always name the same list: it is filtered once.
        Raises CircuitError where fewer than two are left.
        """
        if kind not in self.kept:
            kept = tuple(w for w in words if self.n_tokens(prefix + w, after) == 1)
            self.kept[kind] = kept
            self.rejected[kind] = tuple(w for w in words if w not in set(kept))
            if len(kept) < 2:
                some = ", ".join(repr(w) for w in self.rejected[kind][:3])
                raise CircuitError(
                    f"Of {len(words)} {kind} {len(kept)} are one token for {self.name} "
                    f"(rejected: {some} ...); at least two are needed. "
                    "Choose another model, or bring your own pairs with --prompts."
                )
        return self.kept[kind]


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
        pairs = tuple(islice(stratified(lambda: self.generate(rng, lexicon, form, corruption), accept), n))
        if len(pairs) < (min(n, 2) if fewer else n):
            raise PromptError(
                f"{self.name} ({form}, {corruption}) has {len(pairs)} distinct prompts for {lexicon.name}, "
                f"{n} were asked for. Ask for fewer with --pairs {len(pairs)}."
            )
        return pairs
