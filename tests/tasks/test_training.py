"""Training: the word list, the streams, the loop, the export, and the models that ship."""

from __future__ import annotations

import dataclasses
import json
import random

import pytest
import torch
from typer.testing import CliRunner

from circuits.errors import ModelError, UnknownNameError
from circuits.models.bridge import load_model
from tasks import TASKS
from tasks.held_out import key_held_out
from tasks.training.accuracy import accuracy, held_out_pairs
from tasks.training.build import build, builtin_folder
from tasks.training.effects import captured, head_effects, replaced
from tasks.training.export import load_network, save_model
from tasks.training.loop import NOTHING, Trainer, collate
from tasks.training.network import Network, Shape, number_features, start
from tasks.training.optimiser import orthogonalised
from tasks.training.polish import Polisher, still_matter
from tasks.training.recipe import NAMES, POLISHES, RECIPES
from tasks.training.rows import BEGIN, Words
from tasks.training.streams import STREAMS
from tasks.training.vocabulary import (
    END_OF_TEXT,
    UNKNOWN,
    context_vocabulary,
    save_tokenizer,
    split,
    vocabulary,
)

SHIPPED = [name for name in NAMES if (builtin_folder(name) / "card.json").is_file()]
LEARNED = [
    ("ioi", "plain"),
    ("ioi", "distractors"),
    ("colored-objects", "zero-shot"),
    ("colored-objects", "one-shot"),
    ("factual-recall", "mixed"),
    ("arithmetic", "addition"),
    ("arithmetic", "subtraction"),
]
LEARNED_IN_CONTEXT = [
    ("in-context-classification", "arbitrary"),
    ("in-context-classification", "flipped"),
    ("multiple-choice", "colours"),
    ("list-recall", "short"),
    ("list-recall", "medium"),
]
OF_THE_CONTEXT = "context-4l"
TAUGHT = tuple(sorted({task for task, _ in LEARNED}))


def _learned(name):
    return LEARNED_IN_CONTEXT if name == OF_THE_CONTEXT else LEARNED


def _least(name):
    return 0.95 if name == OF_THE_CONTEXT else 0.99


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def vocabulary_words():
    return Words()


@pytest.fixture(scope="module")
def context_words():
    return Words(known=context_vocabulary())


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder)
    return transformers.AutoTokenizer.from_pretrained(folder)


def _tiny():
    first = dataclasses.replace(
        RECIPES["plain-4l"].stages[0], max_steps=3, rows={"pairs": 4, "few-colors": 2}
    )
    return dataclasses.replace(RECIPES["plain-4l"], shape=Shape(n_layers=1), stages=(first,))


def test_the_vocabulary_has_every_word_once_and_the_special_tokens_first():
    words = vocabulary()
    assert words[:3] == (END_OF_TEXT, UNKNOWN, "0")
    assert len(words) == len(set(words))
    assert {"Orange", "orange", "198", "@", "Paris"} <= set(words)


def test_the_saved_tokenizer_agrees_with_the_training_split(tokenizer, vocabulary_words):
    text = "After lunch, Mary gave it.\nQ: 37+45=82 Orange orange?"
    assert tuple(tokenizer(text)["input_ids"]) == vocabulary_words.encode(text)
    assert tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"]) == split(text)
    assert tokenizer("zyzzyva")["input_ids"] == [tokenizer.unk_token_id]
    assert tokenizer.bos_token_id == tokenizer.eos_token_id == tokenizer.pad_token_id == BEGIN


def test_the_longer_vocabulary_begins_with_the_shorter():
    assert context_vocabulary()[: len(vocabulary())] == vocabulary()
    assert len(set(context_vocabulary())) == len(context_vocabulary())


@pytest.mark.parametrize("name", [*TAUGHT, *sorted({task for task, _ in LEARNED_IN_CONTEXT})])
def test_every_word_of_a_task_is_in_the_vocabulary(name, vocabulary_words, context_words):
    task, words = TASKS.load(name), vocabulary_words if name in TAUGHT else context_words
    for form in set(task.forms) - {"facts"} if name == "multiple-choice" else task.forms:
        for corruption in task.corruptions:
            for pair in task.sample(200, seed=1, lexicon=words.lexicon, form=form, corruption=corruption):
                for text in (pair.clean, pair.corrupt, pair.negative, *pair.answers, *pair.distractors):
                    words.encode(text)


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_is_seeded_and_fits_the_context(name, context_words):
    def rows(seed):
        rng = random.Random(seed)
        return [STREAMS[name](context_words, rng) for _ in range(50)]

    assert rows(1) == rows(1)
    assert rows(1) != rows(2)
    for row in rows(3):
        assert row.tokens[0] == BEGIN
        assert row.targets
        assert len(row.tokens) <= RECIPES["plain-4l"].shape.n_ctx
        assert all(place < len(row.tokens) for place in row.targets)


