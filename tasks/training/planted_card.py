"""Measures the planted model and writes its card: accuracy on the task, and the effect of every head.

The one idea: the card says what plain transformers says, by hooks of its own, so that the toolkit's
methods can be held against it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import AutoTokenizer, GPT2LMHeadModel
from transformers.utils import logging

from circuits.prompts import PromptPair
from tasks.ioi import TASK
from tasks.task import Lexicon

N_ACCURACY, N_EFFECTS = 500, 16


@dataclass(frozen=True)
class Prompts:
    """tokens: right-padded, which a causal model does not see; last: the place of the last token."""

    tokens: Int[Tensor, "batch pos"]
    last: Int[Tensor, " batch"]


@dataclass(frozen=True)
class Measured:
    """What the card reports. effects: (corruption, direction) -> head -> share of the total difference."""

    accuracy: float
    clean: float
    corrupt: float
    effects: Mapping[tuple[str, str], Mapping[str, float]]


def planted_pairs(
    n: int, names: Sequence[str], *, form: str = "plain", corruption: str = "swap", seed: int = 0
) -> tuple[PromptPair, ...]:
    """Pairs of the task with no names but `names`."""
    lexicon = Lexicon(lambda text, after: int(text.strip() in names), name="planted-ioi")
    return TASK.sample(n, seed=seed, lexicon=lexicon, form=form, corruption=corruption)


class Measure:
    """The planted model behind plain transformers."""

    def __init__(self, directory: Path) -> None:
        logging.disable_progress_bar()
        self.model: Any = GPT2LMHeadModel.from_pretrained(directory, attn_implementation="eager").eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(directory)

    def prompts(self, texts: Sequence[str]) -> Prompts:
        rows = [[self.tokenizer.bos_token_id, *self.tokenizer(text)["input_ids"]] for text in texts]
        width = max(map(len, rows))
        padded = [row + [self.tokenizer.pad_token_id] * (width - len(row)) for row in rows]
        return Prompts(torch.tensor(padded), torch.tensor([len(row) - 1 for row in rows]))

    def token(self, words: Sequence[tuple[str, ...]]) -> Int[Tensor, " batch"]:
        return torch.tensor([self.tokenizer(word[0])["input_ids"][0] for word in words])

    def difference(self, logits: Tensor, pairs: Sequence[PromptPair]) -> Float[Tensor, " batch"]:
        """Logit of the answer less that of the distractor."""
        rows = torch.arange(len(pairs))
        answer, wrong = self.token([p.answers for p in pairs]), self.token([p.distractors for p in pairs])
        return logits[rows, answer] - logits[rows, wrong]

    def logits(
        self, prompts: Prompts, patch: tuple[int, int, Tensor] | None = None
    ) -> tuple[Float[Tensor, "batch vocab"], list[Tensor]]:
        """Logits behind the last token, and z [batch, pos, head, d_head] of each layer.

        patch: (layer, head, z): that head's z is taken from there.
        """
        captured: list[Tensor] = []
        n_heads = self.model.config.n_head

        def through(layer: int, inputs: tuple[Tensor]) -> tuple[Tensor]:
            z = inputs[0].view(*inputs[0].shape[:-1], n_heads, -1).clone()
            if patch is not None and patch[0] == layer:
                z[:, :, patch[1]] = patch[2][:, :, patch[1]]
            captured.append(z)
            return (z.flatten(-2),)

        hooks = [
            block.attn.c_proj.register_forward_pre_hook(lambda _, inputs, layer=layer: through(layer, inputs))
            for layer, block in enumerate(self.model.transformer.h)
        ]
        try:
            with torch.inference_mode():
                logits = self.model(prompts.tokens, attention_mask=torch.ones_like(prompts.tokens)).logits
        finally:
            for hook in hooks:
                hook.remove()
        return logits[torch.arange(len(prompts.last)), prompts.last], captured

    def head_effects(self, pairs: Sequence[PromptPair], direction: str) -> dict[str, float]:
        """What taking one head's z from the other run changes, as share of the total logit difference.

        Noising puts the corrupted z in the clean run, denoising the clean z in the corrupted run; both count
        as positive what speaks for the clean answer.
        """
        into, source = ("clean", "corrupt") if direction == "noising" else ("corrupt", "clean")
        base = self.prompts([getattr(pair, into) for pair in pairs])
        logits, _ = self.logits(base)
        donor_logits, donor = self.logits(self.prompts([getattr(pair, source) for pair in pairs]))
        start = self.difference(logits, pairs).mean()
        total = self.difference(donor_logits, pairs).mean() - start
        return {
            f"a{layer}.h{index}": float(
                (self.difference(self.logits(base, (layer, index, z))[0], pairs).mean() - start) / total
            )
            for layer, z in enumerate(donor)
            for index in range(z.shape[2])
        }


def measure(directory: Path, names: Sequence[str]) -> Measured:
    """Accuracy over the whole vocabulary and logit differences on 500 pairs, effects of heads on 64."""
    model, pairs = Measure(directory), planted_pairs(N_ACCURACY, names)
    clean, _ = model.logits(model.prompts([pair.clean for pair in pairs]))
    corrupt, _ = model.logits(model.prompts([pair.corrupt for pair in pairs]))
    right = clean.argmax(-1) == model.token([pair.answers for pair in pairs])
    return Measured(
        accuracy=float(right.float().mean()),
        clean=float(model.difference(clean, pairs).mean()),
        corrupt=float(model.difference(corrupt, pairs).mean()),
        effects={
            (corruption, direction): model.head_effects(
                planted_pairs(N_EFFECTS, names, corruption=corruption), direction
            )
            for corruption in TASK.corruptions
            for direction in ("denoising", "noising")
        },
    )


def card(
    name: str,
    seed: int,
    parameters: int,
    roles: Mapping[str, tuple[str, ...]],
    decoys: Mapping[str, tuple[str, ...]],
    edges: Mapping[str, tuple[str, ...]],
    measured: Measured,
) -> dict[str, object]:
    """card.json: `edges` are those of the corruption `corruption`; other corruptions show others as well."""
    return {
        "name": name,
        "summary": "Written by hand: the circuit for indirect object identification is known to the edge.",
        "kind": "planted",
        "seed": seed,
        "parameters": parameters,
        "accuracy": {
            "ioi": {
                "form": "plain",
                "n": N_ACCURACY,
                "accuracy": round(measured.accuracy, 4),
                "logit_difference_clean": round(measured.clean, 3),
                "logit_difference_corrupt": round(measured.corrupt, 3),
            }
        },
        "circuits": {
            "ioi": {
                "heads": [head for heads in roles.values() for head in heads],
                "roles": {role: list(heads) for role, heads in roles.items()},
                "edges": list(edges["swap"]),
                "decoys": {role: list(heads) for role, heads in decoys.items()},
                "forms": ["plain"],
                "corruption": "swap",
                "other_corruptions": {"abc": {"edges": list(edges["abc"]), "direction": "noising"}},
            }
        },
    }


def readme(
    seed: int,
    n_vocab: int,
    names: Sequence[str],
    decoys: Mapping[str, tuple[str, ...]],
    edges: Mapping[str, tuple[str, ...]],
    measured: Measured,
) -> str:
    """README.md, the model card, with the figures of this build."""
    return README.format(
        seed=seed,
        n_vocab=n_vocab,
        n_names=len(names),
        names=", ".join(names),
        decoys="\n".join(f"- {role}: {', '.join(heads)}" for role, heads in decoys.items()),
        swap_edges=_listed(edges["swap"]),
        abc_edges=_listed(sorted(set(edges["abc"]) - set(edges["swap"]))),
        accuracy=f"{measured.accuracy:.1%}",
        clean=f"{measured.clean:+.2f}",
        corrupt=f"{measured.corrupt:+.2f}",
        n_accuracy=N_ACCURACY,
        n_effects=N_EFFECTS,
        effects=_effects_table(measured, {head for heads in decoys.values() for head in heads}),
    )


def _listed(edges: Sequence[str]) -> str:
    return ", ".join(f"`{edge}`" for edge in edges)


def _effects_table(measured: Measured, decoys: set[str]) -> str:
    heads = [head for head in next(iter(measured.effects.values())) if head not in decoys]
    lines = [
        f"| corruption, direction | {' | '.join(heads)} | largest decoy |",
        "| --- " * (len(heads) + 2) + "|",
    ]
    for (corruption, direction), effects in measured.effects.items():
        decoy = max(abs(effects[head]) for head in decoys)
        cells = " | ".join(f"{round(effects[head], 3) + 0.0:.3f}" for head in heads)
        lines.append(f"| {corruption}, {direction} | {cells} | {decoy:.1e} |")
    return "\n".join(lines)


README = """\
# planted-ioi

