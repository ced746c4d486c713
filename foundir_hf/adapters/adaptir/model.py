"""AdaptIR in peft's terms: which modules are wrapped, and how adapters are named, loaded and taken away."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTuner
from torch import nn

from .config import AdaptIRConfig
from .layer import AdaptIRLayer


class AdaptIRModel(BaseTuner):
    """A model with AdaptIR adapters (AdaptIR, NeurIPS 2024) beside its modules; made by `get_peft_model` or diffusers' `add_adapter`.

    Args:
        model (`nn.Module`): The model to be adapted.
        config ([`AdaptIRConfig`]): Which modules, and how.
        adapter_name (`str`, defaults to `"default"`): The name of the adapter.

    Adapters are not linear, so they cannot be merged into the weights; `unload` takes them away.
    """

    prefix = "adaptir_"
    tuner_layer_cls = AdaptIRLayer
    target_module_mapping: dict[str, list[str]] = {}  # noqa: RUF012 (peft's attribute): no architecture has defaults

    def _create_and_replace(
        self,
        adaptir_config: AdaptIRConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **optional_kwargs: Any,
    ) -> None:
        if isinstance(target, AdaptIRLayer):
            target.update_layer(adapter_name, adaptir_config)
            return
        layer = AdaptIRLayer(target, adapter_name, adaptir_config)
        if adapter_name not in self.active_adapters:
            layer.adaptir_block.requires_grad_(False)  # an additional adapter is not trainable by itself
        setattr(parent, target_name, layer)
        if layer.channels_last and _note_input_size not in self.model._forward_pre_hooks.values():
            self.model.register_forward_pre_hook(_note_input_size, with_kwargs=True)

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        # peft's own looks for the `weight` of what it replaces, which a whole block does not have.
        setattr(parent, child_name, new_module)

    def _check_merge_allowed(self) -> None:
        raise ValueError("AdaptIR adapters are not linear and cannot be merged into the weights; `unload()` takes them away.")

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        # peft expects the name near the end of a key; ours is followed by the block's own layers. Left as it is, loading under another name
        # would silently load nothing.
        return key.replace(f".adaptir_block.{adapter_name}.", ".adaptir_block.")


def set_token_grid(model: nn.Module, height: int, width: int) -> None:
    """Tells the adapters beside token layers the size of the finest map; coarser ones are taken to be smaller by a whole factor.

    Models whose first argument is a map or picture `(B, C, H, W)` need no call if theirs are so too, by a patch's side, say: its size is
    noted by itself. Others need one before every forward pass of another size.
    """
    for module in model.modules():
        if isinstance(module, AdaptIRLayer):
            module.token_grid = (height, width)


def _note_input_size(model: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
    """A hook before the forward pass of a model."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.Tensor) and value.ndim == 4:
            for module in model.modules():
                if isinstance(module, AdaptIRLayer):
                    module.input_size = (value.shape[-2], value.shape[-1])
            return
