"""`--answers` as a user gives it: what a run records, what is left out, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from circuits.runs import read_run
from cli.answers import OF_STRINGS, methods_for
from cli.discover import CORE_METHODS

Invoke = Callable[..., Result]
QUICK = ("discover", "ioi", "--model", "planted-ioi", "--pairs", "8")
PATCHING = ("--method", "activation-patching")


def test_whole_strings_of_one_token_score_as_logit_differences_do(circuit: Invoke, tmp_path: Path) -> None:
    """Two routes: a row a string, each with its log-probability, beside a row a pair with its logits."""
    results = [
        circuit(*QUICK, *PATCHING, *more, "--output", name)
        for name, more in (("one", ()), ("whole", ("--answers", "whole-string")))
    ]
    assert [result.exit_code for result in results] == [0, 0], results[1].output
    one, whole = (read_run(tmp_path / name) for name in ("one", "whole"))
    assert (one.run["config"]["metric"], one.run["config"]["answers"]) == ("logit-difference", "one-token")
    assert (whole.run["config"]["metric"], whole.run["config"]["answers"]) == (OF_STRINGS, "whole-string")
    assert {pair.scoring for pair in whole.prompts} == {"whole-string"}
    assert [p.clean for p in whole.prompts] == [p.clean for p in one.prompts]
    np.testing.assert_allclose(whole.nodes["score"], one.nodes["score"], atol=1e-4)
    assert whole.evaluation["baseline"]["n_prompts"] == one.evaluation["baseline"]["n_prompts"] == 4
    assert "whole-string" in (tmp_path / "whole" / "report.md").read_text()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--answers", "whole-strings"), "Did you mean 'whole-string'"),
        (
            ("--answers", "whole-string", "--metric", "logit-difference"),
            "which take log-probability-difference",
        ),
        (
            ("--answers", "whole-string", "--method", "logit-attribution"),
            "logit-attribution splits the logits",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_the_model_is_loaded(
    circuit: Invoke, options: tuple[str, ...], says: str
) -> None:
    result = circuit(*QUICK, *options)
    assert result.exit_code == 2, result.output
    assert says in " ".join(result.output.split())


def test_the_core_methods_without_what_reads_logits() -> None:
    assert methods_for(False, None, CORE_METHODS) == list(CORE_METHODS)
    assert methods_for(True, None, CORE_METHODS) == ["activation-patching", "sae"]
    assert methods_for(True, ["eap"], CORE_METHODS) == ["eap"]
