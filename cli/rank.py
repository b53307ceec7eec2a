"""`circuit rank`: texts by what a model makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.guard import guarded
from cli.options import Device, ReplaceFolder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from circuits.models.bridge import BridgeModel
    from circuits.progress import Progress
    from circuits.ranking.texts import Text
    from cli.rank_output import Ranked


@guarded
def rank(
    texts: Annotated[Path, typer.Argument(help='Texts, one JSON object with a "text" a line.')],
    model: Annotated[
        str, typer.Option("--model", "-m", help="A built-in model, a Hugging Face directory, or a hub name.")
    ],
    by: Annotated[
        Literal["attention-influence", "mona"],
        typer.Option(
            help="attention-influence: the loss that masking the retrieval heads adds. mona: likeness to --target."
        ),
    ],
    target: Annotated[Path | None, typer.Option(help="mona: the texts to be like, in the same form.")] = None,
    head: Annotated[
        list[str] | None,
        typer.Option(
            help="attention-influence: a head to mask, such as a3.h7; repeat for more. The first 5% of heads by "
            "retrieval score if not given."
        ),
    ] = None,
    length: Annotated[
        int | None,
        typer.Option(min=2, help="attention-influence: tokens of the needle prompts that find heads."),
    ] = None,
    draws: Annotated[
        int | None, typer.Option(min=1, help="attention-influence: random sets of heads; 5 if not given.")
    ] = None,
    features: Annotated[
        int | None,
        typer.Option(min=2, help="mona: size of the dictionary that is trained; 512 if not given."),
    ] = None,
    active: Annotated[
        int | None, typer.Option(min=1, help="mona: features that a token may have; 16 if not given.")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="mona: steps of the dictionary's training; 300 if not given."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many texts to show.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Seeds needles, controls, the dictionary.")] = 0,
    device: Device = "cpu",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A folder to write: scores.jsonl, a table, a report."),
    ] = None,
    force: ReplaceFolder = False,
    json: Annotated[bool, typer.Option("--json", help="Print ranking.json, and nothing else.")] = False,
) -> None:
    """Rank texts by how much they ask of a model's retrieval heads, or by how like some others they are.

    [bold]circuit rank texts.jsonl --model plain-6l --by attention-influence --output ranked[/bold]

    [bold]circuit rank texts.jsonl --model plain-4l --by mona --target good.jsonl[/bold]
    """
    from circuits.batches import unknown_in
    from circuits.models.bridge import load_model
    from circuits.models.source import find_model
    from circuits.ranking.texts import read_texts
    from circuits.runs import check_output
    from cli.prompt_source import warn_of_unknown
    from cli.rank_output import RECORD, reading_of
    from cli.reading_output import put_out
    from cli.render import progress

    asked: Mapping[str, Mapping[str, object]] = {
        "attention-influence": {"--head": head, "--length": length, "--draws": draws},
        "mona": {"--target": target, "--features": features, "--active": active, "--steps": steps},
    }
    _require(by, asked)
    source = find_model(model)
    if output:
        check_output(output, force, RECORD)
    with progress(quiet=json) as say:
        loaded = load_model(source, device=device)
        pool = read_texts(texts, loaded)
        warn_of_unknown(loaded, unknown_in(loaded, (one.text for one in pool)))
        if by == "mona":
            from circuits.ranking.mona import DictionarySettings

            assert target is not None, "see _require"
            settings = DictionarySettings(features or 512, active or 16, steps or 300)
            found = _like(loaded, pool, read_texts(target, loaded), settings, seed, say)
        else:
            found = _influenced(loaded, pool, head or [], length, draws or 5, seed, say)
    put_out(reading_of(found, loaded, texts, target, seed, top), output, force=force, json=json)


def _require(by: str, asked: Mapping[str, Mapping[str, object]]) -> None:
    """asked: what each way of ranking has for options of its own."""
    from circuits.errors import CircuitError

    for other, options in asked.items():
        given = [option for option, value in options.items() if value is not None]
        if other != by and given:
            raise CircuitError(
                f"--by {by} takes no {' and no '.join(given)}, which {other} does. Leave that out."
            )
    if by == "mona" and asked[by]["--target"] is None:
        raise CircuitError("--by mona compares texts with others: name those with --target FILE.")


def _like(
    model: BridgeModel,
    pool: tuple[Text, ...],
    wanted: tuple[Text, ...],
    settings: object,
    seed: int,
    say: Progress,
) -> Ranked:
    from circuits.ranking.mona import DictionarySettings, mona
    from cli.rank_output import Ranked

    assert isinstance(settings, DictionarySettings)
    found = mona(model, pool, wanted, settings, seed=seed, progress=say)
    chance = found.random.mean(0) if len(found.random) else None
    details = {"dictionary": settings, "variance_explained": found.explained, "targets": len(wanted)}
    return Ranked("mona", pool, found.scores, {}, chance, details)


def _influenced(
    model: BridgeModel,
    pool: tuple[Text, ...],
    heads: list[str],
    length: int | None,
    draws: int,
    seed: int,
    say: Progress,
) -> Ranked:
    from circuits.interventions.intervention import require_heads
    from circuits.ranking.attention_influence import attention_influence, require_readable
    from cli.rank_output import Ranked

    if heads:
        require_heads(model.graph, heads)
    require_readable(model, pool)
    masked = tuple(dict.fromkeys(heads)) or _retrieval_heads(model, length, seed)
    found = attention_influence(model, pool, masked, seed=seed, draws=draws, progress=say)
    chance = found.random.mean(0) if len(found.random) else None
    columns = {"loss": found.loss, "masked_loss": found.masked_loss, "excess": found.excess}
    details = {"heads": found.heads, "random_heads": found.drawn, "same_layers": found.same_layers}
    return Ranked("attention-influence", pool, found.scores, columns, chance, details)


def _retrieval_heads(model: BridgeModel, length: int | None, seed: int) -> tuple[str, ...]:
    """Raises CircuitError where the model passes no test to find them by."""
    from circuits.errors import CircuitError
    from circuits.ranking.attention_influence import first_heads
    from circuits.roles.retrieval import ROLE
    from circuits.roles.role import Evidence, score

    found = score(ROLE, Evidence(model, seed=seed, length=length))
    if found is None:
        raise CircuitError(
            f"{model.name} passes no needle test, so it shows no retrieval heads. Name heads to mask with --head, or "
            "try shorter needle prompts with --length."
        )
    return first_heads(model.graph, found.scores.ranking())
