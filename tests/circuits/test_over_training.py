"""Over training: when a figure came to stay, and a timeline of checkpoints whose story is known."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_checkpoints import AGAINST, MOVERS, PLANTED, STORY, WHOLE, write_checkpoints

from circuits.discovery import Plan, discover
from circuits.errors import CircuitError, ModelError
from circuits.methods import METHODS
from circuits.models.bridge import BridgeModel, load_model
from circuits.over_training.checkpoints import Checkpoint, Training, find_checkpoints
from circuits.over_training.figures import all_series
from circuits.over_training.series import Appearance, Point, Series, appearance, first_for_good
from circuits.over_training.timeline import Question, Timeline, timeline
from circuits.prompts import PromptPair
from circuits.roles import ROLES
from tasks import TASKS


@given(st.lists(st.booleans(), min_size=1))
def test_what_came_to_stay_holds_from_there_on_and_not_right_before(holds: list[bool]) -> None:
    steps = [10 * n for n in range(len(holds))]
    found = first_for_good(steps, holds)
    if found is None:
        assert not holds[-1]
    else:
        at = steps.index(found)
        assert all(holds[at:])
        assert at == 0 or not holds[at - 1]


def _series(values: list[float | None], chance: float = 0.2) -> Series:
    points = tuple(None if v is None else Point(v, v, v, chance, v > chance) for v in values)
    return Series("role", "made up", points)


@pytest.mark.parametrize(
    ("values", "above", "half"),
    [
        ([0.1, 0.3, 0.4, 0.8], 10, 30),
        ([0.9, None, 0.3, 1.0], 20, 30),
        ([0.9, 0.9, 0.9, 0.1], None, None),
        ([0.1, 0.5, 0.6, 0.8], 10, 10),
        ([None, None, None, None], None, None),
    ],
)
def test_a_figure_appears_above_chance_and_then_goes_half_of_its_way(
    values: list[float | None], above: int | None, half: int | None
) -> None:
    found = appearance(_series(values), [0, 10, 20, 30])
    assert (found.above, found.half) == (above, half)


def test_any_trainers_directories_are_checkpoints_in_the_order_of_their_steps(tmp_path: Path) -> None:
    for name in ("checkpoint-1000", "step900", "x-7b-step-000020", "30", "notes", "final"):
        shutil.copytree(PLANTED, tmp_path / name)
    (tmp_path / "step-5").mkdir()
    assert find_checkpoints(tmp_path).steps == (20, 30, 900, 1000)


def test_folders_that_are_no_training_are_told(tmp_path: Path) -> None:
    with pytest.raises(CircuitError, match="no folder"):
        find_checkpoints(tmp_path / "nowhere")
    with pytest.raises(CircuitError, match="holds 0 checkpoints"):
        find_checkpoints(tmp_path)
    write_checkpoints(tmp_path, {5: WHOLE})
    with pytest.raises(CircuitError, match="holds 1 checkpoints"):
        find_checkpoints(tmp_path)
    shutil.copytree(PLANTED, tmp_path / "checkpoint-5")
    with pytest.raises(CircuitError, match="both step 5"):
        find_checkpoints(tmp_path)
    (tmp_path / "checkpoint-5" / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="tokenizer"):
        find_checkpoints(tmp_path)


def _load(checkpoint: Checkpoint) -> BridgeModel:
    return load_model(str(checkpoint.directory))


@pytest.fixture(scope="module")
def prompts() -> tuple[PromptPair, ...]:
    from cli.prompt_source import sample_task

    model = load_model("planted-ioi")
    return sample_task(model, TASKS.load("ioi"), form=None, corruption=None, n=16, seed=0).pairs


def _asked(prompts: tuple[PromptPair, ...]) -> Question:
    method = METHODS.load("activation-patching")
    plan = Plan(((method, method.configure({})),), ablations=("resample",))
    roles = tuple(map(ROLES.load, ("name-mover", "duplicate-token")))
    return Question(prompts, plan, roles, "ioi")


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, prompts: tuple[PromptPair, ...]) -> Timeline:
    training = find_checkpoints(write_checkpoints(tmp_path_factory.mktemp("story")))
    return timeline(training, _load, _asked(prompts))


def _appearances(found: Timeline) -> dict[str, Appearance]:
    return {one.name: appearance(one, found.steps) for one in all_series(found)}


def test_the_behaviour_comes_to_stay_where_the_movers_do(story: Timeline) -> None:
    came = _appearances(story)
    assert story.steps == tuple(STORY)
    for name in ("preferred", "correct", "clean", "name-mover", "faithfulness", "overlap"):
        assert came[name].above == 30, name
    assert came["duplicate-token"].above == 0
    assert came["name-mover"].final is not None
    assert came["name-mover"].final.of in MOVERS


def test_where_nothing_is_told_apart_there_is_no_circuit(story: Timeline) -> None:
    explained = {moment.step: moment.circuit is not None for moment in story.moments}
    assert explained == {step: factors != AGAINST for step, factors in STORY.items()}
    for moment in story.moments:
        assert (moment.final is None) == (moment.shared is None) == (moment.circuit is None)


def test_the_last_circuit_is_that_of_a_discovery_and_shares_all_with_itself(
    story: Timeline, prompts: tuple[PromptPair, ...]
) -> None:
    asked = _asked(prompts)
    alone = discover(load_model(str(PLANTED)), prompts, asked.plan).findings[0]
    last = story.moments[-1]
    assert story.final.circuit == alone.circuit
    assert last.final is not None
    assert last.shared is not None
    assert last.final.faithfulness == alone.verdicts[0].faithfulness
    assert last.shared.jaccard == 1
    assert last.shared.chance_jaccard is not None
    assert last.shared.chance_jaccard < 0.5


def test_a_mover_that_writes_nothing_is_in_no_circuit_of_its_step(story: Timeline) -> None:
    at = {moment.step: moment for moment in story.moments}
    assert at[30].circuit is not None
    assert MOVERS[0] not in at[30].circuit.circuit
    assert at[10].circuit is not None
    assert at[10].circuit.circuit == story.final.circuit


def test_models_that_cannot_be_of_one_training_are_told(
    tmp_path: Path, prompts: tuple[PromptPair, ...]
) -> None:
    asked = _asked(prompts)
    write_checkpoints(tmp_path, {1: WHOLE, 2: AGAINST})
    with pytest.raises(CircuitError, match="does not tell clean from corrupt"):
        timeline(find_checkpoints(tmp_path), _load, asked)
    other = Training("mixed", (Checkpoint(0, PLANTED.parent / "plain-4l"), Checkpoint(1, PLANTED)))
    with pytest.raises(CircuitError, match="differ in shape"):
        timeline(other, _load, asked)
