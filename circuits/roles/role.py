"""A role of heads: a definition that gives every head of a model a number, mostly a share, beside its chance level.

The one idea: a score is a mean over independent draws (random sequences, prompts or tokens), so it has a standard
error; and what a head without the role would score is known beforehand, so it can be held against that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import stats
from torch import Tensor

from circuits.batches import Batch, require_single_tokens
from circuits.engine.weights import Weights
from circuits.errors import CircuitError, ModelError
from circuits.model import Model
from circuits.patching import engine_weights
from circuits.progress import Progress, silent
from circuits.roles.digit_arithmetic import DigitArithmetic
from circuits.roles.mod_ten import Reading
from circuits.scores import Scores
from circuits.statistics import Interval, adjust_pvalues, bootstrap_interval

SEQUENCES, PERIOD = 32, 32
"""Random sequences, and how many tokens each has before it repeats itself, where the context allows."""

SMALLEST_ERROR = 1e-6
"""What rounding alone leaves of a standard error: saturated attention has none of its own."""


@dataclass(frozen=True)
class Evidence:
    """What roles are measured on. batches: prompts of a task, called `task`; none where there is no task.

    length: tokens of a needle prompt; as many as are usual where None.
    """

    model: Model
    batches: tuple[Batch, ...] = ()
    task: str = ""
    seed: int = 0
    length: int | None = None

    def __post_init__(self) -> None:
        require_single_tokens(self.batches, "A role of heads")

    @cached_property
    def weights(self) -> Weights:
        """Raises ModelError where the engine does not serve the model, or prompts of such a length."""
        longest = max((batch.clean.shape[1] for batch in self.batches), default=1)
        found = engine_weights(self.model, longest)
        if found is None:
            why = self.model.path if self.model.weights is None else f"a prompt has {longest} tokens"
            raise ModelError(
                f"Roles of heads are read off the exact engine, which does not serve {self.model.name} here ({why}). "
                "Choose another model, or shorter prompts."
            )
        return found

    @cached_property
    def tokens(self) -> Int[np.ndarray, "token"]:
        """The tokens that stand for text, in random order: no special ones, no padding of the vocabulary."""
        order = np.random.default_rng(self.seed).permutation(self.weights.vocab_size)
        return np.array([token for token in order.tolist() if self._stands_for_text(token)])

    def _stands_for_text(self, token: int) -> bool:
        spelling = self.model.token_string(token)
        special = spelling[:1] + spelling[-1:] in ("<>", "[]") and len(spelling) > 2
        return not (special or spelling == "None" or self.model.is_unknown(token) or token in self.opening)

    @cached_property
    def opening(self) -> tuple[int, ...]:
        """The tokens that the model wants before a text."""
        tokens, spans = self.model.tokenize("the")
        return tuple(token for token, (start, stop) in zip(tokens, spans, strict=True) if start == stop)

    @cached_property
    def period(self) -> int:
        return min(PERIOD, (self.weights.longest - len(self.opening)) // 2, len(self.tokens))

    @cached_property
    def repeated(self) -> Int[Tensor, "sequence pos"]:
        """Sequences of random tokens, none twice, that are said a second time; the opening before them."""
        draw = np.random.default_rng(self.seed + 1)
        blocks = np.stack([draw.permutation(self.tokens)[: self.period] for _ in range(SEQUENCES)])
        opening = np.tile(np.array(self.opening, dtype=blocks.dtype), (SEQUENCES, 1))
        return torch.tensor(np.hstack([opening, blocks, blocks]), device=self.model.device)

    def names(self, position: str) -> bool:
        """Whether every prompt says where `position` is."""
        return bool(self.batches) and all(position in p.positions for b in self.batches for p in b.pairs)


class Group(NamedTuple):
    """Some of a role's samples that belong together: which rows, and what a head without the role scores on them."""

    rows: slice
    chance: float


@dataclass(frozen=True)
class Measured:
    """samples: one row a draw, heads in the order of the graph. unit: what the rows are draws of.

    Each is in [0, 1], but where the role's definition says that it is in tokens.
    chance: what a head without the role scores on average. counts: whether samples are 0 or 1, each 1 by chance
    with that probability. groups: parts of the samples that have a chance level of their own, by name.
    features: what a probe of the model says beside the heads, by class. digits: what the best head makes of those
    features, exchanged.
    """

    samples: Float[Tensor, "sample head"]
    unit: str
    chance: float
    counts: bool = False
    groups: Mapping[str, Group] = field(default_factory=dict)
    features: Mapping[str, Reading] = field(default_factory=dict)
    digits: DigitArithmetic | None = None


