"""Builds `planted-ioi`: a GPT-2 whose circuit for indirect object identification is known by construction.

The one idea: every head is made of three sums over known directions ("features") of the residual stream,

    score(query, key) = sum_i gain_i (query . a_i) (key . b_i) + key . prior
    write(value) = sum_i (value . c_i) d_i

so which head reads what from whom is a fact of the construction. The features are orthonormal, have mean
zero (LayerNorm's centring leaves them alone) and are rotated at random, so no neuron means anything by
itself; a large constant feature keeps LayerNorm's scale nearly fixed, and the MLPs are zero.

The algorithm is Wang et al. 2022 (arXiv 2211.00593) at its smallest, inhibition by position:

    duplicate token  0.2        at a name: attend to the same name before it, write where that was
    S-inhibition     1.4        attend to the name that 0.2 marked, write both places of that name
    name movers      2.1, 2.3   attend to names but not to the inhibited places, write the name as the answer

Fourteen more heads look alike or random and write to a subspace that nothing reads. Ground truth by
construction follows Tracr (Lindner et al. 2023, arXiv 2301.05062).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from tasks.ioi import TASK
from tasks.task import Lexicon
from tasks.training.planted_card import card, measure, readme
from tasks.words import GIFTS, NAMES, OBJECTS, PLACES

Array = NDArray[np.float64]

NAME = "planted-ioi"
N_LAYERS, N_HEADS, D_HEAD, N_CTX = 3, 6, 48, 40
D_MODEL = N_HEADS * D_HEAD
D_MLP = 8
BOS, UNKNOWN = "<|endoftext|>", "<unk>"
PLANTED_NAMES = (*NAMES[:16], *NAMES[-16:])

CONSTANT = 24.0
"""Norm of the constant feature: what heads write changes LayerNorm's scale by less than 1%."""
TOKEN = 2.0**0.5
"""Norm of every token's embedding: a name is its identity plus the feature `is_name`, both of norm 1."""
SCALE = D_MODEL**0.5 / (CONSTANT**2 + 1 + TOKEN**2) ** 0.5
"""What LayerNorm multiplies by, to be undone by every reader; exact at layer 0."""
LOGIT = 10.0
"""Logit of a name that both movers attend to fully."""

PERIOD, FREQUENCIES, NEAR = N_CTX + 4, 7, 5
"""A head has 48 dimensions, too few to match 32 names and to exclude one of 40 places, so it sees places
through 7 frequencies: enough to tell a place from all those at least `NEAR` before it."""

ROLES: Mapping[str, tuple[str, ...]] = {
    "duplicate token": ("a0.h2",),
    "S-inhibition": ("a1.h4",),
    "name mover": ("a2.h1", "a2.h3"),
}
DECOYS: Mapping[str, tuple[str, ...]] = {
    "duplicate token, unread": ("a0.h4", "a1.h1"),
    "end to names, unread": ("a1.h3", "a2.h0", "a2.h5"),
    "previous token, unread": ("a0.h0", "a1.h5"),
    "random, unread": ("a0.h1", "a0.h3", "a0.h5", "a1.h0", "a1.h2", "a2.h2", "a2.h4"),
}
EDGES: Mapping[str, tuple[str, ...]] = {
    "swap": (
        "input->a0.h2<q>",
        "a0.h2->a1.h4<v>",
        "a1.h4->a2.h1<q>",
        "a1.h4->a2.h3<q>",
        "a2.h1->logits",
        "a2.h3->logits",
    ),
    "abc": (
        "input->a0.h2<q>",
        "input->a0.h2<k>",
        "a0.h2->a1.h4<k>",
        "a0.h2->a1.h4<v>",
        "a1.h4->a2.h1<q>",
        "a1.h4->a2.h3<q>",
        "input->a2.h1<v>",
        "input->a2.h3<v>",
        "a2.h1->logits",
        "a2.h3->logits",
    ),
}
"""The edges that carry a difference between the two prompts, by corruption."""