A GPT-2 of 3 layers x 6 heads, written by hand rather than trained, in which the circuit for indirect object
identification (`ioi`, form `plain`) is known to the edge. It is the ground truth that methods are held
against. It is no language model: it knows the one task. Build it again with
`tasks.training.planted.plant(directory, seed={seed})`; the same seed gives the same weights.

## How it works

Tokens, places and what heads write are orthonormal directions ("features") of mean zero, rotated at random.
A constant feature keeps LayerNorm's scale fixed within 1%. The MLPs are zero, the embeddings untied.

| head | role | attends to | writes |
| --- | --- | --- | --- |
| a0.h2 | duplicate token | from a name to the same name before it, else to place 0 | where that copy stands |
| a1.h4 | S-inhibition | the token that a0.h2 marked, else place 0 | both places of the repeated name |
| a2.h1, a2.h3 | name movers | names, except at the inhibited places | the name as answer (shares .56, .44) |

Fourteen decoys write to directions that nothing reads. Several of them change as much as the circuit does
when the prompt is corrupted, so methods that only look at activations are led astray:

{decoys}

a2.h5 follows a1.h4's inhibition just as the movers do, yet what it finds is never read.

## The edges

Inhibition goes by place, not by name, so that few edges carry a difference between the prompts.

- Corruption `swap` (S2 becomes IO): {swap_edges}. These are the edges of card.json.
  One of them comes from the input, a0.h2's query: the name at S2. What else heads read from the input
  (places, which tokens are names) is the same in both prompts. a1.h4's key reads that S2 is *some* repeated
  name, which is so in both prompts, so `a0.h2->a1.h4<k>` is used but carries nothing here.
- Corruption `abc` (three other names, none twice), noising: the same and {abc_edges}.

Path patching each edge in turn finds these and no others (tests/tasks/test_planted.py): each has at least
0.4 of the total effect, any other less than 0.005.

## Measured

On {n_accuracy} pairs of form `plain`, corruption `swap`: accuracy {accuracy} over the whole vocabulary, mean
logit difference {clean} clean and {corrupt} corrupted. Effects of patching one head, as share of the total
difference ({n_effects} pairs):

{effects}

Under `abc`, denoising reaches the movers alone: the corrupted prompt does not hold the answer, so marking
the right places in it cannot bring it back. Noising a0.h2 or a1.h4 there removes the inhibition; S then
stands twice against one IO, hence a logit difference below zero and an effect above 1.

## Limits

- {n_vocab} tokens: {n_names} names, the other words of the task, its places and things; other words become
  `<unk>`. The names: {names}.
- Context: 40 tokens with `<|endoftext|>` in front, which the model needs.
- Forms `distractors` and `two-givers` are solved only in part: every name that is said once is a candidate.
- A name that is said again within four tokens is not detected reliably.
- Attention is nearly saturated, so gradients understate what a0.h2 and a1.h4 do (about twentyfold
  under `swap`).
"""
