"""The command that makes a run again, from what its run.json holds.

The one idea: only what differs from the defaults is said, and the test runs the command and gets the same run. A
model from a local directory is known by the directory's name alone; prompts of the user's own are those that the run
folder keeps.
"""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

Record = Mapping[str, Any]
_SELECTION = {
    "top": "n",
    "threshold": "share",
    "significance": "alpha",
    "smallest": "target",
    "pruned": "target",
}
_WORK = ("pairs", "seed", "batch_size", "device", "dtype", "memory")
_PLAIN = ("metric", *_WORK, "verify", "missed", "judge_on")


def command(run: Record) -> str:
    """`circuit discover ...`. run: what run.json holds."""
    return shlex.join(["circuit", "discover", *_words(run)])


def _words(run: Record) -> Iterator[str]:
    config, screening = run["config"], run["prompts"].get("screening")
    yield from _prompts(config)
    yield from ("--model", config["model"])
    for name in config["methods"]:
        yield from ("--method", name)
    for name, options in config["methods"].items():
        yield from _settings(name, options)
    yield from _selection(config["selection"])
    drawn = {} if screening is None else {"pairs": screening["drawn"]}
    yield from _differing(config | drawn)
    if screening is not None:
        if screening["min_accuracy"] is not None:
            yield from ("--min-accuracy", f"{screening['min_accuracy']:g}")
        if screening["keep_solved"]:
            yield "--keep-solved"


def _prompts(config: Record) -> Iterator[str]:
    if not config["form"]:  # the user's own: the run folder holds them
        yield from ("--prompts", "prompts.jsonl")
        return
    if "task_file" in config:
        yield from ("--task-file", f"{config['task_file']['file']}:{config['task']}")
    else:
        yield str(config["task"])
    yield from ("--form", config["form"], "--corruption", config["corruption"])


def _settings(name: str, options: Record) -> Iterator[str]:
    from circuits.methods import METHODS

    usual = METHODS.load(name).options().model_dump()
    for option, value in options.items():
        if value != usual[option]:
            yield from ("--set", f"{name}.{option.replace('_', '-')}={value}")


def _selection(selection: Record) -> Iterator[str]:
    rule = selection["rule"]
    value = selection[_SELECTION[rule]]
    if rule == "pruned" and value == 0.9:
        return
    yield from (f"--{rule.replace('pruned', 'prune')}", f"{value:g}")
    if rule == "significance":
        yield from ("--correction", selection["correction"])


def _differing(config: Record) -> Iterator[str]:
    from cli.discover import discover

    usual = inspect.signature(discover).parameters
    for name in _PLAIN:
        if config.get(name) is not None and config[name] != usual[name].default:
            yield from (f"--{name.replace('_', '-')}", str(config[name]))
    if config["form"] and config["answers"] != "one-token":
        yield from ("--answers", config["answers"])
    if not config["bos"]:
        yield "--no-bos"