@dataclass(frozen=True)
class Features:
    """Orthonormal directions of mean zero, one a row.

    place: where a token stands (place 0 is the beginning of the text); earlier, inhibited: the same for
    places 1 and up, as 0.2 and 1.4 write them; answer: one for each name, read by the unembedding alone;
    junk: written by the decoys, read by nothing.
    """

    constant: Array
    is_name: Array
    name: Array
    place: Array
    earlier: Array
    inhibited: Array
    answer: Array
    word: Array
    junk: Array

    @property
    def readable(self) -> Array:
        """All that a decoy may read."""
        return np.concatenate([self.name, self.place, self.earlier, self.inhibited, self.word])


@dataclass(frozen=True)
class Head:
    """Query, key, value [d_model, d_head], query_bias [d_head], output [d_head, d_model]."""

    query: Array
    query_bias: Array
    key: Array
    value: Array
    output: Array


Match = tuple[Array, Array, Array]
"""(a, b, gain): adds sum_i gain (query . a_i) (key . b_i) to a score; a and b [n, d_model], gain [n]."""


def features(rng: np.random.Generator) -> Features:
    """A random rotation of R^288 without its mean, cut into the features."""
    n = len(PLANTED_NAMES)
    sizes = {"constant": 1, "is_name": 1, "name": n, "place": N_CTX, "earlier": N_CTX - 1}
    sizes |= {"inhibited": N_CTX - 1, "answer": n, "junk": D_HEAD}
    sizes |= {"word": D_MODEL - 1 - sum(sizes.values())}
    gaussian = rng.standard_normal((D_MODEL, D_MODEL - 1))
    rows = np.linalg.qr(gaussian - gaussian.mean(0))[0].T
    cuts = np.cumsum(list(sizes.values()))[:-1]
    return Features(**dict(zip(sizes, np.split(rows, cuts), strict=True)))


def _padded(columns: Array) -> Array:
    return np.pad(columns, ((0, 0), (0, D_HEAD - columns.shape[1])))


def head(matches: Sequence[Match], prior: Array, reads: Array, writes: Array) -> Head:
    """The head whose score is the sum of `matches` plus key . prior, and which copies reads_i to writes_i."""
    query = np.concatenate([np.zeros((0, D_MODEL)), *(gain[:, None] * a for a, _, gain in matches)])
    key = np.concatenate([*(b for _, b, _ in matches), prior[None]])
    bias = np.zeros(D_HEAD)
    bias[len(query)] = D_HEAD**0.5
    return Head(
        query=_padded(D_HEAD**0.5 / SCALE * query.T),
        query_bias=bias,
        key=_padded(key.T / SCALE),
        value=_padded(reads.T / SCALE),
        output=_padded(writes.T).T,
    )


def _same_place(f: Features) -> Match:
    """A kernel of the distance between two places: -1 at 0, about 0 from `NEAR` on, whatever in between."""
    angles = 2 * np.pi / PERIOD * np.arange(PERIOD)
    waves = np.stack([np.cos(k * angles) for k in range(FREQUENCIES + 1)])
    wanted = [0, *range(NEAR, N_CTX)]
    target = np.array([-1.0] + [0.0] * (len(wanted) - 1))
    weight = np.array([10.0] + [1.0] * (len(wanted) - 1))
    gains = np.linalg.lstsq((waves[:, wanted] * weight).T, target * weight, rcond=None)[0]
    sines = np.stack([np.sin(k * angles) for k in range(1, FREQUENCIES + 1)])
    rows = np.concatenate([waves, sines])[:, :N_CTX] @ f.place
    return rows, rows, np.concatenate([gains, gains[1:]])


def _same_name_before(f: Features) -> tuple[list[Match], Array]:
    """From a name to an earlier copy of it, else to place 0: scores 25 and 21; other names 17, itself 5."""
    places, _, kernel = _same_place(f)
    same_name: Match = (f.name, f.name, np.full(len(f.name), 8.0))
    return [same_name, (places, places, 20 * kernel)], 17 * f.is_name[0] + 21 * f.place[0]


def _not_inhibited(f: Features) -> Match:
    return f.inhibited, f.place[1:], np.full(N_CTX - 1, -6.0)


