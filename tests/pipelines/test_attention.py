"""Attention kernels reach every attention, and compute the same."""

from __future__ import annotations

import copy
import os
import subprocess
import sys

import pytest
import torch
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from diffusers.utils import is_xformers_available, logging
from torch.utils._python_dispatch import TorchDispatchMode

from foundir_hf.pipelines.attention_foundir import DispatchedAttnProcessor, attentions, check_xformers
from foundir_hf.pipelines.pipeline_foundir import FoundIRPipeline

FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default


class Kernels(TorchDispatchMode):
    """Counts the calls of operators."""

    def __init__(self):
        super().__init__()
        self.calls: dict[object, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls[func] = self.calls.get(func, 0) + 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def pipe(sdxl) -> FoundIRPipeline:
    """The paper's model in small, free to be changed."""
    parts = {name: copy.deepcopy(part) for name, part in sdxl.components.items()}
    pipe = FoundIRPipeline(**parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def models(pipe: FoundIRPipeline) -> dict[str, torch.nn.Module]:
    return {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}


def restored(pipe: FoundIRPipeline, photo) -> torch.Tensor:
    return pipe(photo, generator=torch.Generator().manual_seed(0), output_type="pt").images


def test_what_is_counted_is_all_attention_of_all_components(pipe):
    names = attentions(models(pipe))
    # Two a transformer block, which are 1 and 2 deep in 2 + 2 places on the way down, 2 in the middle, 2 and 1 in 3 + 3 on the way up.
    transformer_blocks = 2 * 1 + 2 * 2 + 2 + 3 * 2 + 3 * 1
    experts = 1  # the spatial one's layer
    assert sum(name.startswith("unet.") for name in names) == 2 * transformer_blocks + experts
    assert [name for name in names if "moe" in name] == ["unet.conv_in.moe.experts.0.layers.0.attention"]
    assert [name for name in names if name.startswith("lq_encoder.")] == ["lq_encoder.encoder.mid_block.attentions.0"]
    assert sorted(name.split(".")[1] for name in names if name.startswith("vae.")) == ["decoder", "encoder"]


def test_a_backend_reaches_every_attention_and_computes_every_one_of_them(pipe, photo):
    found = attentions(models(pipe))
    used = [name for name in found if name != "vae.encoder.mid_block.attentions.0"]  # whose encoder this run does not need
    expected = restored(pipe, photo)
    pipe.set_attention_backend("_native_flash")
    assert {type(attention.processor) for attention in found.values()} == {DispatchedAttnProcessor}
    assert {attention.processor._attention_backend for attention in found.values()} == {AttentionBackendName._NATIVE_FLASH}
    with Kernels() as kernels:
        torch.testing.assert_close(restored(pipe, photo), expected, atol=1e-4, rtol=0)
    assert kernels.calls[FLASH] == len(used)
    pipe.set_attention_backend("_native_math")
    with Kernels() as kernels:
        torch.testing.assert_close(restored(pipe, photo), expected, atol=1e-4, rtol=0)
    assert FLASH not in kernels.calls
    assert _AttentionBackendRegistry._active_backend == AttentionBackendName.NATIVE  # other models of the process keep theirs
    pipe.reset_attention_backend()
    assert {type(attention.processor) for attention in found.values()} == {AttnProcessor2_0}
    assert torch.equal(restored(pipe, photo), expected)


def test_fused_projections_keep_the_backend(pipe, photo):
    expected = restored(pipe, photo)
    pipe.fuse_qkv_projections()
    pipe.set_attention_backend("_native_math")
    with Kernels() as kernels:
        torch.testing.assert_close(restored(pipe, photo), expected, atol=1e-4, rtol=0)
    assert FLASH not in kernels.calls


def test_masks_and_cross_attention_are_what_diffusers_computes():
    attention = Attention(query_dim=16, cross_attention_dim=24, heads=2, dim_head=8)
    hidden_states, context = torch.randn(2, 9, 16), torch.randn(2, 5, 24)
    mask = torch.zeros(2, 1, 5)
    mask[0, :, 3:] = -10000.0
    with torch.no_grad():
        expected = attention(hidden_states, context, mask)
        attention.set_processor(DispatchedAttnProcessor())
        torch.testing.assert_close(attention(hidden_states, context, mask), expected)
        assert not torch.allclose(attention(hidden_states, context), expected)


def test_processors_of_diffusers_reach_every_attention_of_a_component(pipe):
    for component in (pipe.unet, pipe.lq_encoder, pipe.vae):
        count = sum(isinstance(module, Attention) for module in component.modules())
        assert len(component.attn_processors) == count > 0
        component.set_attn_processor(AttnProcessor())
        assert {type(processor) for processor in component.attn_processors.values()} == {AttnProcessor}


def test_an_unknown_backend_and_one_that_is_not_here_are_refused_in_a_line(pipe, photo):
    expected = restored(pipe, photo)
    for backend, error, says in (
        ("fast", ValueError, r"`backend` must be one of .*native.*; got 'fast'\."),
        ("sage", ValueError, r"`backend` 'sage' can compute no attention here \(\d+ with heads of \d+ channels on cpu in float32\): "),
        ("_native_cudnn", ValueError, "`backend` '_native_cudnn' can compute no attention here"),
    ):
        with pytest.raises(error, match=says) as raised:
            pipe.set_attention_backend(backend)
        assert "\n" not in str(raised.value)
    assert torch.equal(restored(pipe, photo), expected)


def test_attention_that_a_backend_cannot_compute_stays_and_is_told(pipe, photo, caplog, monkeypatch):
    """Half precision has a kernel where single precision has none: flex attention, say, or flash on a GPU. Here PyTorch's own is made to
    refuse one size of heads."""
    from foundir_hf.pipelines import attention_foundir

    dispatch = attention_foundir.dispatch_attention_fn

    def refusing(query, *args, **kwargs):
        if query.shape[-1] == 24:  # the LQ encoder's
            raise RuntimeError("heads must be\nsmaller")
        return dispatch(query, *args, **kwargs)

    monkeypatch.setattr(attention_foundir, "dispatch_attention_fn", refusing)
    monkeypatch.setattr(logging.get_logger("diffusers"), "propagate", True)
    pipe.set_attention_backend("_native_math")
    (told,) = [record.getMessage() for record in caplog.records]
    assert "does not compute 1 with heads of 24 channels on cpu in float32; these stay as they are. heads must be smaller" in told
    assert type(pipe.lq_encoder.encoder.mid_block.attentions[0].processor) is AttnProcessor2_0
    assert type(pipe.vae.decoder.mid_block.attentions[0].processor) is DispatchedAttnProcessor
    assert restored(pipe, photo).isfinite().all()


@pytest.mark.skipif(torch.cuda.is_available(), reason="xformers computes on CUDA")
def test_xformers_absent_or_on_a_cpu_is_said_in_a_line_by_both_ways_to_it(pipe):
    error, says = (
        (ValueError, "xformers computes attention on CUDA only, and this is on cpu; ")
        if is_xformers_available()
        else (
            ModuleNotFoundError,
            "xformers is not installed: `pip install xformers`; ",
        )
    )
    for ask in (pipe.enable_xformers_memory_efficient_attention, lambda: pipe.set_attention_backend("xformers")):
        with pytest.raises(error) as raised:
            ask()
        assert str(raised.value) == says + "PyTorch's fused attention is in use without it."


@pytest.mark.skipif(not is_xformers_available(), reason="needs xformers")
def test_xformers_built_for_another_torch_is_one_line(caplog, monkeypatch):
    monkeypatch.setattr(logging.get_logger("diffusers"), "propagate", True)
    monkeypatch.setattr(torch, "__version__", "2.0.0+other")
    check_xformers({torch.device("cuda")})
    (told,) = [record.getMessage() for record in caplog.records]
    assert "not 2.0.0+other: its own kernels may not load" in told
    command = [sys.executable, "-m", "foundir_hf.cli", "info"]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
