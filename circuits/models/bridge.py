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
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.devices import Placement, dtype_named, place
from circuits.engine.architectures import read_weights
from circuits.engine.check import TOLERANCE, largest_gap, probe_resumption
from circuits.engine.weights import Weights
from circuits.errors import ModelError, PromptError
from circuits.graph import Graph
from circuits.memory import default_budget, is_out_of_memory
from circuits.model import Edit, LastLogitsMetric, Resume, Resumption, Run, Site, Unembedding
from circuits.models.past import fixed
from circuits.models.source import ModelSource, find_model, n_parameters

SPELLING = str.maketrans({"Ġ": " ", "▁": " ", "Ċ": "\\n"})
"""How byte-level and SentencePiece vocabularies write a space and a new line."""

_LONG_TEXT = 1000  # characters from which a prompt's tokens are not kept
SMALL_MODEL = 20_000_000
"""Parameters under which one thread is faster than many: the work per operation is too little to share."""


def load_model(
    model: str | ModelSource,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    prepend_bos: bool = True,
    memory: int | None = None,
) -> BridgeModel:
    """The model named `model` (built-in name, directory, hub name) in eval mode.

    memory: bytes that work above the model may use; circuits.memory.default_budget where None.

    Raises ModelError where it cannot be found or loaded, CircuitError for a device or dtype that cannot be used
    (see circuits.devices).
    """
    source = model if isinstance(model, ModelSource) else find_model(model)
    kind = dtype_named(dtype)
    placement = place(device, kind, n_parameters(source.directory) * kind.itemsize)
    bridge, tokenizer = _boot(source.directory, placement, kind)
    loaded = BridgeModel(source, bridge, tokenizer, prepend_bos, memory)
    if kind != torch.float32:
        _require_run(loaded, dtype)
    return loaded


def _require_run(model: BridgeModel, dtype: str) -> None:
    """Raises ModelError where a run mixes dtypes, as TransformerLens 4.3 does in OLMo's rotary positions."""
    try:
        model.run(torch.zeros(1, 1, dtype=torch.long))
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"TransformerLens cannot run {model.name} in {dtype} ({reason}). Use --dtype float32."
        ) from error


def _boot(directory: Path, placement: Placement, dtype: torch.dtype) -> tuple[Any, Any]:
    """The bridge, and the tokenizer as its files have it: the bridge gives its own a BOS token if it lacks one."""
    import transformers
    from transformer_lens.model_bridge import TransformerBridge

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("transformer_lens").setLevel(logging.ERROR)
    # Absolute, for TransformerLens takes a relative path such as "opt" for its alias of a model on the hub.
    files = str(directory.absolute())
    where: dict[str, Any] = {"device": str(placement.device)}
    if placement.shares:
        where = {"device_map": "balanced", "max_memory": dict(placement.shares)}
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            bridge = TransformerBridge.boot_transformers(
                files, dtype=dtype, model_class=_WholeCheckpoint, **where
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(files)
    except ModelError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise ModelError(
                f"{directory} does not fit in the memory of {placement.device}. "
                "Use --dtype bfloat16, another --device, or a smaller model."
            ) from None
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"TransformerLens cannot load {directory}: {reason}") from error
    _fuse_gelu(bridge)
    bridge.eval()
    bridge.requires_grad_(False)
    if sum(p.numel() for p in bridge.parameters()) < SMALL_MODEL and placement.device.type == "cpu":
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


