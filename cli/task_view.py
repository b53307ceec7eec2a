"""`circuit tasks NAME` in the terminal: samples of each corruption with their tokens aligned side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cli.render import say, table

if TYPE_CHECKING:
    from tasks.task import Task


def show_task(task: Task, samples: list[dict[str, Any]], model: str) -> None:
    """What the task is, its forms and corruptions, and a few pairs of each corruption."""
    say(f"{task.name}: {task.summary}" + (f" ({task.paper})" if task.paper else ""))
    say(f"metric: {task.metric}")
    for kind, entries in (("form", task.forms), ("corruption", task.corruptions)):
        for n, (name, what) in enumerate(entries.items()):
            say(f"{kind} {name}{' (default)' if n == 0 else ''}: {what}")
    for model_name, reference in task.references.items():
        say(f"reference circuit for {model_name}: {len(reference.heads)} heads, {reference.source}")
    counts = ", ".join(f"{n} {kind}" for kind, n in samples[0]["rejected"].items() if n) or "none"
    say(f"left out for {model}'s tokenizer: {counts}")
    for sample in samples:
        for pair in sample["pairs"]:
            _show_pair(sample["corruption"], pair)


def _show_pair(corruption: str, pair: dict[str, Any]) -> None:
    say(
        f"\n{corruption}, template {pair['template']}: answer {pair['answers']}, distractor {pair['distractors']}"
    )
    say(f"negative: {pair['negative'] or '(the corrupt prompt serves)'}")
    named = {index: name for name, index in pair["positions"].items()}
    clean, corrupt = pair["tokens"]["clean"], pair["tokens"]["corrupt"]
    rows = [
        (n, a, b, "differs" if n in pair["differs_at"] else "", named.get(n, ""))
        for n, (a, b) in enumerate(zip(clean, corrupt, strict=True))
    ]
    table(("position", "clean", "corrupt", "", "named"), rows, numeric=("position",))
