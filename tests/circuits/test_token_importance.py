"""Importance of tokens: models that rest on one token, or on none, by construction; and judges by hand."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pytest
import torch
from fake_model import Bare
from torch import Tensor

from circuits.errors import CircuitError
from circuits.graph import Graph
from circuits.model import Edit, LastLogitsMetric, Resume, Run, Site
from circuits.models.bridge import BridgeModel
from circuits.token_importance.prediction import Prediction, gradient_by_input, predict, shuffled, text_tokens
from circuits.token_importance.reading import read_prompts
from circuits.token_importance.reagent import Search, reagent
from circuits.token_importance.soft_scores import distance, soft_scores

WORDS = 12


class OneToken(Bare):
    """Says the token that stands at `column`, and looks at no other; where there is no column, always the same."""

    name, graph, d_model, memory = "one-token", Graph(1, 1, 1), WORDS, 2**20

    def __init__(self, column: int | None) -> None:
        self.column = column

    def _logits(self, x: Tensor) -> Tensor:
        if self.column is None:
            return torch.arange(WORDS).float().expand(len(x), -1) + 0 * x.sum((1, 2))[:, None]
        return 6 * x[:, self.column]

    def run(
        self,
        tokens: Tensor,
        *,
        capture: Collection[Site] = (),
        edit: Mapping[Site, Edit] | None = None,
        resume: Resume | None = None,
    ) -> Run:
        x = torch.eye(WORDS)[tokens]
        for change in (edit or {}).values():
            x = change(x)
        return Run(self._logits(x), {})

    def gradients(
        self, tokens: Tensor, sites: Collection[Site], metric: LastLogitsMetric
    ) -> tuple[dict[Site, Tensor], dict[Site, Tensor]]:
        x = torch.eye(WORDS)[tokens].requires_grad_()
        (slope,) = torch.autograd.grad(metric(self._logits(x)).sum(), x)
        return {Site("input"): x.detach()}, {Site("input"): slope}


TOKENS = torch.tensor([[0, 3, 7, 5, 2, 9], [0, 8, 1, 4, 11, 6]])


def _asked(column: int | None) -> Prediction:
    return predict(OneToken(column), TOKENS, 1, torch.arange(1, WORDS))


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("column", [1, 3, 5])
def test_the_one_token_that_counts_comes_first_by_all_methods(column: int) -> None:
    asked = _asked(column)
    assert asked.said.tolist() == TOKENS[:, column].tolist()
    found = reagent(asked, Search(top=1, best=1), _generator())
    assert found.stopped.all()
    assert found.importance.argmax(1).tolist() == [column, column]
    assert found.rationale[:, column].all()
    gradient = gradient_by_input(asked)
    assert gradient.argmax(1).tolist() == [column, column]
    for importance in (found.importance, gradient):
        torch.testing.assert_close(importance.sum(1), torch.ones(2))
        assert importance[:, 0].tolist() == [0, 0], "the opening is nobody's to change"


def test_a_model_that_reads_nothing_leaves_scores_as_they_were_drawn() -> None:
    asked, search = _asked(None), Search(runs=2, steps=4)
    found = reagent(asked, search, _generator())
    assert (found.steps == 1).all(), "the answer is the same whatever is replaced"
    drawn = torch.rand((4, 6), generator=_generator())[:, 1:].softmax(-1).view(2, 2, 5).mean(1)
    torch.testing.assert_close(found.importance[:, 1:], drawn)
    torch.testing.assert_close(gradient_by_input(asked)[:, 1:], torch.full((2, 5), 0.2))
    assert [x.tolist() for x in soft_scores(asked, found.importance, "scaled", _generator())] == [[0, 0]] * 2


def test_runs_that_do_not_stop_still_give_numbers() -> None:
    found = reagent(_asked(3), Search(runs=2, steps=1, top=1, best=1, rate=0.01), _generator())
    assert found.importance.isfinite().all()
    assert found.steps.max() == 1


def test_judges_tell_the_right_token_from_the_others() -> None:
    asked = _asked(3)
    right, wrong = torch.zeros(2, 6), torch.zeros(2, 6)
    right[:, 3], wrong[:, 2] = 1, 1
    for way in ("as coded", "scaled"):
        sufficiency, comprehensiveness = soft_scores(asked, right, way, _generator())
        torch.testing.assert_close(sufficiency, torch.ones(2))
        torch.testing.assert_close(comprehensiveness, torch.ones(2))
        assert [x.abs().max().item() for x in soft_scores(asked, wrong, way, _generator())] == [0, 0]
    one, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert distance(one, other, "as coded").item() == pytest.approx(2**0.5), "it may pass one"
    assert distance(one, other, "scaled").item() == pytest.approx(1)


def test_shuffled_numbers_stay_in_the_text() -> None:
    importance = torch.tensor([[0.0, 0.1, 0.2, 0.3, 0.4, 0.0]])
    free = torch.tensor([False, True, True, True, True, False])
    found = shuffled(importance, free, _generator())
    assert sorted(found[0].tolist()) == sorted(importance[0].tolist())
    assert found[0, [0, 5]].tolist() == [0, 0]
    assert not torch.equal(found, importance)


def test_prompts_are_read_alike_alone_and_together(gpt2: BridgeModel) -> None:
    texts = ["When Mary and John went to the store", "Mary and Tom", "When Mary and Tom went to the store"]
    found = read_prompts(gpt2, texts, Search(runs=2, steps=3, top=2), seed=0)
    assert [len(each.tokens) for each in found] == [8, 3, 8]
    assert found[1].tokens == ("Mary", "and", "Tom")
    (alone,) = read_prompts(gpt2, texts[1:2], Search(runs=2, steps=3, top=2), seed=0)
    assert alone == found[1]
    assert set(found[0].judged) == {(m, w) for m in ("reagent", "gradient") for w in ("as coded", "scaled")}
    assert 0 not in text_tokens(gpt2, 22).tolist(), "special tokens stand for no text"


def test_a_prompt_of_one_token_is_refused(gpt2: BridgeModel) -> None:
    with pytest.raises(CircuitError, match="has fewer than 2 tokens of text"):
        read_prompts(gpt2, ["Mary"], Search(), seed=0)
