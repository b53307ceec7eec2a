"""Models through TransformerLens's TransformerBridge: the only file that imports transformer_lens.

The one idea: the bridge wraps the Hugging Face model itself, so logits are the model's own; this adapter
names the few hook points that the Model protocol speaks of, and asks for the last logits alone.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.engine.architectures import read_weights
from circuits.engine.check import TOLERANCE, largest_gap, probe_resumption
from circuits.engine.weights import Weights
from circuits.errors import CircuitError, ModelError, PromptError
from circuits.graph import Graph
from circuits.model import Edit, Resume, Resumption, Run, Site, Unembedding
from circuits.models.past import fixed
from circuits.models.source import ModelSource, find_model

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SPELLING = str.maketrans({"Ġ": " ", "▁": " ", "Ċ": "\\n"})
"""How byte-level and SentencePiece vocabularies write a space and a new line."""

SMALL_MODEL = 20_000_000
"""Parameters under which one thread is faster than many: the work per operation is too little to share."""


def load_model(
    model: str | ModelSource, *, device: str = "cpu", dtype: str = "float32", prepend_bos: bool = True
) -> BridgeModel:
    """The model named `model` (built-in name, directory, hub name) in eval mode.

    Raises ModelError where it cannot be found or loaded, CircuitError for an unknown device or dtype.
    """
    source = model if isinstance(model, ModelSource) else find_model(model)
    if dtype not in DTYPES:
        raise CircuitError(f"There is no dtype {dtype!r}. Known: {', '.join(DTYPES)}.")
    bridge, tokenizer = _boot(source.directory, _device(device), DTYPES[dtype])
    return BridgeModel(source, bridge, tokenizer, prepend_bos)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise CircuitError(f"Device {name!r} cannot be used here ({reason}). Use --device cpu.") from None
    return device


def _boot(directory: Path, device: torch.device, dtype: torch.dtype) -> tuple[Any, Any]:
    """The bridge, and the tokenizer as its files have it: the bridge gives its own a BOS token if it lacks one."""
    import transformers
    from transformer_lens.model_bridge import TransformerBridge

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("transformer_lens").setLevel(logging.ERROR)
    # Absolute, for TransformerLens takes a relative path such as "opt" for its alias of a model on the hub.
    place = str(directory.absolute())
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            bridge = TransformerBridge.boot_transformers(
                place, device=str(device), dtype=dtype, model_class=_WholeCheckpoint
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(place)
    except ModelError:
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"TransformerLens cannot load {directory}: {reason}") from error
    _fuse_gelu(bridge)
    bridge.eval()
    bridge.requires_grad_(False)
    if sum(p.numel() for p in bridge.parameters()) < SMALL_MODEL and device.type == "cpu":
        torch.set_num_threads(1)
    return bridge, tokenizer


def _fuse_gelu(bridge: torch.nn.Module) -> None:
    """Swaps GPT-2's tanh GELU, written out operation by operation, for torch's own: the same function, faster."""
    for module in list(bridge.modules()):
        for name, child in module.named_children():
            if type(child).__name__ == "NewGELUActivation":
                setattr(module, name, torch.nn.GELU(approximate="tanh"))


class _WholeCheckpoint:
    """Stands in for the class that loads: weights that the files lack are an error, not random numbers."""

    @staticmethod
    def from_pretrained(place: str, **settings: Any) -> Any:
        from transformers import AutoModelForCausalLM

        model, found = AutoModelForCausalLM.from_pretrained(place, output_loading_info=True, **settings)
        if missing := sorted(found["missing_keys"]):
            some = ", ".join(missing[:3]) + (" ..." if len(missing) > 3 else "")
            raise ModelError(
                f"The weight files in {place} lack {len(missing)} of the model's tensors ({some}). "
                "Copy or download the model again."
            )
        return model


MEMORY = 2**30
"""Bytes that work above the model may use, where nobody says."""


class BridgeModel:
    """The Model protocol over one TransformerBridge. directory: where its files lie."""

    def __init__(
        self,
        source: ModelSource,
        bridge: Any,
        tokenizer: Any,
        prepend_bos: bool = True,
        memory: int = MEMORY,
    ) -> None:
        self.name, self.directory, self.builtin = source.name, source.directory, source.builtin
        self._bridge, self._tokenizer, cfg = bridge, tokenizer, bridge.cfg
        self.graph = Graph(
            n_layers=cfg.n_layers,
            n_heads=cfg.n_heads,
            n_kv_heads=cfg.n_key_value_heads or cfg.n_heads,
            parallel=bool(cfg.parallel_attn_mlp),
        )
        self.d_model, self.n_ctx = int(cfg.d_model), int(cfg.n_ctx)
        self.dtype: torch.dtype = next(bridge.parameters()).dtype
        self.device: torch.device = next(bridge.parameters()).device
        self.vocab_size: int = bridge.W_U.shape[-1]
        if not getattr(self._tokenizer, "is_fast", False):
            raise ModelError(
                f"{self.name}'s tokenizer has no tokenizer.json form, so positions cannot be traced."
            )
        bos = self._tokenizer.bos_token_id
        self.bos = bos if prepend_bos and bos is not None and bos < self.vocab_size else None
        specials = {self._tokenizer.bos_token_id, self._tokenizer.eos_token_id}
        self._unknown = {self._tokenizer.unk_token_id} - specials - {None}
        self.memory = memory
        bridge.unembed.register_forward_pre_hook(_packed)
        self.weights: Weights | None = None
        self.weights, self._engine_path = self._engine()
        self._resumptions: dict[tuple[int, int], Resumption] = {}

    @property
    def path(self) -> str:
        """Which way patching goes, in words, as far as it is known: what rows may share is probed at first use."""
        return "; ".join([self._engine_path, *sorted({str(found) for found in self._resumptions.values()})])

    def _engine(self) -> tuple[Weights | None, str]:
        """The weights where the engine's numbers are the model's own; and which path patching takes, in words."""
        weights = read_weights(self._bridge)
        if weights is None:
            return None, f"portable: the engine does not know {self._bridge.original_model.config.model_type}"
        gap = largest_gap(self, weights, self.vocab_size)
        if gap > TOLERANCE[self.dtype]:
            return None, f"portable: the engine is off by {gap:.1g} of the largest value"
        if weights.longest < self.n_ctx:
            return weights, f"exact engine up to {weights.longest} tokens, portable beyond"
        return weights, "exact engine"

    def tokenize(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids with the BOS token in front where the vocabulary has one; character spans beside them."""
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        ids, spans = list(encoded["input_ids"]), [(int(a), int(b)) for a, b in encoded["offset_mapping"]]
        if self.bos is not None:
            ids, spans = [self.bos, *ids], [(0, 0), *spans]
        if not ids:
            raise PromptError("An empty prompt has no tokens.")
        if len(ids) > self.n_ctx:
            raise PromptError(
                f"A prompt of {len(ids)} tokens is longer than {self.name}'s context of {self.n_ctx}: "
                f"{text[:60]!r}..."
            )
        if max(ids) >= self.vocab_size:
            raise ModelError(
                f"{self.name}'s tokenizer gives token {max(ids)}; the model knows {self.vocab_size}."
            )
        return ids, spans

    def token_string(self, token: int) -> str:
        return str(self._tokenizer.convert_ids_to_tokens(token)).translate(SPELLING)

    def is_unknown(self, token: int) -> bool:
        return token in self._unknown

    def run(
        self,
        tokens: Int[Tensor, "batch pos"],
        *,
        capture: Collection[Site] = (),
        edit: Mapping[Site, Edit] | None = None,
        resume: Resume | None = None,
    ) -> Run:
        start = resume or Resume()
        captured: dict[Site, Tensor] = {}
        edits = edit or {}
        hooks = [
            (
                self._hook_name(site),
                partial(_pass, site, edits.get(site), captured if site in capture else None),
            )
            for site in dict.fromkeys([*edits, *capture])
        ]
        with torch.inference_mode(), self._skipping(start.layer, start.residual):
            logits = self._bridge.run_with_hooks(
                tokens.to(self.device),
                return_type="logits",
                fwd_hooks=hooks,
                logits_to_keep=1,
                past_key_values=start.past,
                use_cache=start.past is not None,
            )
        return Run(logits[:, -1].float(), captured)

    def past(self, tokens: Int[Tensor, "batch pos"]) -> object:
        with torch.inference_mode():
            _, cache = self._bridge(
                tokens.to(self.device), return_type="logits_and_cache", use_cache=True, logits_to_keep=1
            )
        return fixed(cache)

    def resumption(self, length: int, column: int) -> Resumption:
        if (length, column) not in self._resumptions:
            self._resumptions[length, column] = probe_resumption(self, length, column, self.vocab_size)
        return self._resumptions[length, column]

    @contextlib.contextmanager
    def _skipping(self, layer: int, residual: Tensor | None) -> Iterator[None]:
        """Within, blocks below `layer` do not run: each puts out `residual`."""
        given = self._as_block_output(residual) if layer else None
        # Through vars, for a bridged module hands attributes that are set on to the one that it wraps.
        blocks = [vars(block) for block in self._bridge.blocks[:layer]]
        own = [block.get("forward") for block in blocks]
        try:
            for block in blocks:
                block["forward"] = lambda *args, **kwargs: given
            yield
        finally:
            for block, forward in zip(blocks, own, strict=True):
                del block["forward"]
                if forward is not None:
                    block["forward"] = forward

    @cached_property
    def _as_block_output(self) -> Callable[[Tensor | None], object]:
        """What a block of this model makes of a residual stream: that alone, or the first of a tuple."""
        seen: list[object] = []
        handle = self._bridge.blocks[0].register_forward_hook(
            lambda block, given, output: seen.append(output)
        )
        try:
            self.run(torch.zeros(1, 1, dtype=torch.long))
        finally:
            handle.remove()
        rest = (None,) * (len(seen[0]) - 1) if isinstance(seen[0], tuple) else None
        return lambda residual: residual if rest is None else (residual, *rest)

    def _hook_name(self, site: Site) -> str:
        return {
            "z": f"blocks.{site.layer}.attn.hook_z",
            "mlp": f"blocks.{site.layer}.hook_mlp_out",
            "input": f"blocks.{site.layer}.hook_resid_pre",
            "final": f"blocks.{self.graph.n_layers - 1}.hook_resid_post",
        }[site.kind]

    def head_writer(
        self, layer: int
    ) -> tuple[Float[Tensor, "head d_head d_model"], Float[Tensor, "d_model"]]:
        attention = self._bridge.blocks[layer].attn
        bias = getattr(attention, "b_O", None)
        if bias is None:
            bias = torch.zeros(self.d_model, device=self.device)
        return attention.W_O.detach().float(), bias.detach().float()

    def unembedding(self) -> Unembedding:
        cfg = self._bridge.cfg
        if (getattr(cfg, "output_logits_soft_cap", None) or -1) > 0:
            raise ModelError(f"{self.name} caps its logits, so no component's effect on them is linear.")
        norm = self._bridge.ln_final.original_component
        gain = norm.weight.detach().float() + (1.0 if cfg.rmsnorm_uses_offset else 0.0)
        weight = self._bridge.W_U.detach().float()
        shift = getattr(norm, "bias", None)
        bias = self._bridge.b_U.detach().float() + (0.0 if shift is None else shift.detach().float() @ weight)
        folded = gain[:, None] * weight
        centres = cfg.normalization_type.startswith("LN")
        return Unembedding(folded - folded.mean(0) if centres else folded, bias, float(cfg.eps), centres)


def _packed(unembed: object, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The last column is a slice of all; as such torch would read the unembedding once a row, ten times slower."""
    return (inputs[0].contiguous(), *inputs[1:])


def _pass(
    site: Site, change: Edit | None, captured: dict[Site, Tensor] | None, value: Tensor, hook: object
) -> Tensor:
    """What a hook does with the value at its site: edits it, then keeps it."""
    if change is not None:
        value = change(value)
    if captured is not None:
        captured[site] = value
    return value
