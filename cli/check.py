"""`circuit check`: the gate for continuous integration: has a circuit drifted from the one that was agreed on?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.guard import guarded
from cli.junit import Case, write_junit
from cli.wording import gate_words

if TYPE_CHECKING:
    from circuits.comparison.gates import Gate

FAILED = 1


@guarded
def check(
    baseline: Annotated[str, typer.Argument(help="The run to hold to; RUN:METHOD names a circuit of it.")],
    run: Annotated[str, typer.Argument(help="The run to check.")],
    min_overlap: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="The least Jaccard of the two circuits; of edges where both keep edges."
        ),
    ] = None,
    min_faithfulness: Annotated[
        float | None, typer.Option(help="The least faithfulness that RUN measured of its circuit.")
    ] = None,
    max_drift: Annotated[
        float | None,
        typer.Option(min=0, help="How far the faithfulness of RUN may be from the baseline's, up or down."),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option("--method", "-m", help="Whose circuits; each run's first method if not given."),
    ] = None,
    nodes: Annotated[
        bool, typer.Option("--nodes", help="Overlap of nodes; of edge circuits those that edges touch.")
    ] = False,
    junit: Annotated[Path | None, typer.Option(help="Also write a JUnit XML report to this file.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the gates as JSON, and nothing else.")] = False,
) -> None:
    """Check a run against a baseline: exit code 0 where all gates hold, 1 where one fails.

    [bold]circuit check runs/agreed runs/today --min-overlap 0.9 --junit check.xml[/bold]

    [bold]circuit check runs/agreed runs/today --min-faithfulness 0.8 --max-drift 0.05 --json[/bold]
    """
    from circuits.comparison.gates import Limits, check_gates
    from circuits.comparison.sides import read_sides

    limits = Limits(min_overlap, min_faithfulness, max_drift)
    sides = read_sides((baseline, run), method)
    gates = check_gates(sides[0], sides[1], limits, nodes_only=nodes)
    if junit is not None:
        cases = [Case("circuit.check", g.name, "" if g.passed else gate_words(g)) for g in gates]
        write_junit(junit, "circuit check", cases)
    failed = [gate for gate in gates if not gate.passed]
    if json:
        from circuits.records import json_text

        record = {"baseline": baseline, "run": run, "passed": not failed}
        print(json_text(record | {"gates": [asdict(g) | {"passed": g.passed} for g in gates]}), end="")
    else:
        from cli.render import say

        say(_line(gates))
    if failed:
        raise typer.Exit(FAILED)


def _line(gates: Sequence[Gate]) -> str:
    """FAILED: overlap 0.42 (at least 0.90); faithfulness 0.93 (at least 0.80)."""
    verdict = "passed" if all(gate.passed for gate in gates) else "FAILED"
    return f"{verdict}: {'; '.join(map(gate_words, gates))}"
