"""Remakes what the pages show of the program: tables, examples, outputs, pictures. `make docs` runs it.

    python docs/remake.py                 # everything: a quarter of an hour on two idle cores
    python docs/remake.py eap tour        # the pages and pictures whose names hold one of these words
    python docs/remake.py --quick         # only what needs no run: options, forms, examples, lists

The one idea: pages are written by hand but for the blocks between `<!-- made: KIND ARGUMENT -->` and `<!-- end -->`;
a block's kind is a function in MAKERS, from the page and the argument to Markdown. Pictures are a table, PICTURES.
What both show is made by the commands that readers are told to run, so nothing on a page can be older than the
program without being seen: run this and look at what git says.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from circuits.comparison.agreement import HeadAgreement, WithInterval

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent

BLOCK = re.compile(r"<!-- made: (\S+)([^\n]*) -->\n.*?<!-- end -->", re.DOTALL)
COMMANDS = re.compile(r"```bash\n(.*?)```", re.DOTALL)
SHOWN = 6
"""Rows of a table that stands for a long one."""
ENOUGH = 1000
"""Pairs that a task is asked for, to see how far it goes under a tokenizer."""

ASKED = "circuit discover ioi --pairs 60"
NODES = ("activation-patching", "attribution-patching", "relevance-patching", "logit-attribution")
NODES += ("path-patching", "staged-path-patching", "sae")
EDGES = ("edge-patching", "acdc", "eap-ig-activations", "eap-ig-inputs", "relp", "receiver-exact")
EDGES += ("clean-corrupted", "eap", "information-flow", "random")

UNSIGNED = ("acdc", "sae", "information-flow")
"""Methods whose scores say how much, and not for or against the answer."""


def _asked(methods: Iterable[str], rest: str) -> str:
    return " ".join([ASKED, *(f"--method {method}" for method in methods), rest])


BY_NODES = _asked(NODES, "--top 11 --output runs/by-nodes")
BY_EDGES = _asked(EDGES, "--top 40 --output runs/by-edges")
DENOISING = _asked(
    NODES[:1], "--set activation-patching.direction=denoising --top 11 --output runs/denoising"
)
EDGES_RUN = "circuit discover ioi --method eap-ig-inputs --pairs 120 --verify 20 --output runs/edges"
COLORS_RUN = "circuit discover colored-objects --method eap-ig-inputs --pairs 120 --output runs/edges-colors"

PICTURES: Mapping[str, tuple[tuple[str, ...], str]] = {
    "over-training.png": (
        (
            "circuit train context-4l --output my-model --checkpoints my-steps --every 50",
            "circuit timeline my-steps --task in-context-classification --form arbitrary "
            "--output examples-over-training",
        ),
        "examples-over-training/timeline.png",
    ),
    "ioi-plain-4l.png": (
        ("circuit discover ioi --output runs/ioi-plain-4l",),
        "runs/ioi-plain-4l/circuit.png",
    ),
    "report.png": (
        ("circuit discover ioi --output runs/ioi-plain-4l",),
        "runs/ioi-plain-4l/report.html",
    ),
    "heatmap-plain-4l.png": (
        ("circuit discover ioi --output runs/ioi-plain-4l",),
        "runs/ioi-plain-4l/heatmap-activation-patching.png",
    ),
    "edges-plain-4l.png": ((EDGES_RUN,), "runs/edges/circuit.png"),
    "curve-plain-4l.png": (
        (EDGES_RUN, "circuit evaluate runs/edges --output runs/edges-evaluation"),
        "runs/edges-evaluation/curve.png",
    ),
    "overlay.png": (
        (EDGES_RUN, COLORS_RUN, "circuit compare runs/edges runs/edges-colors --output runs/edges-overlap"),
        "runs/edges-overlap/overlay.png",
    ),
    "reuse.png": (("circuit run configs/reuse.yaml --output runs/reuse",), "runs/reuse/overview.png"),
}
"""Picture of docs/ -> the commands that make it, and the file that they make it as."""

WINDOW = "1100,1330"
"""Pixels of a page that a picture shows."""


def pages() -> list[Path]:
    return sorted(DOCS.rglob("*.md"))


def commands(text: str) -> list[str]:
    """Every `circuit` command of the bash blocks, without what is said about it."""
    lines = (line.split("  #")[0].strip() for block in COMMANDS.findall(text) for line in block.splitlines())
    return [line for line in lines if line.startswith("circuit ")]


@cache
def said(command: str) -> str:
    """What the command prints, run once in the folder that all runs share. Raises RuntimeError where it fails."""
    from typer.testing import CliRunner

    from cli.main import app

    print(f"  $ {command}", file=sys.stderr)
    with _in(_workplace()):
        result = CliRunner().invoke(app, shlex.split(command)[1:])
    if result.exit_code:
        raise RuntimeError(f"{command}\nends with {result.exit_code}:\n{result.output}")
    return "\n".join(line.rstrip() for line in result.stdout.splitlines())


@cache
def _workplace() -> Path:
    place = Path(tempfile.mkdtemp(prefix="circuit-docs-"))
    (place / "configs").symlink_to(ROOT / "configs")
    return place


@contextmanager
def _in(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *([str(x).replace("|", "\\|") for x in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


# What needs no run.


def options(page: str, method: str) -> str:
    """The options of a method, as `circuit methods` has them."""
    from circuits.methods import METHODS

    fields = METHODS.load(method).options.model_fields
    rows = [
        (f"`{name.replace('_', '-')}`", f"`{field.default}`", field.description)
        for name, field in fields.items()
    ]
    return table(("option", "default", "what"), rows) if rows else "None."


def methods(page: str, granularity: str) -> str:
    from circuits.methods import METHODS

    found = [METHODS.load(name) for name in METHODS.names()]
    rows = [
        (f"[`{m.name}`](methods/{m.name}.md)", m.summary, m.paper)
        for m in found
        if m.granularity == granularity
    ]
    return table(("method", "what it gives", "source"), rows)


def analyses(page: str, argument: str) -> str:
    """The pages of what scores no components for a circuit, each with the command that it is about."""
    rows = [
        (f"[{text.splitlines()[0].removeprefix('# ')}](analyses/{path.name})", f"`{_asked_for(text)}`")
        for path in sorted(DOCS.glob("analyses/*.md"))
        for text in [path.read_text(encoding="utf-8")]
    ]
    return table(("analysis", "for example"), rows)


def _asked_for(text: str) -> str:
    """The first command of a page."""
    return commands(text)[0]


def tasks(page: str, argument: str) -> str:
    from tasks import TASKS

    found = [TASKS.load(name) for name in TASKS.names()]
    rows = [(f"[`{t.name}`](tasks/{t.name}.md)", t.summary.partition(": ")[2], t.paper) for t in found]
    return table(("task", "what is asked", "source"), rows)


def task(page: str, name: str) -> str:
    """Forms, corruptions, metric and known circuits of a task."""
    from tasks import TASKS

    found = TASKS.load(name)
    rows = [
        (kind, f"`{choice}`" + (" (default)" if n == 0 else ""), meaning)
        for kind, choices in (("form", found.forms), ("corruption", found.corruptions))
        for n, (choice, meaning) in enumerate(choices.items())
    ]
    known = [
        f"- {model}: {_heads(len(reference.heads))}, {reference.source}"
        + (f" ({reference.note})" if reference.note else "")
        + ". "
        + "; ".join(f"{role} {', '.join(heads)}" for role, heads in reference.roles.items())
        + "."
        for model, reference in found.references.items()
    ]
    parts = [table(("", "name", "what"), rows), f"Metric: `{found.metric}`."]
    heading = "Circuits that papers report:" if known else "No paper reports heads that a run is held to."
    return "\n\n".join([*parts, "\n".join([heading, "", *known]).strip()])


def _heads(n: int) -> str:
    return "1 head" if n == 1 else f"{n} heads"


def known(page: str, name: str) -> str:
    """Which built-in models were trained on the task, and how well they do."""
    from circuits.models.builtin_models import builtin_names, card

    found = []
    for model in builtin_names():
        of = card(model).accuracy.items()
        shares = [one["accuracy"] for form, one in of if form.partition("/")[0] == name]
        if shares:
            low, high = f"{min(shares):.1%}", f"{max(shares):.1%}"
            found.append(f"`{model}` {low}" + f" to {high}" * (low != high))
    if not found:
        return (
            "No built-in model was trained on it: words of the sentences that they lack become their unknown token,\n"
            "and the run warns."
        )
    return f"Built-in models on held-out prompts, by form: {', '.join(found)}."


_TOKEN = re.compile(r" ?[A-Za-z]+| ?\d{1,2}|\s|[^\w\s]+")


def examples(page: str, name: str) -> str:
    """A pair of each corruption under a tokenizer of whole words and two digits, so no model is needed."""
    from tasks import TASKS
    from tasks.task import Lexicon

    def n_tokens(text: str, after: str) -> int:
        return len(_TOKEN.findall(after + text)) - len(_TOKEN.findall(after))

    def breaks(text: str, after: str) -> bool:
        return not any(m.start() < len(after) < m.end() for m in _TOKEN.finditer(after + text))

    found, lines = TASKS.load(name), []
    for n, corruption in enumerate(found.corruptions):
        lexicon = Lexicon(n_tokens, "words", breaks=breaks)
        (pair,) = found.sample(1, seed=0, lexicon=lexicon, corruption=corruption)
        if n == 0:
            places = [f'{position} "{pair.clean[a:b]}"' for position, (a, b) in pair.positions.items()]
            answer = f"-> {_words(pair.answers)}, against {_words(pair.distractors)}"
            lines += ["clean", *_indented(pair.clean), f"    {answer}", f"    {', '.join(places)}"]
            lines += [f"corrupt ({corruption})", *_indented(pair.corrupt, pair.clean)]
            lines += ["negative", *_indented(pair.negative, pair.clean)]
        else:
            lines += [f"another clean, and its corrupt ({corruption})", *_indented(pair.clean)]
            lines += _indented(pair.corrupt, pair.clean)
    return "\n".join(["```text", *lines, "```"])


def _words(words: tuple[str, ...]) -> str:
    more = ["..."] if len(words) > SHOWN else []
    return " ".join([*(json.dumps(word) for word in words[:SHOWN]), *more])


def _indented(text: str, beside: str = "") -> list[str]:
    """The lines of a prompt; of one with several, those that are the same `beside` it are left out."""
    lines, others = text.split("\n"), beside.split("\n")
    if len(lines) < 3 or len(lines) != len(others):
        return [f"    {line}" for line in lines]
    shown = [line if line != other else "..." for line, other in zip(lines, others, strict=True)]
    return [f"    {line}" for n, line in enumerate(shown) if line != "..." or shown[n - 1 : n] != ["..."]]


# What needs runs.


def output(page: str, wanted: str) -> str:
    """What the last command before the block prints: the paragraphs whose first line matches `wanted`."""
    asked = commands("```bash\n" + page.rpartition("```bash\n")[2])
    shown = [said(command) for command in asked][-1]
    paragraphs = [p for p in re.split(r"\n\s*\n", shown) if re.search(wanted, p.strip("\n").split("\n")[0])]
    if not paragraphs:
        raise RuntimeError(f"{asked[-1]} prints nothing that begins with {wanted!r}:\n{shown}")
    return "\n".join(["```text", "\n\n".join(p.strip("\n") for p in paragraphs), "```"])


def cost(page: str, method: str) -> str:
    """What `circuit plan` counts for the method's scores."""
    asked = f"circuit plan ioi --method {method} --pairs 60 --json"
    plan = json.loads(said(asked))
    (stage,) = (s for s in plan["stages"] if s["stage"] == f"{method}: scores")
    if stage["forward_passes"] is None:
        return _counted(method)
    if not stage["forward_passes"]:
        return _tried(method) if stage["cpu_seconds"] else "`circuit plan` says so too."
    n = plan["prompts"]["discovery"]
    return (
        f"`{asked}` counts for the scores, on {n} prompts of `plain-4l`:\n{stage['forward_passes']:,} "
        f"forward passes of a prompt, computed at the price of {stage['full_passes']:,.0f} whole ones "
        f"({stage['flops'] / 1e9:.2g} GFLOP)."
    )