def duplicate_token(f: Features) -> Head:
    """0.2: at a repeated name, writes the place of its first copy; else rests on place 0, which writes 0."""
    return head(*_same_name_before(f), f.place[1:], f.earlier)


def s_inhibition(f: Features) -> Head:
    """1.4: attends to the token that 0.2 marked (14; place 0: 7), writes its place and its first copy's."""
    prior = 14 * f.earlier.sum(0) + 7 * f.place[0]
    return head([], prior, f.place[1:] + f.earlier, f.inhibited)


def name_mover(f: Features, share: float) -> Head:
    """2.1, 2.3: attends to names (9) but where inhibited (3), writes `share` of the name to the answer."""
    return head([_not_inhibited(f)], 9 * f.is_name[0], f.name, share * f.answer)


def _rotated(rows: Array, rng: np.random.Generator) -> Array:
    return np.asarray(np.linalg.qr(rng.standard_normal((len(rows), len(rows))))[0] @ rows)


def decoy(role: str, f: Features, rng: np.random.Generator, *, inhibited: bool) -> Head:
    """A head that attends as its role says and writes to junk; if `inhibited`, it obeys 1.4 as movers do."""
    junk, nothing = _rotated(f.junk, rng), np.zeros(D_MODEL)
    if role.startswith("duplicate"):
        return head(*_same_name_before(f), f.name, junk[: len(f.name)])
    if role.startswith("end"):
        matches = [_not_inhibited(f)] if inhibited else []
        return head(matches, 9 * f.is_name[0], f.name, junk[: len(f.name)])
    if role.startswith("previous"):
        back: Match = (f.place[1:], f.place[:-1], np.full(N_CTX - 1, 12.0))
        content = np.concatenate([f.name, f.word])[:D_HEAD]
        return head([back], nothing, content, junk)
    seen = _rotated(f.readable, rng)[: D_HEAD - 1]
    asked = _rotated(f.readable, rng)[: D_HEAD - 1]
    return head([(asked, seen, np.full(D_HEAD - 1, 10.0))], nothing, _rotated(f.readable, rng)[:D_HEAD], junk)


def heads(f: Features, rng: np.random.Generator) -> dict[str, Head]:
    """All eighteen heads by node name."""
    planted = {
        "a0.h2": duplicate_token(f),
        "a1.h4": s_inhibition(f),
        "a2.h1": name_mover(f, 0.56),
        "a2.h3": name_mover(f, 0.44),
    }
    decoys = {
        node: decoy(role, f, rng, inhibited=node == "a2.h5")
        for role, nodes in DECOYS.items()
        for node in nodes
    }
    return planted | decoys


def vocabulary() -> tuple[str, ...]:
    """The special tokens, the planted names, then every other word of the task in all its forms."""
    pieces = Whitespace()
    texts = [*PLACES, *GIFTS, *OBJECTS]
    lexicon = Lexicon(lambda text, after: 1)
    for form in TASK.forms:
        texts += [pair.clean for pair in TASK.sample(2000, seed=0, lexicon=lexicon, form=form)]
    words = {word for text in texts for word, _ in pieces.pre_tokenize_str(text)}
    return (BOS, UNKNOWN, *PLANTED_NAMES, *sorted(words - set(NAMES)))


