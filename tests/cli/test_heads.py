"""`circuit heads` as a user runs it: the table, the folder, JSON, and mistakes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import Result
from tiny_models import prompt_pairs
from typer.main import get_command

from circuits.roles import ROLES
from cli.main import app

Invoke = Callable[..., Result]
QUICK = ("heads", "planted-ioi", "--task", "ioi", "--pairs", "8")
FROM_TOKENS = {
    *("copying", "duplicate-token", "induction", "previous-token", "razor-echo", "razor-induction"),
    *("sink", "distance", "windowed-distance", "future-influence", "retrieval", "semantic-retrieval"),
}


def test_the_table_shows_the_first_heads_of_each_role(circuit: Invoke, tmp_path: Path) -> None:
    result = circuit(*QUICK, "--top", "2")
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines()]
    movers = next(n for n, row in enumerate(rows) if row[:1] == ["name-mover"])
    assert [rows[movers][1], rows[movers + 1][0]] == ["a2.h1", "a2.h3"]
    words = " ".join(result.output.split())
    assert "content-gatherer is left out: it needs prompts that name ASKED or SUBJECT" in words
    assert "successor is left out: it needs numbers, days" in words
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_the_same_byte_for_byte_and_whole(circuit: Invoke) -> None:
    for name in ("one", "two"):
        assert circuit(*QUICK, "--output", name).exit_code == 0
    one, two = ({p.name: p.read_bytes() for p in Path(name).iterdir()} for name in ("one", "two"))
    assert one == two
    kept = json.loads(one["heads.json"])
    assert set(kept["roles"]) | set(kept["left_out"]) == set(ROLES.names())
    pictures = {f"heatmap-{role}.png" for role in kept["roles"]}
    assert set(one) == {"heads.json", "heads.csv", "tokens.csv", "report.md", "report.html"} | pictures
    table = pd.read_csv("one/heads.csv")
    assert len(table) == 18 * len(kept["roles"])
    line = table[(table["role"] == "s-inhibition") & (table["head"] == "a1.h4")].iloc[0]
    assert line["score"] == pytest.approx(kept["roles"]["s-inhibition"]["heads"]["a1.h4"]["score"])
    assert (line["layer"], line["index"]) == (1, 4)
    report = one["report.md"].decode()
    for role in kept["roles"]:
        assert f"## {role}" in report
        assert ROLES.load(role).paper in report


def test_json_is_the_record_and_the_seed_changes_it(circuit: Invoke) -> None:
    zero, again, one = (
        circuit("heads", "planted-ioi", "--role", "copying", "--json", "--seed", seed) for seed in (0, 0, 1)
    )
    assert zero.stdout == again.stdout != one.stdout
    kept = json.loads(zero.stdout)
    assert list(kept["roles"]) == ["copying"]
    assert kept["prompts"] is None
    assert len(kept["roles"]["copying"]["heads"]) == 18


def test_without_a_task_roles_of_random_tokens_are_left(circuit: Invoke) -> None:
    result = circuit("heads", "planted-ioi", "--json")
    assert set(json.loads(result.stdout)["roles"]) == FROM_TOKENS


def test_the_help_names_every_role() -> None:
    (option,) = (p for p in get_command(app).commands["heads"].command().params if p.name == "role")  # type: ignore[attr-defined]
    assert all(role in option.help for role in ROLES.names())


def test_own_prompts_are_all_taken(circuit: Invoke, directory: Callable[[str], Path]) -> None:
    lines = [asdict(pair) for pair in prompt_pairs(4)]
    kept = ("clean", "corrupt", "answers", "distractors", "positions")
    text = "".join(json.dumps({name: line[name] for name in kept}) + "\n" for line in lines)
    Path("mine.jsonl").write_text(text)
    words = ("heads", directory("tiny-gpt2"), "--prompts", "mine.jsonl", "--role", "s-inhibition", "--json")
    said = json.loads(circuit(*words).stdout)
    assert said["prompts"] == {"task": "mine", "form": "", "n": 4}
    assert said["roles"]["s-inhibition"]["samples"] == 4
    assert json.loads(circuit(*words, "--pairs", "3").stdout)["prompts"]["n"] == 3


def test_head_lists_are_what_their_readers_expect(circuit: Invoke) -> None:
    """DuoAttention loads a table of floats and two sizes; the others JSON by layer."""
    formats = [
        word
        for name in ("razor-attention", "compress-kv", "json", "duo-attention")
        for word in ("--export", name)
    ]
    roles = [
        word
        for name in ("retrieval", "semantic-retrieval", "razor-echo", "razor-induction")
        for word in ("--role", name)
    ]
    assert circuit(*QUICK, *roles, *formats, "--output", "out").exit_code == 0
    place = Path("out/export")
    gates = np.loadtxt(place / "duo-attention/full_attention_heads.tsv", delimiter="\t")
    config = json.loads((place / "duo-attention/config.json").read_text())
    ours = json.loads((place / "head-list.json").read_text())
    assert gates.shape == (3, 6)
    assert (config["sink_size"], config["recent_size"]) == (128, 256)
    assert gates.ravel() == pytest.approx(np.ravel(ours["roles"]["retrieval"]["kv_groups"]))
    razor = json.loads((place / "razor-attention.json").read_text())
    kept = ours["roles"]["razor-induction"]["ranking"][:3]  # 14 % of 18
    assert {
        f"a{layer}.h{head}" for layer, heads in razor["prefix_matching"].items() for head in heads
    } == set(kept)
    assert sum(map(len, razor["copying"].values())) == 1
    compress = json.loads((place / "compress-kv.json").read_text())
    assert compress == ours["roles"]["semantic-retrieval"]["by_layer"]
    assert all(sorted(heads) == list(range(6)) for heads in compress.values())


def test_exports_need_a_folder(circuit: Invoke) -> None:
    result = circuit("heads", "planted-ioi", "--role", "sink", "--export", "json")
    assert result.exit_code == 2
    assert "say where with --output FOLDER" in " ".join(result.output.split())


def test_masking_stands_in_the_table_the_record_and_the_report(circuit: Invoke) -> None:
    words = (*QUICK, "--role", "name-mover", "--role", "task-kv", "--mask-top", "2", "--output", "out")
    result = circuit(*words)
    assert result.exit_code == 0, result.output
    masking = json.loads(Path("out/heads.json").read_text())["roles"]["name-mover"]["masking"]
    assert masking["heads"] == ["a2.h1", "a2.h3"]
    assert masking["masked"]["value"] < masking["whole"]["value"] == 1
    assert len(masking["drawn"]) == len(masking["random"]) > 1
    assert "a2.h1, a2.h3 looking evenly" in Path("out/report.md").read_text()
    assert "a2.h1, a2.h3 looking evenly" in " ".join(result.stdout.split())


def test_a_folder_that_stands_is_replaced_on_request_alone(circuit: Invoke) -> None:
    words = ("heads", "planted-ioi", "--role", "copying", "--output", "out")
    assert circuit(*words).exit_code == 0
    assert circuit(*words).exit_code == 2
    assert circuit(*words, "--force").exit_code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["planted-ioi", "--role", "inductoin"], "There is no role 'inductoin'. Did you mean 'induction'?"),
        (["planted-ioi", "--top", "0"], "Invalid value for '--top'"),
        (["planted-ioi", "--task", "iio"], "Did you mean 'ioi'?"),
        (["planted-ioi", "--form", "plain"], "say which with --task"),
        (["planted-ioi", "--role", "successor"], "Error: successor needs numbers, days"),
        (["planted-ioi", "--role", "name-mover"], "name-mover needs prompts that name IO or RIGHT"),
        (
            ["plain-4l", "--task", "arithmetic", "--role", "s-inhibition"],
            "those of arithmetic name",
        ),
        (["plain-4l", "--role", "sink", "--export", "razor"], "There is no head-list format 'razor'"),
        (
            ["planted-ioi", "--role", "sink", "--export", "compress-kv"],
            "--export compress-kv is made of semantic-retrieval, which was not measured",
        ),
        (["planted-ioi", "--role", "retrieval", "--length", "500"], "give a --length from 9 to 36"),
        (["planted-ioi", "--role", "sink", "--mask-top", "18"], "has 18 heads, so the first 18 cannot be"),
        (["planted-io"], "Did you mean 'planted-ioi'?"),
    ],
)
def test_a_mistake_is_one_message(words: list[str], message: str, circuit: Invoke, tmp_path: Path) -> None:
    result = circuit("heads", *words, "--output", "out")
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_the_engine_does_not_serve_is_named(
    circuit: Invoke, directory: Callable[[str], Path]
) -> None:
    result = circuit("heads", directory("tiny-phi"))
    assert result.exit_code == 2
    assert "does not serve tiny-phi" in " ".join(result.output.split())
