"""What `circuit discover` asks of its prompts before anything is patched: that they fit the model, and that it can do
what a circuit is to be found for (--min-accuracy, --keep-solved)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from circuits.errors import CircuitError
from cli.wording import share

if TYPE_CHECKING:
    from circuits.evaluation.faithfulness import Estimate
    from circuits.halves import JudgeOn
    from circuits.models.bridge import BridgeModel
    from circuits.prompt_check import PromptCheck
    from cli.prompt_source import Prompts


@dataclass(frozen=True)
class Screening:
    """accuracy: share of the drawn prompts on which the model prefers the answer. left_out: how many are not used
    because it does not."""

    min_accuracy: float | None
    keep_solved: bool
    drawn: int
    accuracy: Estimate
    left_out: int

    def record(self) -> dict[str, Any]:
        return asdict(self)


def checked(model: BridgeModel, drawn: Prompts, seed: int, judge_on: JudgeOn) -> PromptCheck:
    """What the doctor finds without running the model. Raises PromptError for pairs that do not fit it."""
    from circuits.prompt_check import check_prompts, require_usable

    check = check_prompts(model, drawn.pairs, seed=seed, judge_on=judge_on)
    require_usable(check, model.name)
    return check


def screened(
    model: BridgeModel, drawn: Prompts, min_accuracy: float | None, keep_solved: bool, batch_size: int = 64
) -> Prompts:
    """The prompts that may be used; one forward pass a prompt, if anything is asked at all.

    Raises CircuitError where the model is less accurate than is asked, or solves too few.
    """
    if min_accuracy is None and not keep_solved:
        return drawn
    from circuits.behaviour import prefers_answer, share_estimate

    solved = prefers_answer(model, drawn.pairs, batch_size)
    accuracy = share_estimate(solved)
    said = f"{model.name} prefers the answer on {share(accuracy)} of {len(solved)} prompts of {drawn.name}"
    if min_accuracy is not None and accuracy.value < min_accuracy:
        raise CircuitError(
            f"{said}, less than --min-accuracy {min_accuracy:g} asks, so nothing was patched. Lower it, choose "
            "another model, or use what it solves alone (--keep-solved without --min-accuracy). "
            "`circuit tasks --check` says what it answers instead."
        )
    if keep_solved and solved.sum() < 2:
        raise CircuitError(f"{said}: --keep-solved leaves too few to discover on and to judge on.")
    kept = tuple(pair for pair, keep in zip(drawn.pairs, solved, strict=True) if keep or not keep_solved)
    left_out = len(drawn.pairs) - len(kept)
    screening = Screening(min_accuracy, keep_solved, len(drawn.pairs), accuracy, left_out)
    return replace(drawn, pairs=kept, screening=screening)


def check_line(check: PromptCheck, drawn: Prompts) -> str:
    """What the doctor found, as the first half of a sentence: 500 pairs aligned, 30 templates, no copies."""
    return ", ".join(_found(check, drawn))


def _found(check: PromptCheck, drawn: Prompts) -> Iterator[str]:
    yield f"{check.n} aligned pairs{'' if drawn.screening is None else _screened(drawn.screening)}"
    if (n := len(check.balance.templates)) > 1:
        yield f"{n} templates"
    yield f"{check.copies.extra} of them copies" if check.copies.extra else "no copies"
    if check.leaks and (seen := check.leaks.key or check.leaks.words):
        what = "keys" if check.leaks.key else "answers with their distractors"
        yield f"{seen / check.leaks.n_judged:.0%} of the judged {what} discovered on too"


def _screened(screening: Screening) -> str:
    if not screening.keep_solved:
        return ""
    return f" of {screening.drawn} ({screening.left_out} that the model fails are left out)"