def test_no_stream_shows_a_held_out_prompt(context_words):
    held = set()
    for task, form in [*LEARNED, *LEARNED_IN_CONTEXT]:
        pairs = held_out_pairs(context_words, task, form, 300, seed=4)
        assert all(key_held_out(p.key) for p in pairs)
        held |= {(BEGIN, *context_words.encode(p.clean)) for p in pairs}
    rng = random.Random(5)
    for stream in STREAMS.values():
        assert not held & {stream(context_words, rng).tokens for _ in range(300)}


def _said(words, row):
    return [words.known[token] for token in row.tokens]


def test_a_label_is_asked_for_where_the_words_before_it_determine_it(context_words):
    """Read anew from the words: every target is the label that its class, or its own word, had before."""
    from tasks.in_context_classification import CLASSES

    classes = {word: name for name, members in CLASSES.items() for word in members}
    rng = random.Random(8)
    for stream, known_by in (("examples", classes.get), ("examples-again", lambda word: word)):
        for _ in range(100):
            row = STREAMS[stream](context_words, rng)
            said = _said(context_words, row)
            called = {}
            for place in range(3, len(said) - 2, 7):
                kind, (name, colon, answer) = known_by(said[place]), said[place + 2 : place + 5]
                assert (name, colon) == ("Kind", ":")
                if place + 3 in row.targets:
                    assert called[kind] == answer == context_words.known[row.targets[place + 3]]
                called[kind] = answer
            assert set(row.targets) <= {i for i, word in enumerate(said) if word == ":"}


def test_the_letter_that_is_asked_for_stands_before_the_colour_of_the_question(context_words):
    rng = random.Random(9)
    for _ in range(200):
        row = STREAMS["choices"](context_words, rng)
        said = _said(context_words, row)
        ((place, token),) = row.targets.items()
        assert place == len(said) - 1
        option = said[said.index(context_words.known[token]) + 2]
        assert option in said[: said.index("?")]


def test_arithmetic_rows_are_never_held_out_problems(vocabulary_words):
    rng, names = random.Random(6), vocabulary()
    for _ in range(500):
        row = STREAMS["arithmetic"](vocabulary_words, rng)
        assert not key_held_out("".join(names[t] for t in row.tokens[1:4]))


def test_batches_ask_only_for_targets(vocabulary_words):
    rng = random.Random(7)
    rows = [STREAMS["ioi"](vocabulary_words, rng) for _ in range(4)]
    batch = collate(rows)
    assert int((batch.targets != NOTHING).sum()) == 4
    for i, row in enumerate(rows):
        assert {int(p): int(batch.targets[i, p]) for p in row.targets} == row.targets


def test_three_steps_of_training_are_the_same_twice_and_another_seed_differs():
    def weights(seed):
        network = Trainer(_tiny(), seed).run()
        return torch.cat([w.detach().flatten() for w in network.parameters()])

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))


