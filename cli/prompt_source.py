"""Where a command's prompts come from: a built-in task sampled for the model at hand, or a user's file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from circuits.errors import CircuitError
from circuits.prompts import PromptPair, Scoring
from cli.known_circuits import known_circuits
from cli.task_files import source_of
from tasks import TASKS

if TYPE_CHECKING:
    from circuits.model import Reader
    from circuits.models.bridge import BridgeModel
    from circuits.prompt_files.records import Dropped, PromptFile
    from cli.screening import Screening
    from tasks.task import Lexicon, Task

PAIRS = 500
"""Pairs to draw: half of them give the 250 positives and 250 negatives of the SAE paper."""


@dataclass(frozen=True)
class Prompts:
    """Prompt pairs and what is known of them.

    name: the task, or the file's stem. rejected: class of words -> how many the tokenizer split.
    references: source -> heads of a circuit that a paper or the model's card states for this model;
    parsed: whether positions were read off the texts, see tasks.colored_objects.
    source: the user's file that the task stands in, and its digest.
    direct_references: those of them that write to the logits, and edge_references, its edges, where the card knows
    the edges. file: where the user's own come from, make_corrupt: how twins are made that it lacks, dropped: what of
    it is left out, notes: doubts about it. screening: what was asked of the model before they were used.
    """

    name: str
    pairs: tuple[PromptPair, ...]
    metric: str = "logit-difference"
    form: str = ""
    corruption: str = ""
    rejected: Mapping[str, int] = field(default_factory=dict)
    references: Mapping[str, frozenset[str]] = field(default_factory=dict)
    direct_references: Mapping[str, frozenset[str]] = field(default_factory=dict)
    edge_references: Mapping[str, frozenset[str]] = field(default_factory=dict)
    parsed: bool = False
    file: PromptFile | None = None
    make_corrupt: str | None = None
    dropped: tuple[Dropped, ...] = ()
    notes: tuple[str, ...] = ()
    source: Mapping[str, str] = field(default_factory=dict)
    screening: Screening | None = None

    @property
    def unplaced(self) -> int:
        """Prompts whose layout is not known, so that their last token alone has a name."""
        return sum(set(pair.positions) == {"END"} for pair in self.pairs) if self.parsed else 0


def own_prompts(
    task: str | None,
    prompts: Path | None,
    corrupt: Path | None = None,
    column: str | None = None,
    make_corrupt: str | None = None,
) -> Prompts | None:
    """The user's file, read and without pairs yet, or None where a task is given: cheap, so asked before any work.

    corrupt: the corrupted twins, where the file does not hold them. column: which of them, where it holds several.
    make_corrupt: how they are made where there are none.
    Raises CircuitError unless exactly one of a known task and a readable file is given.
    """
    if (task is None) == (prompts is None):
        raise CircuitError(
            "Give either a task or --prompts FILE"
            + (", not both." if task else f". Tasks: {', '.join(TASKS.names())}.")
        )
    if task is not None:
        TASKS.require(task)
    if prompts is None:
        for name, value in (("prompts", corrupt), ("column", column)):
            if value is not None:
                raise CircuitError(
                    f"--corrupt-{name} {value} are the twins of --prompts FILE; {task} has its own."
                )
        if make_corrupt is not None:
            raise CircuitError(
                f"--make-corrupt {make_corrupt} is for --prompts FILE; {task} has its own twins."
            )
        return None
    from cli.own_prompts import read_own

    return read_own(prompts, corrupt, column, make_corrupt)


def draw_prompts(
    model: BridgeModel,
    task: str | None,
    own: Prompts | None,
    *,
    form: str | None,
    corruption: str | None,
    n: int | None,
    seed: int,
    scoring: Scoring | None = None,
) -> Prompts:
    """The first n of the user's own prompts where there are any, else n of the task, sampled for the tokenizer."""
    if own is None:
        return sample_task(
            model, TASKS.load(str(task)), form=form, corruption=corruption, n=n, seed=seed, scoring=scoring
        )
    if form or corruption:
        raise CircuitError("--form and --corruption belong to built-in tasks; your file holds its own pairs.")
    from cli.own_prompts import pairs_of

    return pairs_of(model, own, n, seed)


def sample_task(
    model: BridgeModel,
    task: Task,
    *,
    form: str | None,
    corruption: str | None,
    n: int | None,
    seed: int,
    scoring: Scoring | None = None,
) -> Prompts:
    """n pairs of `task` whose words fit the model's tokenizer; None: PAIRS, or as many as there are."""
    form, corruption = task.choose(form, corruption)
    lexicon = lexicon_of(model, scoring or "one-token")
    pairs = task.sample(
        n or PAIRS, seed=seed, lexicon=lexicon, form=form, corruption=corruption, fewer=n is None
    )
    known = known_circuits(task, model, form, corruption)
    source = source_of(task)
    return Prompts(task.name, pairs, task.metric, form, corruption, lexicon.counts, *known, source=source)


def lexicon_of(model: Reader, scoring: Scoring = "one-token") -> Lexicon:
    """Word lists as the model's tokenizer sees them; a word that it does not know counts as two tokens."""
    from circuits.batches import continuation, tokenize_pair
    from circuits.errors import PromptError
    from tasks.task import Lexicon

    def n_tokens(text: str, after: str) -> int:
        tokens = continuation(model, after, text)
        return len(tokens) + any(model.is_unknown(t) for t in tokens)

    def breaks(text: str, after: str) -> bool:
        return not any(start < len(after) < stop for start, stop in model.tokenize(after + text)[1])

    def fault(pair: PromptPair) -> str:
        try:
            tokenize_pair(model, pair, repr(pair.clean))
        except PromptError as problem:
            return str(problem)
        return ""

    return Lexicon(n_tokens, model.name, breaks=breaks, scoring=scoring, fault=fault)


def warn_of_words(model: BridgeModel, pairs: Sequence[PromptPair]) -> None:
    """Says which words the model's vocabulary lacks, if any."""
    from circuits.batches import unknown_words

    warn_of_unknown(model, unknown_words(model, pairs))


def warn_of_unknown(model: BridgeModel, missing: Sequence[str]) -> None:
    """Says which words these are, if any."""
    from cli.render import warning

    if missing:
        some = ", ".join(missing[:8]) + (" ..." if len(missing) > 8 else "")
        warning(f"{len(missing)} of the words are unknown to {model.name} and become <unk>: {some}")