def _tried(method: str) -> str:
    """Where a plan says seconds alone, which are the machine's."""
    return (
        f"`circuit plan ioi --method {method} --pairs 60` tries the scores on a few prompts and says seconds\n"
        "instead of passes, for your machine as it is."
    )


def _counted(method: str) -> str:
    """What the run of the page's example took, where no plan can say it."""
    said(f"circuit discover ioi --method {method} --pairs 60 --output runs/{method}")
    run = _workplace() / "runs" / method
    evaluation, record = (
        json.loads((run / name).read_text(encoding="utf-8")) for name in ("evaluation.json", "run.json")
    )
    details = evaluation["methods"][method]["details"]
    return (
        "`circuit plan` cannot count it beforehand, since what is asked next rests on what was found before.\n"
        f"The run below takes {details['forwards']} forward passes with {details['rows']} rows in all, each on "
        f"{len(record['prompts']['discovery'])} prompts."
    )


def beside(page: str, method: str) -> str:
    """The largest effects by exact patching, and what the method says of the same."""
    exact, run = ("edge-patching", BY_EDGES) if method in EDGES else ("activation-patching", BY_NODES)
    reference = _scores(run, exact)
    other = _scores(DENOISING if method == exact else run, method)
    label = f"`{method}`, denoising" if method == exact else f"`{method}`"
    largest = sorted(reference, key=lambda name: -abs(reference[name]))
    both = [name for name in largest if name in other]
    rows = [
        (f"`{name}`", f"{reference[name]:+.2f}", f"{other[name]:+.2f}" if name in other else "not scored")
        for name in largest[:SHOWN]
    ]
    wrong = sum(reference[name] * other[name] < 0 for name in both[:20])
    signs = f"; of the 20 largest by `{exact}` {wrong} have the other sign" * (method not in UNSIGNED)
    return "\n\n".join(
        [
            table(("", f"`{exact}`", label), rows),
            f"IOI in `plain-4l`, 30 prompts. Of all {len(both):,} that both score, Spearman's correlation of sizes\n"
            f"is {_spearman(both, reference, other):.2f}{signs}.",
        ]
    )