def test_the_network_is_hugging_faces_gpt2(tmp_path):
    transformers = pytest.importorskip("transformers")
    network = Network(Shape(n_layers=2), len(vocabulary()))
    start(network, range(2, 201), seed=1)
    save_model(network, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    tokens = torch.randint(0, len(vocabulary()), (3, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        mine = network.logits(network(tokens))
        assert torch.allclose(mine, theirs(tokens).logits, atol=1e-4)
        again = load_network(tmp_path)
        assert torch.equal(mine, again.logits(again(tokens)))


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(ModelError, match="circuit train"):
        load_network(tmp_path)


def test_head_zero_starts_as_a_previous_token_head():
    network = Network(Shape(n_layers=1), len(vocabulary()))
    start(network, range(2, 201), seed=2)
    tokens = torch.randint(200, 1000, (1, 60), generator=torch.Generator().manual_seed(0))
    block = network.blocks[0]
    x = block.ln_1(network.wte(tokens) + network.wpe(torch.arange(60)))
    q, k = (part(x)[0, :, :16] for part in (block.query, block.key))
    attention = (q @ k.T / 4).masked_fill(torch.ones(60, 60).triu(1).bool(), -1e9).softmax(-1)
    assert float(attention.detach().diagonal(-1).mean()) > 0.7


def test_number_features_tell_all_numbers_apart():
    distances = torch.cdist(number_features(199), number_features(199)) + torch.eye(199)
    assert float(distances.min()) > 0.05


def test_muon_brings_singular_values_near_one():
    matrices = torch.randn(2, 12, 30, generator=torch.Generator().manual_seed(0))
    for values in torch.linalg.svdvals(orthogonalised(matrices)):
        assert float(values.min()) > 0.5
        assert float(values.max()) < 1.4


def test_replacing_all_heads_with_their_own_run_changes_nothing():
    network = Network(Shape(n_layers=2), len(vocabulary()))
    start(network, range(2, 201), seed=3)
    tokens = torch.randint(2, 1000, (2, 10), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        hidden, z = captured(network, tokens)
        assert torch.equal(hidden, network(tokens, edit=replaced(z, torch.ones(2, 8, dtype=torch.bool))))


def test_polishing_is_seeded_and_never_replaces_a_listed_head():
    polish = dataclasses.replace(
        POLISHES["strict-4l"],
        rows=dict.fromkeys(POLISHES["strict-4l"].rows, 2),
        others={},
        rounds=(1, 1),
        widest=dict.fromkeys(TAUGHT, 3),
    )

    def polished():
        network = Network(Shape(n_layers=1), len(vocabulary()))
        start(network, range(2, 201), seed=5)
        polisher = Polisher(network, polish, 1, lambda text: None)
        return polisher, polisher.run(n=2)

    (one, lists), (two, again) = polished(), polished()
    assert lists == again
    assert all(
        torch.equal(a, b) for a, b in zip(one.network.parameters(), two.network.parameters(), strict=True)
    )
    off = torch.tensor([[True, False] * 4])
    assert not (one._chosen(off, 50) & ~off).any()


def test_only_heads_clear_of_all_others_stay_on_a_list():
    effects = torch.tensor([[[0.5, 0.02, 0.3, 0.01]]])
    assert still_matter(effects, frozenset({"a0.h0", "a0.h1", "a0.h2"}), 0.04, 4.0) == {"a0.h0", "a0.h2"}


def test_an_unknown_recipe_is_named(tmp_path):
    with pytest.raises(UnknownNameError, match="plain-4l"):
        build("plain-4", tmp_path)


def test_the_command_refuses_a_folder_that_is_not_its_own(tmp_path):
    from cli.main import app

    (tmp_path / "mine.txt").write_text("keep me")
    for extra in ([], ["--force"]):
        result = CliRunner().invoke(app, ["train", "plain-4l", "--output", str(tmp_path), *extra])
        assert result.exit_code == 2
        assert str(tmp_path) in result.stderr.replace("\n", "")
    assert [f.name for f in tmp_path.iterdir()] == ["mine.txt"]


def test_the_command_writes_a_model_that_can_be_loaded(tmp_path):
    from cli.main import app

    result = CliRunner().invoke(app, ["train", "planted-ioi", "--output", str(tmp_path / "model")])
    assert result.exit_code == 0, result.output
    assert load_model(str(tmp_path / "model")).graph.n_layers == 3


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_model_has_all_its_files_and_an_honest_card(name):
    folder = builtin_folder(name)
    card = json.loads((folder / "card.json").read_text())
    files = {path.name for path in folder.iterdir()}
    assert files == {
        "README.md",
        "card.json",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    words = context_vocabulary() if name == OF_THE_CONTEXT else vocabulary()
    assert (card["name"], card["vocabulary"]) == (name, len(words))
    assert card["parameters"] == sum(w.numel() for w in load_network(folder).parameters())
    assert (folder / "model.safetensors").stat().st_size <= 6_000_000
    assert all(
        card["accuracy"][f"{task}/{form}"]["accuracy"] >= _least(name) for task, form in _learned(name)
    )
    assert card["kind"] == ("strict" if card["circuits"] else "plain")


@pytest.mark.parametrize(
    ("name", "task", "form"), [(name, task, form) for name in SHIPPED for task, form in _learned(name)]
)
def test_a_shipped_model_answers_held_out_prompts(name, task, form, vocabulary_words, context_words):
    words = context_words if name == OF_THE_CONTEXT else vocabulary_words
    pairs = held_out_pairs(words, task, form, 150, seed=9)
    assert accuracy(load_network(builtin_folder(name)), words, pairs) >= _least(name)


@pytest.mark.parametrize("name", [name for name in SHIPPED if name.startswith("strict")])
def test_in_a_strict_model_the_listed_heads_come_before_all_others(name, vocabulary_words):
    folder = builtin_folder(name)
    card, network = json.loads((folder / "card.json").read_text()), load_network(folder)
    assert set(card["circuits"]) == set(TAUGHT)
    for task, circuit in card["circuits"].items():
        for form in circuit["forms"]:
            pairs = held_out_pairs(vocabulary_words, task, form, 64, seed=10)
            effects = head_effects(network, vocabulary_words, pairs)
            named = {f"a{la}.h{he}": float(v) for la, row in enumerate(effects) for he, v in enumerate(row)}
            inside = min(named[head] for head in circuit["heads"])
            outside = max(abs(value) for head, value in named.items() if head not in circuit["heads"])
            assert inside > outside, (task, form, inside, outside)