@dataclass(frozen=True)
class Role:
    """needs: positions that prompts must name, one of each group; none where random tokens or weights are enough.

    definition: what the score is the mean of, in a sentence. measure: None where the model lacks what `absent` says.
    """

    name: str
    definition: str
    paper: str
    measure: Callable[[Evidence], Measured | None]
    needs: tuple[tuple[str, ...], ...] = ()
    absent: str = ""

    def lacking(self, evidence: Evidence) -> str:
        """What the role misses in these prompts; empty where it can be measured."""
        missing = [group for group in self.needs if not any(map(evidence.names, group))]
        if not missing:
            return ""
        wanted = " and ".join(" or ".join(group) for group in missing)
        if not evidence.batches:
            return f"needs prompts that name {wanted}, and no task is given"
        known = sorted(
            {name for batch in evidence.batches for pair in batch.pairs for name in pair.positions}
        )
        have = ", ".join(known) or "nothing"
        return f"needs prompts that name {wanted}; those of {evidence.task} name {have}"

    def require(self, evidence: Evidence) -> None:
        """Raises CircuitError where the prompts lack a position that the role needs."""
        if reason := self.lacking(evidence):
            raise CircuitError(f"{self.name} {reason}. Give a task that does, or leave the role out.")


@dataclass(frozen=True)
class RoleScores:
    """How far each head has a role.

    p_values: of scoring no more than chance, one-sided, Holm over heads: by Student's t, or exactly where draws
    are counted.
    """

    role: Role
    scores: Scores
    interval: Interval
    chance: float
    p_values: Float[np.ndarray, "head"]
    groups: Mapping[str, Group] = field(default_factory=dict)
    features: Mapping[str, Reading] = field(default_factory=dict)
    digits: DigitArithmetic | None = None

    def top(self, n: int) -> tuple[int, ...]:
        """Columns of the n heads that score highest, highest first."""
        return tuple(np.argsort(-self.scores.values, kind="stable")[:n].tolist())


def score(role: Role, evidence: Evidence) -> RoleScores | None:
    """The role's scores of all heads; None where the model gives it nothing to measure.

    Raises CircuitError where prompts lack a position that it needs, ModelError where the engine does not serve.
    """
    role.require(evidence)
    with torch.inference_mode():
        found = role.measure(evidence)
    if found is None:
        return None
    samples = found.samples.double().cpu().numpy()
    scores = Scores(role.name, evidence.model.graph.heads, samples, unit=found.unit)
    interval = bootstrap_interval(samples, seed=evidence.seed)
    p_values = _p_values(scores, found)
    more = (found.groups, found.features, found.digits)
    return RoleScores(role, scores, interval, found.chance, p_values, *more)


def score_all(
    roles: Sequence[Role], evidence: Evidence, progress: Progress = silent
) -> tuple[tuple[RoleScores, ...], dict[str, str]]:
    """The scores of those roles that can be measured; and, for each other, what it misses."""
    found, left_out = [], {}
    for n, role in enumerate(roles):
        reason = role.lacking(evidence)
        scored = None if reason else score(role, evidence)
        if scored is None:
            left_out[role.name] = reason or role.absent
        else:
            found.append(scored)
        progress("roles", n + 1, len(roles))
    return tuple(found), left_out


def _p_values(scores: Scores, found: Measured) -> Float[np.ndarray, "head"]:
    n = len(scores.samples)
    if found.counts:
        # The sum of unlike chances has thinner tails than a binomial of their mean (Hoeffding 1956): p errs upwards.
        hits = scores.samples.sum(0).round()
        return adjust_pvalues(np.asarray(stats.binom.sf(hits - 1, n, found.chance)), "holm")
    error = np.maximum(scores.stderr, SMALLEST_ERROR)
    return adjust_pvalues(
        np.asarray(stats.t.sf((scores.values - found.chance) / error, max(n - 1, 1))), "holm"
    )


def positions_of(batch: Batch, names: Sequence[str]) -> Int[Tensor, "prompt name"]:
    """Where each prompt says that `names` are."""
    rows = [[pair.positions[name] for name in names] for pair in batch.pairs]
    return torch.tensor(rows, device=batch.clean.device)


def first_named(evidence: Evidence, group: Sequence[str]) -> str:
    """The position of `group` that the prompts name."""
    return next(name for name in group if evidence.names(name))