def _scores(command: str, method: str) -> dict[str, float]:
    said(command)
    run = _workplace() / command.split()[-1]
    by_edges = method in EDGES
    with (run / ("edges.csv" if by_edges else "nodes.csv")).open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["method"] == method]
    if by_edges:
        return {_edge(row): float(row["score"]) for row in rows if row["score"]}
    return {row["component"]: float(row["score"]) for row in rows if row["position"] == "all"}


def _edge(row: Mapping[str, str]) -> str:
    entry = f"<{row['input']}>" if row["input"] else ""
    return f"{row['source']}->{row['target']}{entry}"


def _spearman(names: list[str], one: Mapping[str, float], other: Mapping[str, float]) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr([abs(one[n]) for n in names], [abs(other[n]) for n in names]).statistic)


def fits(page: str, name: str) -> str:
    """How many pairs each form gives under the built-in models' tokenizer and GPT-2's, where that is at hand."""
    from tokenizers_made import read_by

    from circuits.errors import CircuitError
    from cli.prompt_source import lexicon_of
    from tasks import TASKS

    found = TASKS.load(name)
    readers = {"the built-in models' words": read_by("words"), "GPT-2's tokenizer": read_by("gpt2")}
    if None in readers.values():
        print("  GPT-2's tokenizer is not at hand: what the page says of it stays", file=sys.stderr)
        return ""

    def count(reader: object, form: str) -> str:
        try:
            drawn = found.sample(ENOUGH, seed=0, lexicon=lexicon_of(reader), form=form, fewer=True)
        except CircuitError:
            return "none"
        return f"{len(drawn):,}" if len(drawn) < ENOUGH else f"{ENOUGH:,} or more"

    rows = [(f"`{form}`", *(count(reader, form) for reader in readers.values())) for form in found.forms]
    head = ("form", *(f"pairs under {whose}" for whose in readers))
    return table(head, rows)


