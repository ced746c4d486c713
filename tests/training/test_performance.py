"""Checkpointing and attention kernels: other memory, same numbers."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from diffusers.models.attention_processor import Attention
from diffusers.utils import is_xformers_available

from foundir_hf.data.pairs import PairBatch
from foundir_hf.interpret import record_routing
from foundir_hf.models.lq_encoder_foundir import FoundIRPyramidEncoder
from foundir_hf.pipelines.pipeline_foundir import FoundIRPipeline
from foundir_hf.training.config import StageConfig
from foundir_hf.training.objectives import FoundIRModules
from foundir_hf.training.performance import configure

STAGE = StageConfig("stage", "restoration", 10, {"": 1.0})


def copied(pipe: FoundIRPipeline) -> FoundIRModules:
    return FoundIRModules(*(copy.deepcopy(part) for part in (pipe.vae, pipe.lq_encoder, pipe.unet, pipe.tone))).train()


def backward(modules: FoundIRModules, pipe: FoundIRPipeline) -> dict[str, torch.Tensor]:
    """The gradients of one step through every component: one-step restoration and diffusion together."""
    hq = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    batch = PairBatch(hq, hq * 0.5, ["haze"])
    modules.zero_grad(set_to_none=True)
    for objective in ("restoration", "diffusion"):
        stage = StageConfig("stage", objective, 10, {"": 1.0})
        modules(stage, batch, pipe.scheduler, torch.Generator().manual_seed(0)).backward()
    return {name: parameter.grad for name, parameter in modules.named_parameters() if parameter.grad is not None}


def _levels(lq_encoder: torch.nn.Module) -> list[torch.nn.Module]:
    if isinstance(lq_encoder, FoundIRPyramidEncoder):
        return [*lq_encoder.down_blocks, *lq_encoder.up_blocks]
    return [*(block.resnets[0] for block in lq_encoder.encoder.down_blocks), lq_encoder.encoder.mid_block]


@pytest.fixture(params=["pipeline", "sdxl"])
def pipe(request) -> FoundIRPipeline:
    return request.getfixturevalue(request.param)


def test_gradient_checkpointing_leaves_every_gradient_as_it_is(pipe):
    modules = copied(pipe)
    expected = backward(modules, pipe)
    configure(modules, gradient_checkpointing=True, attention="sdpa")
    gradients = backward(modules, pipe)
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-6, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


def test_what_is_checkpointed_is_computed_twice_and_what_is_not_once(pipe):
    modules = copied(pipe)
    modules.zero_grad(set_to_none=True)
    large = {
        **{f"expert {i}": expert for i, expert in enumerate(modules.unet.conv_in.moe.experts)},
        **{f"level {i}": block for i, block in enumerate(_levels(modules.lq_encoder))},
        "UNet": modules.unet.down_blocks[0].resnets[0],
    }
    calls = dict.fromkeys(large, 0)

    def counted(name: str) -> None:
        # Recomputation stops where all is there again, before a module's forward hooks; so count on entry.
        large[name].register_forward_pre_hook(lambda *_: calls.__setitem__(name, calls[name] + 1))

    for name in large:
        counted(name)
    hq = torch.rand(1, 3, 64, 64) * 2 - 1
    batch = PairBatch(hq, hq * 0.5, ["haze"])
    for enabled, times in ((True, 2), (False, 1)):
        configure(modules, gradient_checkpointing=enabled, attention="sdpa")
        calls.update(dict.fromkeys(large, 0))
        with record_routing(modules.unet) as maps:
            modules(STAGE, batch, pipe.scheduler, torch.Generator().manual_seed(0)).backward()
        assert calls == dict.fromkeys(large, times)
        assert len(maps) == 1  # the router is looked at once


def test_checkpointing_keeps_fewer_bytes_for_the_backward_pass(pipe):
    modules = copied(pipe)
    hq = torch.rand(1, 3, 64, 64) * 2 - 1
    batch = PairBatch(hq, hq * 0.5, ["haze"])
    weights = {parameter.untyped_storage().data_ptr() for parameter in modules.parameters()}
    kept = []
    for enabled in (False, True):
        configure(modules, gradient_checkpointing=enabled, attention="sdpa")
        storages: dict[int, int] = {}

        def note(tensor: torch.Tensor, storages: dict[int, int] = storages) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = modules(replace(STAGE, tone="off"), batch, pipe.scheduler, torch.Generator().manual_seed(0))
        kept.append(sum(storages.values()))
        del loss
    assert kept[1] < 0.6 * kept[0]


def test_every_attention_gets_the_kernel_and_the_kernels_agree(sdxl):
    modules = copied(sdxl).eval()
    latents, lq = torch.randn(1, 4, 8, 8), torch.randn(1, 24, 8, 8)
    images = torch.rand(1, 3, 64, 64) * 2 - 1
    outputs = []
    for attention, processor in (("sdpa", "AttnProcessor2_0"), ("eager", "AttnProcessor")):
        configure(modules, gradient_checkpointing=False, attention=attention)
        for part in (modules.vae, modules.lq_encoder, modules.unet.conv_in, modules.unet.mid_block):
            assert {type(m.processor).__name__ for m in part.modules() if isinstance(m, Attention)} == {processor}
        with torch.no_grad():
            outputs.append((modules.predict(latents, 7, lq).sample, modules.vae.encode(images).latent_dist.mean))
    for ours, theirs in zip(*outputs, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_an_unknown_kernel_is_refused_by_name(pipeline):
    with pytest.raises(ValueError, match="`attention`"):
        configure(copied(pipeline), gradient_checkpointing=False, attention="flash")


def test_where_xformers_cannot_compute_a_line_says_so(pipeline):
    error, says = (ValueError, "on CUDA only") if is_xformers_available() else (ImportError, "xformers is not installed")
    if torch.cuda.is_available() and error is ValueError:
        pytest.skip("xformers can compute here")
    with pytest.raises(error, match=says):
        configure(copied(pipeline), gradient_checkpointing=False, attention="xformers")