class BridgeModel:
    """The Model protocol over one TransformerBridge. directory: where its files lie.

    devices: those that hold weights. On a model that is spread over several, what an edit sees and what is
    captured is brought to the first (`device`), and what an edit returns is taken back.
    """

    def __init__(
        self,
        source: ModelSource,
        bridge: Any,
        tokenizer: Any,
        prepend_bos: bool = True,
        memory: int | None = None,
    ) -> None:
        self.name, self.directory, self.builtin = source.name, source.directory, source.builtin
        self._bridge, self._tokenizer, cfg = bridge, tokenizer, bridge.cfg
        # A prompt is asked for again and again: when it is drawn, checked, and put into a batch.
        self._encoded = lru_cache(maxsize=4096)(self._encode)
        self.graph = Graph(
            n_layers=cfg.n_layers,
            n_heads=cfg.n_heads,
            n_kv_heads=cfg.n_key_value_heads or cfg.n_heads,
            parallel=bool(cfg.parallel_attn_mlp),
        )
        self.d_model, self.n_ctx = int(cfg.d_model), int(cfg.n_ctx)
        self.dtype: torch.dtype = next(bridge.parameters()).dtype
        self.devices: tuple[torch.device, ...] = tuple(dict.fromkeys(p.device for p in bridge.parameters()))
        self.device = self.devices[0]
        self.vocab_size: int = bridge.W_U.shape[-1]
        if not getattr(self._tokenizer, "is_fast", False):
            raise ModelError(
                f"{self.name}'s tokenizer has no tokenizer.json form, so positions cannot be traced."
            )
        bos = self._tokenizer.bos_token_id
        self.bos = bos if prepend_bos and bos is not None and bos < self.vocab_size else None
        specials = {self._tokenizer.bos_token_id, self._tokenizer.eos_token_id}
        self._unknown = {self._tokenizer.unk_token_id} - specials - {None}
        self.memory = default_budget(self.device).total if memory is None else memory
        bridge.unembed.register_forward_pre_hook(_packed)
        self.weights: Weights | None = None
        self._engine_path = "portable: the engine is not yet probed"
        self._resumptions: dict[tuple[int, int], Resumption] = {}
        self.weights, self._engine_path = self._engine()

    @property
    def path(self) -> str:
        """Which way patching goes, in words, as far as it is known: what rows may share is probed at first use."""
        return "; ".join([self._engine_path, *sorted({str(found) for found in self._resumptions.values()})])

    def _engine(self) -> tuple[Weights | None, str]:
        """The weights where the engine's numbers are the model's own; and which path patching takes, in words."""
        if self.spread:
            return None, "portable: the model is spread over several devices"
        weights = read_weights(self._bridge)
        if weights is None:
            return None, f"portable: the engine does not know {self._bridge.original_model.config.model_type}"
        gap = largest_gap(self, weights, self.vocab_size)
        if gap > TOLERANCE[self.dtype]:
            return None, f"portable: the engine is off by {gap:.1g} of the largest value"
        if weights.longest < self.n_ctx:
            return weights, f"exact engine up to {weights.longest} tokens, portable beyond"
        return weights, "exact engine"

    @property
    def n_bytes(self) -> int:
        """What the weights take."""
        return sum(p.numel() * p.element_size() for p in self._bridge.parameters())

    @property
    def spread(self) -> bool:
        """Whether the weights lie on several devices."""
        return len(self.devices) > 1

    def _encode(self, text: str) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return tuple(encoded["input_ids"]), tuple((int(a), int(b)) for a, b in encoded["offset_mapping"])

    def tokenize(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids with the BOS token in front where the vocabulary has one; character spans beside them."""
        encoded, offsets = (self._encoded if len(text) < _LONG_TEXT else self._encode)(text)
        ids, spans = list(encoded), list(offsets)
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
                partial(_pass, site, self.device, edits.get(site), captured if site in capture else None),
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
        return Run(self._home(logits[:, -1]), captured)

    def _home(self, value: Tensor) -> Tensor:
        """In fp32 on `device`, wherever the model has it."""
        return value.detach().to(self.device, torch.float32)

    def gradients(
        self, tokens: Int[Tensor, "batch pos"], sites: Collection[Site], metric: LastLogitsMetric
    ) -> tuple[dict[Site, Tensor], dict[Site, Tensor]]:
        captured: dict[Site, Tensor] = {}
        hooks = [
            (self._hook_name(site), partial(_pass, site, self.device, _with_gradient, captured))
            for site in sites
        ]
        with torch.enable_grad():
            logits = self._bridge.run_with_hooks(
                tokens.to(self.device),
                return_type="logits",
                fwd_hooks=hooks,
                logits_to_keep=1,
                use_cache=False,
            )
            found = torch.autograd.grad(
                metric(logits[:, -1].to(self.device).float()).sum(), list(captured.values())
            )
        return {site: value.detach() for site, value in captured.items()}, dict(
            zip(captured, found, strict=True)
        )

    def past(self, tokens: Int[Tensor, "batch pos"]) -> object:
        with torch.inference_mode():
            _, cache = self._bridge(
                tokens.to(self.device), return_type="logits_and_cache", use_cache=True, logits_to_keep=1
            )
        return fixed(cache)

    def resumption(self, length: int, column: int) -> Resumption:
        if self.spread:  # a residual stream that is put in half-way would lie on the wrong device
            return Resumption(layers=False, columns=False)
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
            "pattern": f"blocks.{site.layer}.attn.hook_pattern",
        }[site.kind]

    def head_writer(
        self, layer: int
    ) -> tuple[Float[Tensor, "head d_head d_model"], Float[Tensor, "d_model"]]:
        attention = self._bridge.blocks[layer].attn
        bias = getattr(attention, "b_O", None)
        if bias is None:
            bias = torch.zeros(self.d_model, device=self.device)
        return self._home(attention.W_O), self._home(bias)

    def unembedding(self) -> Unembedding:
        cfg = self._bridge.cfg
        if (getattr(cfg, "output_logits_soft_cap", None) or -1) > 0:
            raise ModelError(f"{self.name} caps its logits, so no component's effect on them is linear.")
        norm = self._bridge.ln_final.original_component
        gain = self._home(norm.weight) + (1.0 if cfg.rmsnorm_uses_offset else 0.0)
        weight = self._home(self._bridge.W_U)
        shift = getattr(norm, "bias", None)
        bias = self._home(self._bridge.b_U) + (0.0 if shift is None else self._home(shift) @ weight)
        folded = gain[:, None] * weight
        centres = cfg.normalization_type.startswith("LN")
        return Unembedding(folded - folded.mean(0) if centres else folded, bias, float(cfg.eps), centres)


def _with_gradient(value: Tensor) -> Tensor:
    """Parameters take no gradients, so what passes before the first site takes none either: it starts there."""
    return value if value.requires_grad else value.detach().requires_grad_()


def _packed(unembed: object, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The last column is a slice of all; as such torch would read the unembedding once a row, ten times slower."""
    return (inputs[0].contiguous(), *inputs[1:])


def _pass(
    site: Site,
    home: torch.device,
    change: Edit | None,
    captured: dict[Site, Tensor] | None,
    value: Tensor,
    hook: object,
) -> Tensor:
    """What a hook does with the value at its site: edits it, then keeps it, both at home."""
    if change is not None:
        value = change(value.to(home)).to(value.device)
    if captured is not None:
        captured[site] = value.to(home)
    return value
