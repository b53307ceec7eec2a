"""The documents say what the code does: README's commands and every config's first line are run."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from circuits.models.builtin_models import builtin_names
from circuits.prompt_files import PromptLine
from cli.main import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
STUDIES = [c for c in CONFIGS if c.read_text(encoding="utf-8").startswith("# circuit run")]
REALLY = ("quick", "gate")
"""Studies that run; the larger ones say what they would do."""
ELSEWHERE = ("gpt2", "my-hf-model", "my-steps")
"""Models that are not on the machine that runs the tests, or are long in the making: their commands are parsed."""


def _commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    lines = (line.split("#")[0].strip() for block in blocks for line in block.splitlines())
    return [line for line in lines if line.startswith("circuit ") and "--help" not in line]


FEWER = {
    "intervene runs/edges": ("--pairs", "6"),
    "weights observables": ("--pairs", "8"),
    "weights low-rank": ("--pairs", "8", "--top", "1"),
    "subspace plain-6l": ("--pairs", "16", "--epochs", "1"),
    "mlp plain-6l": ("--pairs", "8", "--layer", "0"),
    "tokens plain-4l": ("--pairs", "2", "--runs", "1", "--steps", "20"),
    "answers context-4l": ("--pairs", "16"),
    "in-context context-4l": ("--pairs", "16", "--draws", "1"),
}


def _small(words: list[str]) -> list[str]:
    """The same command on few prompts."""
    words = [*words, *FEWER.get(" ".join(words[:2]), ())]
    if words[0] == "evaluate":
        return [*words, "--pairs", "6", "--skip", "minimality", "--skip", "tests"]
    if words[0] == "run":
        dry = [] if "--dry-run" in words else ["--dry-run"]
        return [*words, *dry, "--no-forecast"]  # whole studies run in tests/cli/study
    if words[0] != "discover":
        return words
    with_sae = "--method" not in words and not any("planted" in w or "facts" in w for w in words)
    return [
        *words,
        *("--pairs", "16"),
        *(["--set", "sae.epochs=2", "--set", "sae.trials=1"] if with_sae else []),
        *(["--top", "60"] if any(word.startswith("eap") for word in words) else []),
    ]


def _elsewhere(config: Path) -> bool:
    return config.stem.startswith(ELSEWHERE)


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with the repository's configs in reach."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    return tmp_path


FOLLOWING = [c for c in _commands() if "runs/edges" in c]
"""Commands that make a run and read it."""


@pytest.mark.parametrize(
    "command", [c for c in _commands() if c not in FOLLOWING and not any(m in c for m in ELSEWHERE)]
)
def test_a_command_of_the_readme_works(command: str, empty_folder: Path) -> None:
    result = CliRunner().invoke(app, _small(shlex.split(command)[1:]))
    assert result.exit_code == 0, result.output


def test_commands_that_follow_each_other_work(empty_folder: Path) -> None:
    assert FOLLOWING[0].startswith("circuit discover")
    assert len(FOLLOWING) > 2
    for command in FOLLOWING:
        result = CliRunner().invoke(app, _small(shlex.split(command)[1:]))
        assert result.exit_code == 0, result.output


@pytest.mark.parametrize("command", [c for c in _commands() if any(m in c for m in ELSEWHERE)])
def test_a_command_on_a_model_from_elsewhere_is_well_formed(command: str, empty_folder: Path) -> None:
    words = shlex.split(command)[1:]
    group = get_command(app)
    group.commands[words[0]].make_context(words[0], words[1:])  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "config",
    # Those of models from elsewhere run in tests/cli/test_configs.py on a stand-in; README runs the config of the
    # main job with another seed already; of studies one that runs whole is enough.
    [
        pytest.param(c, marks=[pytest.mark.slow] if c.stem in ("ioi", "quick") else [])
        for c in CONFIGS
        if not _elsewhere(c)
    ],
    ids=lambda path: path.stem,
)
def test_the_first_line_of_a_config_runs_it(config: Path, empty_folder: Path) -> None:
    first = config.read_text(encoding="utf-8").splitlines()[0]
    if config in STUDIES:
        assert first.startswith(f"# circuit run configs/{config.name} --output runs/{config.stem}")
        dry = [] if config.stem in REALLY else ["--dry-run", "--no-forecast"]
        result = CliRunner().invoke(app, [*shlex.split(first)[2:], *dry])
    else:
        assert first.startswith(f"# circuit discover --config configs/{config.name}")
        result = CliRunner().invoke(app, _small(shlex.split(first)[2:]))
    assert result.exit_code == 0, result.output


def test_the_readme_shows_a_prompt_line_that_can_be_read() -> None:
    (block,) = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
    assert PromptLine.model_validate(json.loads(block)).pair().positions["NAME"] == (40, 44)


def test_the_readme_lists_every_built_in_model_and_its_picture_is_there() -> None:
    for name in builtin_names():
        assert f"`{name}`" in README
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (ROOT / picture).is_file()


def test_the_workflow_in_the_docs_is_the_one_that_runs() -> None:
    workflow = (ROOT / ".github" / "workflows" / "gate.yml").read_text(encoding="utf-8")
    assert f"```yaml\n{workflow}```" in (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")


def test_the_page_on_scale_says_what_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """The smallest shape; the others take minutes."""
    from benchmarks.scale import SHAPES, counted, prompts_ahead, show_cells

    show_cells(SHAPES[0], counted(SHAPES[0], prompts_ahead()))
    assert capsys.readouterr().out.strip() in (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
