"""LLaMA blocks that compute with few passes over memory what transformers' own do, weight for weight.

B batch, T tokens, E width, M width of the gated MLP, d head width.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm

from vilau.layers.lean import fused_attention, gated_silu, neighbours, product_dtype, rms_norm


class LeanRMSNorm(LlamaRMSNorm):
    """LLaMA's norm in few passes."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Normalise ``(..., E)``."""
        return rms_norm(hidden_states, self.weight, self.variance_epsilon, hidden_states.dtype)


class LeanDecoderLayer(LlamaDecoderLayer):
    """A LLaMA block of whole sequences; with a cache of keys and values it is transformers' own."""

    def forward(  # noqa: PLR0913 - transformers' signature
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Any = None,
        past_key_values: Any = None,
        use_cache: bool | None = False,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        wanted: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Map ``(B, T, E)`` to ``(B, T, E)``; ``attention_mask`` is added to the scores, ``(B or 1, 1, T, T)``.

        ``wanted`` are the places among the B * T, int64 and all different, whose last states will be read: the last
        block computes these alone and leaves 0 at the others.
        """
        if past_key_values is not None or position_embeddings is None or not self._plain():
            return super().forward(
                hidden_states,
                attention_mask=attention_mask,
                position_ids=position_ids,
                past_key_values=past_key_values,
                use_cache=use_cache,
                position_embeddings=position_embeddings,
                **kwargs,
            )
        x, part = hidden_states, self.self_attn
        if part.layer_idx < part.config.num_hidden_layers - 1:
            wanted = None
        first = int((wanted % x.shape[1]).min()) if wanted is not None and len(wanted) else 0
        y = self._attended(x, attention_mask, position_embeddings, first)
        if wanted is not None:
            # Every token is a key and a value here too; from here on no token needs another.
            some = self._gated(x.flatten(0, 1)[wanted], y.flatten(0, 1)[wanted])
            return torch.zeros_like(x).flatten(0, 1).index_copy(0, wanted, some).view_as(x)
        return self._gated(x, y)

    def _plain(self) -> bool:
        """Whether the linear layers are LLaMA's own: adapters put others in their place, which must be called."""
        a, m = self.self_attn, self.mlp
        linears = (a.q_proj, a.k_proj, a.v_proj, a.o_proj, m.gate_proj, m.up_proj, m.down_proj)
        return all(type(one) is nn.Linear for one in linears)

    def _attended(
        self, x: Tensor, mask: Tensor | None, positions: tuple[Tensor, Tensor], first: int
    ) -> Tensor:
        """What the heads found, ``(B, T, H d)``, before it is projected; nothing is read before place ``first``."""
        part, dtype, norm = self.self_attn, product_dtype(x), self.input_layernorm
        d = part.head_dim
        h = rms_norm(x, norm.weight, norm.variance_epsilon, dtype)
        query, key = (neighbours(one.weight, d) for one in (part.q_proj, part.k_proj))
        # One product for all three, and one copy of the weights in its dtype.
        qkv = F.linear(h, torch.cat([query, key, part.v_proj.weight]).to(dtype))
        mask = None if mask is None else mask[:, 0]
        if mask is not None and mask.dtype != dtype:
            # float32's lowest number is -inf in bfloat16; see lean_attention.
            mask = mask.clamp(min=torch.finfo(dtype).min).to(dtype)
        wide = torch.promote_types(dtype, torch.float32)
        cos, sin = (entry[..., : d // 2].to(wide) for entry in positions)
        return fused_attention(
            qkv,
            heads=len(query) // d,
            kv_heads=len(key) // d,
            mask=mask,
            turn=torch.complex(cos, sin)[:, :, None],
            first=first,
        )

    def _gated(self, x: Tensor, y: Tensor) -> Tensor:
        """Add to the states what attention found ``(..., H d)``, and then the gated MLP of the sum."""
        part, dtype, norm = self.mlp, product_dtype(x), self.post_attention_layernorm
        x = x + F.linear(y, self.self_attn.o_proj.weight.to(dtype))
        h = rms_norm(x, norm.weight, norm.variance_epsilon, dtype)
        both = torch.cat([part.gate_proj.weight, part.up_proj.weight]).to(dtype)
        return x + F.linear(gated_silu(F.linear(h, both)), part.down_proj.weight.to(dtype))


def use_lean_layers(model: LlamaForCausalLM) -> None:
    """Let the blocks of a LLaMA compute the lean way; names and values of its weights stay.

    A model with biases, another activation or dropout of attention weights keeps its blocks.
    """
    config: LlamaConfig = model.config
    extras = config.attention_bias or config.mlp_bias or config.attention_dropout
    if extras or config.hidden_act != "silu":
        return
    # The classes add no attribute, so a block becomes one by its class alone.
    for layer in model.model.layers:
        layer.__class__ = LeanDecoderLayer
    model.model.norm.__class__ = LeanRMSNorm