# How far scores of heads agree with exact patching.

COMPARED = ("plain-4l", "plain-6l")
ON = ("ioi", "colored-objects", "factual-recall", "arithmetic")
OF_HEADS = ("sae", "ships", "lofit")


def agreement(page: str, model: str) -> str:
    """Every score of heads against exact patching, on each task: rank correlation and area, with intervals."""
    cells = [_agreements(task, model) for task in ON]
    rows = [(name, *(_cell(cell.get(name)) for cell in cells)) for name in _scores_of(cells)]
    return table(("score", *(f"`{task}`" for task in ON)), rows)


def agreements(page: str, argument: str) -> str:
    """The same over all tasks and models, in short."""
    cells = [_agreements(task, model) for model in COMPARED for task in ON]
    rows = []
    for name in _scores_of(cells):
        found = [cell[name] for cell in cells if name in cell]
        ranks, areas = [f.rank for f in found if f.rank], [f.area for f in found if f.area]
        clear = sum(rank.low > 0 for rank in ranks)
        rows.append((name, _median(ranks), f"{clear} of {len(ranks)}", _median(areas)))
    rows.sort(key=lambda row: -float(row[1].split()[0]))
    return table(("score", "rank correlation", "clearly above 0", "AUROC"), rows)


def _scores_of(cells: list[Mapping[str, HeadAgreement]]) -> list[str]:
    return list(dict.fromkeys(name for cell in cells for name in cell))


def _median(found: list[WithInterval]) -> str:
    """0.42 (0.10 to 0.70)."""
    if not found:
        return "0.00 (none)"
    values = [one.value for one in found]
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _cell(found: HeadAgreement | None) -> str:
    if found is None or found.rank is None:
        return "no figure"
    area = (
        ""
        if found.area is None
        else f"; {found.area.value:.2f} [{found.area.low:.2f}, {found.area.high:.2f}]"
    )
    return f"{found.rank.value:.2f} [{found.rank.low:.2f}, {found.rank.high:.2f}]{area}"