def embeddings(f: Features, n_vocab: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Token embeddings and unembeddings [vocab, d_model]: the special tokens, the names, the other words."""
    n_names = len(f.name)
    tokens = rng.standard_normal((n_vocab, len(f.word))) @ f.word
    tokens *= TOKEN / np.linalg.norm(tokens, axis=1, keepdims=True)
    tokens[2 : 2 + n_names] = f.name + f.is_name
    unembedding = np.zeros((n_vocab, D_MODEL))
    unembedding[2 : 2 + n_names] = LOGIT / SCALE * f.answer
    return tokens, unembedding


def weights(seed: int, n_vocab: int) -> dict[str, NDArray[np.float32]]:
    """The state dict of the GPT-2, in Hugging Face's names (Conv1D weights are [in, out])."""
    rng = np.random.default_rng(seed)
    # One thread, so that sums are taken in one order on every machine.
    with threadpool_limits(1):
        f = features(rng)
        by_node = heads(f, rng)
        tokens, unembedding = embeddings(f, n_vocab, rng)
    state: dict[str, Array] = {
        "transformer.wte.weight": tokens,
        "transformer.wpe.weight": f.place + CONSTANT * f.constant,
        "lm_head.weight": unembedding,
    }
    state |= _norm("transformer.ln_f")
    for layer in range(N_LAYERS):
        state |= _block(layer, [by_node[f"a{layer}.h{index}"] for index in range(N_HEADS)])
    return {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in state.items()}


def _norm(name: str) -> dict[str, Array]:
    return {f"{name}.weight": np.ones(D_MODEL), f"{name}.bias": np.zeros(D_MODEL)}


def _block(layer: int, row: Sequence[Head]) -> dict[str, Array]:
    name = f"transformer.h.{layer}"
    columns = [[h.query for h in row], [h.key for h in row], [h.value for h in row]]
    return {
        **_norm(f"{name}.ln_1"),
        **_norm(f"{name}.ln_2"),
        f"{name}.attn.c_attn.weight": np.concatenate([part for parts in columns for part in parts], axis=1),
        f"{name}.attn.c_attn.bias": np.concatenate([*(h.query_bias for h in row), np.zeros(2 * D_MODEL)]),
        f"{name}.attn.c_proj.weight": np.concatenate([h.output for h in row]),
        f"{name}.attn.c_proj.bias": np.zeros(D_MODEL),
        f"{name}.mlp.c_fc.weight": np.zeros((D_MODEL, D_MLP)),
        f"{name}.mlp.c_fc.bias": np.zeros(D_MLP),
        f"{name}.mlp.c_proj.weight": np.zeros((D_MLP, D_MODEL)),
        f"{name}.mlp.c_proj.bias": np.zeros(D_MODEL),
    }


def _config(n_vocab: int) -> dict[str, object]:
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": n_vocab,
        "n_positions": N_CTX,
        "n_embd": D_MODEL,
        "n_layer": N_LAYERS,
        "n_head": N_HEADS,
        "n_inner": D_MLP,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 0,
        "tie_word_embeddings": False,
        "dtype": "float32",
    }


def _tokenizer(words: Sequence[str]) -> Tokenizer:
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.add_special_tokens([BOS, UNKNOWN])
    return tokenizer


def _tokenizer_config() -> dict[str, object]:
    tokens = {"bos_token": BOS, "eos_token": BOS, "pad_token": BOS, "unk_token": UNKNOWN}
    return {**tokens, "model_max_length": N_CTX, "tokenizer_class": "PreTrainedTokenizerFast"}


def _write(path: Path, value: Mapping[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_model(directory: Path, *, seed: int) -> int:
    """Writes weights, configuration and tokenizer to `directory`; returns the number of parameters."""
    directory.mkdir(parents=True, exist_ok=True)
    words = vocabulary()
    state = weights(seed, len(words))
    save_file(state, directory / "model.safetensors", metadata={"format": "pt"})
    _write(directory / "config.json", _config(len(words)))
    _write(directory / "tokenizer_config.json", _tokenizer_config())
    _tokenizer(words).save(str(directory / "tokenizer.json"))
    return sum(value.size for value in state.values())


def plant(directory: Path, *, seed: int = 0) -> None:
    """Writes the model, its tokenizer, and what was measured on it (card.json, README.md) to `directory`.

    The same seed gives the same weights, bit by bit. Costs seconds: the effects of all heads are measured.
    """
    parameters = write_model(directory, seed=seed)
    measured = measure(directory, PLANTED_NAMES)
    _write(directory / "card.json", card(NAME, seed, parameters, ROLES, DECOYS, EDGES, measured))
    text = readme(seed, len(vocabulary()), PLANTED_NAMES, DECOYS, EDGES, measured)
    (directory / "README.md").write_text(text, encoding="utf-8")
