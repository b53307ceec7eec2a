"""`circuit tasks NAME --check`: what the doctor finds of a task's pairs, or of the user's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

import typer

from cli.wording import estimate, share

if TYPE_CHECKING:
    from circuits.behaviour import Behaviour, Failure, Figures
    from circuits.models.bridge import BridgeModel
    from circuits.prompt_check import Leaks, PromptCheck
    from cli.prompt_source import Prompts

SHOWN = 10
UNUSABLE = 1  # the exit code of a check that failed


def examine(options: Mapping[str, Any]) -> None:
    """Checks the pairs that the options of `circuit tasks` name, and says all that was found.

    Raises typer.Exit where pairs cannot be used, CircuitError where there are none to look at.
    """
    from circuits.behaviour import behaviour
    from circuits.models.bridge import load_model
    from circuits.prompt_check import check_prompts
    from cli.answers import scored, scoring_named
    from cli.own_prompts import warn_of_file
    from cli.prompt_source import draw_prompts, own_prompts
    from cli.render import progress
    from cli.task_files import named_task

    task, scoring = named_task(options["name"], options["task_file"]), scoring_named(options["answers"])
    files = ("prompts", "corrupt_prompts", "corrupt_column", "make_corrupt")
    own = scored(own_prompts(task, *(options[name] for name in files)), scoring)
    with progress(quiet=options["json"]) as show:
        show("loading the model", 0, 1)
        model = load_model(options["model"])
        show("loading the model", 1, 1)
        kind = {name: options[name] for name in ("form", "corruption", "seed")}
        drawn = draw_prompts(model, task, own, n=options["pairs"], scoring=scoring, **kind)
        check = check_prompts(model, drawn.pairs, seed=options["seed"], judge_on=options["judge_on"])
        usable = [i for i in range(check.n) if i not in check.unusable]
        able = (
            behaviour(model, [drawn.pairs[i] for i in usable], usable, seed=options["seed"])
            if usable
            else None
        )
    if options["json"]:
        from circuits.records import json_text

        print(json_text(_record(model, drawn, check, able)), end="")
    else:
        warn_of_file(drawn)
        _show(model, drawn, check, able)
    if check.unusable:
        raise typer.Exit(UNUSABLE)


def _record(
    model: BridgeModel, drawn: Prompts, check: PromptCheck, able: Behaviour | None
) -> dict[str, object]:
    """What --json prints; a pair by its index, counted from 0."""
    return {
        "task": drawn.name,
        "form": drawn.form,
        "corruption": drawn.corruption,
        "model": model.name,
        "rejected_words": drawn.rejected,
        "check": check,
        "behaviour": able,
    }


def _show(model: BridgeModel, drawn: Prompts, check: PromptCheck, able: Behaviour | None) -> None:
    from cli.render import say

    kind = ", ".join(word for word in (drawn.form, drawn.corruption) if word)
    say(f"{drawn.name}{f' ({kind})' if kind else ''} in {model.name}: {check.n} pairs")
    for line in (*_tokens(check), *_words(drawn, check), *_copies(check), *_balance(check)):
        say(f"  {line}")
    if check.leaks:
        say(f"  {_leaks(check.leaks)}")
    if able is None:
        say("No pair can be used, so the model was not asked.")
        return
    say("")
    _figures(able)
    if able.failures:
        say("")
        _failures(drawn, able.failures, able.whole.n)


def _tokens(check: PromptCheck) -> Iterator[str]:
    found = check.alignment
    if check.unusable:
        yield f"CANNOT BE USED: {len(check.unusable)} pairs"
        for i, why in list(check.unusable.items())[:SHOWN]:
            yield f"  prompt {i + 1}: {why}"
        if len(check.unusable) > SHOWN:
            yield f"  ... and {len(check.unusable) - SHOWN} more, see --json"
    yield (
        f"tokens: {_range(found.lengths)} a prompt; clean and corrupt differ in length in {len(found.unequal)} "
        f"pairs, are the same in {len(found.same_tokens)}"
    )
    if found.first_differences:
        yield (
            f"first position at which they differ: {_spread(found.first_differences)}; tokens that differ: "
            f"{_spread(found.n_differences)}"
        )


def _words(drawn: Prompts, check: PromptCheck) -> Iterator[str]:
    words = check.words
    lengths = _spread(words.answer_lengths), _spread(words.distractor_lengths)
    yield f"tokens of an answer: {lengths[0]}; of a distractor: {lengths[1]}"
    if words.unknown_answers:
        yield f"answers or distractors that the vocabulary lacks: in {len(words.unknown_answers)} pairs"
    if words.unknown:
        yield f"words that the vocabulary lacks: {_some(words.unknown)}"
    if any(drawn.rejected.values()):
        rejected = ", ".join(f"{n} {kind}" for kind, n in drawn.rejected.items() if n)
        yield f"words left out because the tokenizer splits them: {rejected}"


def _copies(check: PromptCheck) -> Iterator[str]:
    copies = check.copies
    groups = copies.by_text or copies.by_tokens
    if not groups:
        yield "copies: none"
        return
    those = "; ".join(", ".join(str(i + 1) for i in group) for group in groups[:SHOWN])
    only = "" if copies.by_text else " as this model reads them"
    yield f"copies: {copies.extra} pairs repeat another{only} (prompts {those}{' ...' if groups[SHOWN:] else ''})"
    if copies.contradicting:
        yield f"  {len(copies.contradicting)} of these texts have more than one answer"


def _balance(check: PromptCheck) -> Iterator[str]:
    balance = check.balance
    for what, counts in (("templates", balance.templates), ("answers", balance.answers)):
        most, n = next(iter(counts.items()))
        least = min(counts.values())
        if len(counts) > 1:
            share_of_most = (
                f"; the most frequent is {most!r} ({n / sum(counts.values()):.1%})" if n > least else ""
            )
            times = f"{n}" if n == least else f"{least} to {n}"
            yield f"{what}: {len(counts)}, each {times} times{share_of_most}"
        else:
            yield f"{what}: one, {most!r}" if most else f"{what}: none named"
    both = balance.answer_first + balance.answer_second
    if both:
        yield (
            f"of answer and distractor the prompt names the answer first in {balance.answer_first} pairs, second in "
            f"{balance.answer_second}" + (f"; {check.n - both} name one or none" if both < check.n else "")
        )


def _leaks(leaks: Leaks) -> str:
    shares = (
        ("the text", leaks.text),
        ("the tokens", leaks.tokens),
        ("the tokens but for answer and distractor", leaks.tokens_but_names),
        ("the key", leaks.key),
        ("answer and distractor", leaks.words),
        ("the template", leaks.template),
    )
    told = ", ".join(f"{what} {n / leaks.n_judged:.1%}" for what, n in shares)
    return f"of the {leaks.n_judged} judged pairs a discovered one has {told}"


def _range(counts: Mapping[int, int]) -> str:
    if not counts:
        return "none"
    least, most = min(counts), max(counts)
    return f"{least}" if least == most else f"{least} to {most}"


def _spread(counts: Mapping[int, int], most: int = 6) -> str:
    """9 (in 17), 10 (in 34); by how many pairs, or the range where there are many."""
    if len(counts) <= 1:
        return _range(counts)
    if len(counts) > most:
        usual = max(counts, key=lambda value: counts[value])
        return f"{_range(counts)}, mostly {usual}"
    return ", ".join(f"{value} ({n})" for value, n in counts.items())


def _some(words: Sequence[str], most: int = 8) -> str:
    return f"{len(words)} ({', '.join(words[:most])}{' ...' if len(words) > most else ''})"


def _figures(able: Behaviour) -> None:
    """The whole in words, the templates in a table, the worst first."""
    from cli.render import say, table

    whole = able.whole
    say(
        f"The model prefers the answer on {share(whole.preferred)}, says it first on {share(whole.correct)}; logit "
        f"difference {estimate(whole.clean)} clean, {estimate(whole.corrupt)} corrupt."
    )
    if len(able.by_template) < 2:
        return
    worst = sorted(
        able.by_template.items(), key=lambda entry: (entry[1].preferred.value, entry[1].clean.value)
    )
    columns = ("template", "pairs", "prefers the answer", "says it first", "logit difference")
    table(columns, [_row(name, figures) for name, figures in worst[:SHOWN]], numeric=columns[1:])
    if len(worst) > SHOWN:
        say(f"... and {len(worst) - SHOWN} templates on which it does better, see --json.")


def _row(name: str, figures: Figures) -> tuple[object, ...]:
    preferred = "{:.0%} [{:.0%}, {:.0%}]".format(*astuple(figures.preferred))
    return name, figures.n, preferred, f"{figures.correct.value:.0%}", estimate(figures.clean)


def _failures(drawn: Prompts, failures: Sequence[Failure], n: int) -> None:
    from cli.render import say, table

    wrong = sum(not failure.preferred for failure in failures)
    say(
        f"{len(failures)} of {n} pairs fail: in {wrong} the model prefers a distractor, in {len(failures) - wrong} "
        "it says something else first."
    )
    rows = [
        (
            failure.index + 1,
            drawn.pairs[failure.index].clean,
            f"{'/'.join(drawn.pairs[failure.index].answers)} {failure.answer:.1%} (rank {failure.rank})",
            ", ".join(f"{token!r} {probability:.1%}" for token, probability in failure.says),
        )
        for failure in failures[:SHOWN]
    ]
    table(("prompt", "clean", "answer", "it says"), rows)
    if len(failures) > SHOWN:
        say(f"... and {len(failures) - SHOWN} more, see --json.")