@cache
def _agreements(task: str, model: str) -> Mapping[str, HeadAgreement]:
    """Score -> its agreement with activation patching, by one run of all methods and one of all roles."""
    from circuits.comparison.agreement import head_agreement

    run, roles = f"runs/agree-{task}-{model}", f"runs/roles-{task}-{model}"
    methods = " ".join(f"--method {method}" for method in ("activation-patching", *OF_HEADS))
    said(f"circuit discover {task} --model {model} {methods} --pairs 120 --output {run}")
    said(f"circuit heads {model} --task {task} --output {roles}")
    by_method = _by(run + "/nodes.csv", "method", "component")
    exact = {head: score for head, score in by_method.pop("activation-patching").items() if head[0] == "a"}
    record = json.loads((_workplace() / run / "circuit.json").read_text(encoding="utf-8"))
    kept = {node["name"] for node in record["circuits"][0]["nodes"]}
    others = {**by_method, **_by(roles + "/heads.csv", "role", "head"), "composition": _composition(model)}
    return {name: head_agreement(exact, scores, kept) for name, scores in others.items()}


def _by(file: str, kind: str, name: str) -> dict[str, dict[str, float]]:
    """Scores by kind and name, over all positions."""
    found: dict[str, dict[str, float]] = {}
    with (_workplace() / file).open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            if row.get("position", "all") == "all" and row["score"]:
                found.setdefault(row[kind], {})[row[name]] = float(row["score"])
    return found


@cache
def _composition(model: str) -> Mapping[str, float]:
    """A head's best component with any input of any later head; heads of the last layer have none."""
    import numpy as np

    from circuits.models.bridge import load_model
    from circuits.models.source import find_model
    from circuits.weight_reading.composition import composition
    from circuits.weight_reading.heads import require_weights

    loaded = load_model(find_model(model))
    found = composition(require_weights(loaded, "Composition"), loaded.graph, 0)
    best = [row[~np.isnan(row)] for row in found.best.reshape(len(found.heads), -1)]
    return {head: float(row.max()) for head, row in zip(found.heads, best, strict=True) if row.size}


Maker = Callable[[str, str], str]

QUICK: Mapping[str, Maker] = {
    "options": options,
    "methods": methods,
    "tasks": tasks,
    "analyses": analyses,
    "task": task,
    "examples": examples,
    "known": known,
}
SLOW: Mapping[str, Maker] = {
    "output": output,
    "cost": cost,
    "beside": beside,
    "fits": fits,
    "agreement": agreement,
    "agreements": agreements,
}
MAKERS = {**QUICK, **SLOW}


def remade(text: str, makers: Mapping[str, Maker] = MAKERS) -> str:
    """The page with its blocks made anew; those of other kinds, and those that give nothing, stay as they are."""

    def block(found: re.Match[str]) -> str:
        kind, argument = found[1], found[2].strip()
        made = makers[kind](text[: found.start()], argument) if kind in makers else ""
        return (
            f"<!-- made: {kind} {argument}".rstrip() + f" -->\n\n{made}\n\n<!-- end -->" if made else found[0]
        )

    return BLOCK.sub(block, text)


def remake(names: list[str], quick: bool = False) -> None:
    def asked(path: Path) -> bool:
        return not names or any(name in path.relative_to(DOCS).as_posix() for name in names)

    for page in filter(asked, pages()):
        print(page.relative_to(ROOT), file=sys.stderr)
        text = page.read_text(encoding="utf-8")
        page.write_text(remade(text, QUICK if quick else MAKERS), encoding="utf-8")
    for picture, (making, source) in PICTURES.items():
        if not quick and asked(DOCS / picture):
            print(f"docs/{picture}", file=sys.stderr)
            for command in making:
                said(command)
            _copy(_workplace() / source, DOCS / picture)


def _copy(source: Path, picture: Path) -> None:
    """A picture as it is; of a page what a window shows, or what the picture was where there is no Chromium."""
    if source.suffix != ".html":
        shutil.copyfile(source, picture)
    elif browser := shutil.which("chromium") or shutil.which("chromium-browser"):
        flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")
        asked = (f"--window-size={WINDOW}", "--virtual-time-budget=10000", f"--screenshot={picture}")
        subprocess.run([browser, *flags, *asked, source.as_uri()], check=True, capture_output=True)


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "tasks")]
    os.environ |= {"HF_HUB_OFFLINE": "1", "COLUMNS": "80", "NO_COLOR": "1"}
    words = sys.argv[1:]
    try:
        remake([word for word in words if word != "--quick"], "--quick" in words)
    finally:
        if _workplace.cache_info().currsize:
            shutil.rmtree(_workplace())
