"""What of diffusers' and peft's surface works on our classes: a table of checks. `docs/compatibility.md` is printed from it.

`python tests/compatibility.py > docs/compatibility.md`. `tests/test_compatibility.py` runs the checks and compares the page.
"""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    StableDiffusionXLImg2ImgPipeline,
)
from diffusers.callbacks import SDXLCFGCutoffCallback
from diffusers.models.attention_processor import AttnProcessor
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from PIL import Image
from torch import nn

from foundir_hf import FoundIRPipeline, load_pipeline
from foundir_hf.adapters.adaptir import AdaptIRConfig


@dataclass
class Kit:
    """What a check may use; pipelines may be changed, each check has its own.

    Args:
        tiny: The small configuration, random weights, no text.
        sdxl: SDXL in small with both text encoders.
        photo: A 72 x 56 picture.
        folder: An empty one.
    """

    tiny: FoundIRPipeline
    sdxl: FoundIRPipeline
    photo: Image.Image
    folder: Path


@dataclass(frozen=True)
class Entry:
    """A line of the table.

    Args:
        section: Of the page.
        name: What the user writes.
        note: What is to be known about it.
        check: Raises if it is not so. Where `refused` is set it must raise that.
        refused: The type of the error, whose message is one line and holds `says`.
        says: Part of that message.
    """

    section: str
    name: str
    note: str
    check: Callable[[Kit], None]
    refused: type[Exception] | tuple[type[Exception], ...] | None = None
    says: str = ""


TABLE: list[Entry] = []


def entry(section: str, name: str, note: str = "", refused: Any = None, says: str = "") -> Callable:
    """Puts a check into the table."""

    def add(check: Callable[[Kit], None]) -> Callable[[Kit], None]:
        TABLE.append(Entry(section, name, note, check, refused, says))
        return check

    return add


def seeded(seed: int = 0) -> torch.Generator:
    """A generator."""
    return torch.Generator().manual_seed(seed)


def restore(pipe: FoundIRPipeline, *images: Any, **options: Any) -> torch.Tensor:
    """`(results, 3, height, width)`."""
    return pipe(list(images), **{"generator": seeded(), "output_type": "pt", "num_inference_steps": 2, **options}).images


def lora(kit: Kit, component: str = "unet", targets: str = r".*resnets\.0\.conv1") -> dict[str, torch.Tensor]:
    """The state of a LoRA that changes something, put on a copy."""
    model = copy.deepcopy(getattr(kit.tiny, component))
    model.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=targets, init_lora_weights=False))
    return get_peft_model_state_dict(model)


# --- loading and saving ---------------------------------------------------------------------------------------------------------------

LOADING = "Loading and saving"


@entry(LOADING, "`FoundIRPipeline.from_pretrained(folder)`", "With the installed package's classes: no remote code, no flag.")
def _(kit: Kit) -> None:
    kit.tiny.save_pretrained(kit.folder)
    loaded = FoundIRPipeline.from_pretrained(kit.folder)
    assert type(loaded) is FoundIRPipeline
    assert type(loaded.unet) is type(kit.tiny.unet)


@entry(LOADING, '`FoundIRPipeline.from_pretrained("tiny")`', "A checkpoint that ships with the package, by its name.")
def _(kit: Kit) -> None:
    assert type(FoundIRPipeline.from_pretrained("tiny")) is FoundIRPipeline


@entry(LOADING, "`DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)`", "Without the package; the same pixels as with it.")
def _(kit: Kit) -> None:
    kit.tiny.save_pretrained(kit.folder)
    remote = DiffusionPipeline.from_pretrained(kit.folder, trust_remote_code=True)
    assert torch.equal(restore(remote, kit.photo), restore(load_pipeline(kit.folder), kit.photo))


@entry(LOADING, "`DiffusionPipeline.from_pretrained(folder)`", "Asks for the flag.", ValueError, "trust_remote_code")
def _(kit: Kit) -> None:
    kit.tiny.save_pretrained(kit.folder)
    DiffusionPipeline.from_pretrained(kit.folder)


@entry(LOADING, '`save_pretrained(folder, variant="fp16")`, `load_pipeline(folder, variant="fp16")`')
def _(kit: Kit) -> None:
    kit.tiny.save_pretrained(kit.folder, variant="fp16")
    load_pipeline(kit.folder, variant="fp16")


@entry(LOADING, "`load_pipeline(torch_dtype=, low_cpu_mem_usage=)`", "And every other argument of `from_pretrained`.")
def _(kit: Kit) -> None:
    kit.tiny.save_pretrained(kit.folder)
    assert load_pipeline(kit.folder, torch_dtype=torch.bfloat16, low_cpu_mem_usage=True).unet.dtype == torch.bfloat16


@entry(LOADING, "Options of the saved configuration", "`force_zeros_for_empty_prompt=False` comes back so.")
def _(kit: Kit) -> None:
    FoundIRPipeline(**kit.tiny.components, force_zeros_for_empty_prompt=False).save_pretrained(kit.folder)
    assert load_pipeline(kit.folder).config.force_zeros_for_empty_prompt is False


@entry(LOADING, "`FoundIRPipeline.from_pipe(pipe)`", "Shares the components.")
def _(kit: Kit) -> None:
    other = FoundIRPipeline.from_pipe(kit.tiny)
    assert all(other.components[name] is part for name, part in kit.tiny.components.items())


@entry(LOADING, "A mistyped checkpoint", "", ValueError, "Did you mean 'tiny'?")
def _(kit: Kit) -> None:
    load_pipeline("tinny")


@entry(LOADING, "`push_to_hub` without a network", "`save_pretrained` works without one.", ConnectionError, "Cannot reach")
def _(kit: Kit) -> None:
    kit.tiny.push_to_hub("nobody/nothing")


# --- running --------------------------------------------------------------------------------------------------------------------------

RUNNING = "Running the pipeline"


@entry(RUNNING, "`prompt=[...]`, `negative_prompt=[...]`", "One for all images, or one for each.")
def _(kit: Kit) -> None:
    other = kit.photo.rotate(180)
    both = restore(kit.sdxl, kit.photo, other, prompt=["a cat", "a dog"], guidance_scale=5.0)
    alone = restore(kit.sdxl, other, prompt="a dog", guidance_scale=5.0)
    torch.testing.assert_close(both[1:], alone, atol=1e-3, rtol=0)
    assert not torch.allclose(alone, restore(kit.sdxl, other, prompt="a cat", guidance_scale=5.0), atol=1e-3)


@entry(RUNNING, "`prompt_embeds=`, batched, of any precision", "Cast to that of the UNet.")
def _(kit: Kit) -> None:
    text = {"prompt_embeds": torch.randn(2, 7, 32).double(), "pooled_prompt_embeds": torch.randn(2, 16).double()}
    both = restore(kit.sdxl, kit.photo, kit.photo, **text)
    assert torch.equal(both[1:], restore(kit.sdxl, kit.photo, **{name: part[1:] for name, part in text.items()}))


@entry(RUNNING, "`encode_prompt` without text encoders", "", ValueError, "no text encoder")
def _(kit: Kit) -> None:
    kit.tiny.encode_prompt("a cat")


@entry(RUNNING, "`num_images_per_prompt=`", "Results of an image follow one another, each from other noise.")
def _(kit: Kit) -> None:
    images = restore(kit.tiny, kit.photo, kit.photo.rotate(180), num_images_per_prompt=2)
    assert len(images) == 4
    assert not torch.equal(images[0], images[1])
    assert torch.equal(images[:1], restore(kit.tiny, kit.photo))


@entry(RUNNING, "`latents=`", "The noise to start from.")
def _(kit: Kit) -> None:
    noise = torch.randn(1, 48, 8, 12, generator=seeded())
    assert torch.equal(restore(kit.tiny, kit.photo, latents=noise), restore(kit.tiny, kit.photo))


@entry(RUNNING, "`latents=` of a wrong shape", "", ValueError, "`latents` must be of shape")
def _(kit: Kit) -> None:
    restore(kit.tiny, kit.photo, latents=torch.zeros(1, 48, 4, 4))


@entry(RUNNING, '`output_type="latent"`', "Scaled; `vae.decode(latents / vae.config.scaling_factor)` is a preview without curves.")
def _(kit: Kit) -> None:
    image = torch.rand(3, 64, 96)
    latents = restore(kit.tiny, image, output_type="latent")
    preview = kit.tiny.vae.decode(latents).sample
    whole = restore(kit.tiny, image, tone="off", fidelity=0.0) * 2 - 1
    torch.testing.assert_close(preview.clamp(-1, 1), whole, atol=1e-4, rtol=0)


@entry(RUNNING, "Numbers of numpy", "`num_inference_steps=np.int64(2)`, `strength=np.float32(0.5)`.")
def _(kit: Kit) -> None:
    options = {"num_inference_steps": np.int64(2), "strength": np.float32(0.5), "upscale": np.float64(1.5)}
    assert restore(kit.tiny, kit.photo, **options).shape == (1, 3, 84, 108)


@entry(RUNNING, "A path or an address instead of an image", "", ValueError, "PIL.Image.open")
def _(kit: Kit) -> None:
    kit.tiny("photo.jpg")


@entry(RUNNING, "Training mode", "The same pixels in `train()` and `eval()`.")
def _(kit: Kit) -> None:
    before = restore(kit.tiny, kit.photo)
    for part in (kit.tiny.lq_encoder, kit.tiny.tone, kit.tiny.unet):
        part.train()
    assert torch.equal(restore(kit.tiny, kit.photo), before)


@entry(
    RUNNING, "`callback_on_step_end=`, `callback_on_step_end_tensor_inputs=`", "After each step of each image; what it returns is taken."
)
def _(kit: Kit) -> None:
    seen = []
    keep = lambda pipe, step, timestep, tensors: seen.append((step, *tensors)) or {"latents": torch.zeros_like(tensors["latents"])}  # noqa: E731
    zeroed = restore(kit.sdxl, kit.photo, callback_on_step_end=keep, callback_on_step_end_tensor_inputs=["latents", "prompt_embeds"])
    assert seen == [(0, "latents", "prompt_embeds"), (1, "latents", "prompt_embeds")]
    assert not torch.equal(zeroed, restore(kit.sdxl, kit.photo))


@entry(RUNNING, "`SDXLCFGCutoffCallback`", "diffusers' callback classes bring their tensor names.")
def _(kit: Kit) -> None:
    batches = []
    kit.sdxl.unet.register_forward_pre_hook(lambda _, args: batches.append(len(args[0])))
    restore(
        kit.sdxl,
        kit.photo,
        kit.photo,
        prompt="a",
        guidance_scale=5.0,
        callback_on_step_end=SDXLCFGCutoffCallback(0.5),
        num_inference_steps=4,
    )
    assert batches == [2, 2, 2, 1] * 2


@entry(RUNNING, "`pipe._interrupt = True` in a callback", "No further step; images after this one come back as they were.")
def _(kit: Kit) -> None:
    steps = []

    def stop(pipe, step, timestep, tensors):
        steps.append(step)
        pipe._interrupt = True
        return tensors

    image = torch.rand(3, 64, 96)
    images = restore(kit.tiny, image, image, callback_on_step_end=stop)
    assert steps == [0]
    assert torch.equal(images[1], image)


@entry(RUNNING, "Other schedulers", "Euler, for one. Those that need several steps to begin with (PNDM) fail below that number.")
def _(kit: Kit) -> None:
    kit.sdxl.scheduler = EulerDiscreteScheduler.from_config(kit.sdxl.scheduler.config)
    assert restore(kit.sdxl, kit.photo).isfinite().all()


@entry(RUNNING, '`pipe.to("cuda")` without CUDA', "torch's message.", AssertionError, "CUDA")
def _(kit: Kit) -> None:
    if torch.cuda.is_available():
        raise AssertionError("There is CUDA here.")
    kit.tiny.to("cuda")


# --- components -----------------------------------------------------------------------------------------------------------------------

COMPONENTS = "Components"


@entry(COMPONENTS, "`vae.encode`, `vae.decode`, `vae(x)`", "As `AutoencoderKL`'s.")
def _(kit: Kit) -> None:
    for vae in (kit.tiny.vae, kit.sdxl.vae):
        latents = vae.encode(torch.rand(1, 3, 32, 32)).latent_dist.mode()
        assert vae.decode(latents).sample.shape == vae(torch.rand(1, 3, 32, 32)).sample.shape == (1, 3, 32, 32)


@entry(COMPONENTS, "`sdxl`'s `vae.enable_tiling()`, `vae.enable_slicing()`", "diffusers' own; `tile_size` bounds its memory already.")
def _(kit: Kit) -> None:
    kit.sdxl.vae.enable_tiling()
    kit.sdxl.vae.enable_slicing()
    assert restore(kit.sdxl, kit.photo).isfinite().all()


@entry(COMPONENTS, "`tiny`'s `vae.enable_tiling()`", "It works block by block as it is.", NotImplementedError, "Tiling")
def _(kit: Kit) -> None:
    kit.tiny.vae.enable_tiling()


@entry(COMPONENTS, "A stock `AutoencoderKL` as `vae`", "What `sdxl` has.")
def _(kit: Kit) -> None:
    assert type(kit.sdxl.vae) is AutoencoderKL


@entry(COMPONENTS, "`enable_freeu`, `fuse_qkv_projections`", "On `sdxl`'s UNet, the experts included.")
def _(kit: Kit) -> None:
    before = restore(kit.sdxl, kit.photo)
    kit.sdxl.fuse_qkv_projections(vae=False)
    torch.testing.assert_close(restore(kit.sdxl, kit.photo), before, atol=1e-3, rtol=0)
    kit.sdxl.enable_freeu(0.9, 0.2, 1.3, 1.4)
    assert not torch.equal(restore(kit.sdxl, kit.photo), before)


@entry(COMPONENTS, "`pipe.set_attention_backend(name)`", "Every attention of every component, the spatial expert's too; no other model's.")
def _(kit: Kit) -> None:
    before = restore(kit.sdxl, kit.photo)
    kit.sdxl.set_attention_backend("_native_math")
    torch.testing.assert_close(restore(kit.sdxl, kit.photo), before, atol=1e-3, rtol=0)
    kit.sdxl.reset_attention_backend()
    assert torch.equal(restore(kit.sdxl, kit.photo), before)


@entry(COMPONENTS, "`set_attn_processor` of UNet, LQ encoder and autoencoder of `sdxl`", "The spatial expert's attention too.")
def _(kit: Kit) -> None:
    before = restore(kit.sdxl, kit.photo)
    for component in (kit.sdxl.unet, kit.sdxl.lq_encoder, kit.sdxl.vae):
        component.set_attn_processor(AttnProcessor())
    torch.testing.assert_close(restore(kit.sdxl, kit.photo), before, atol=1e-3, rtol=0)


@entry(
    COMPONENTS,
    '`enable_xformers_memory_efficient_attention()`, `set_attention_backend("xformers")` on a CPU',
    "On CUDA both reach every attention; one line where xformers was built for another PyTorch.",
    (ValueError, ModuleNotFoundError),
    "PyTorch's fused attention is in use without it",
)
def _(kit: Kit) -> None:
    kit.sdxl.enable_xformers_memory_efficient_attention()


# --- LoRA -----------------------------------------------------------------------------------------------------------------------------

LORA = "LoRA through the pipeline"


@entry(
    LORA,
    "`load_lora_weights`, `lora_state_dict`",
    "Folders, files, tensors, Hub repositories. Never a pickle.",
)
def _(kit: Kit) -> None:
    kit.tiny.save_lora_weights(kit.folder / "sub", unet_lora_layers=lora(kit), safe_serialization=True, is_main_process=True)
    before = restore(kit.tiny, kit.photo)
    kit.tiny.load_lora_weights(kit.folder, subfolder="sub", low_cpu_mem_usage=False, local_files_only=True, use_safetensors=True)
    assert not torch.equal(restore(kit.tiny, kit.photo), before)
    weights, metadata = kit.tiny.lora_state_dict(kit.folder / "sub", return_lora_metadata=True)
    assert set(weights) == {f"unet.{key}" for key in lora(kit)}
    assert isinstance(metadata, dict)
    assert kit.tiny.lora_state_dict(kit.folder / "sub", prefix="unet").keys() == weights.keys()


@entry(LORA, "`load_lora_weights(use_safetensors=False)`", "", ValueError, "pickle")
def _(kit: Kit) -> None:
    kit.tiny.load_lora_weights(kit.folder, use_safetensors=False)


@entry(LORA, "`load_lora_weights(hotswap=True)`", "Into an adapter of the same name and shape.")
def _(kit: Kit) -> None:
    first, second = lora(kit), lora(kit)
    kit.tiny.load_lora_weights({f"unet.{key}": tensor for key, tensor in first.items()}, adapter_name="a")
    before = restore(kit.tiny, kit.photo)
    kit.tiny.load_lora_weights({f"unet.{key}": tensor for key, tensor in second.items()}, adapter_name="a", hotswap=True)
    assert not torch.equal(restore(kit.tiny, kit.photo), before)


@entry(LORA, '`set_adapters("a", {"unet": 0.5})`', "Numbers by component; for the attention of a UNet by block, as in diffusers.")
def _(kit: Kit) -> None:
    before = restore(kit.tiny, kit.photo)
    kit.tiny.load_lora_weights({f"unet.{key}": tensor for key, tensor in lora(kit).items()}, adapter_name="a")
    full = restore(kit.tiny, kit.photo)
    kit.tiny.set_adapters("a", {"unet": 0.5})
    assert not torch.equal(restore(kit.tiny, kit.photo), full)
    kit.tiny.set_adapters("a", {"unet": 0})
    assert torch.equal(restore(kit.tiny, kit.photo), before)
    attention = get_peft_model_state_dict(_with_attention_lora(kit.sdxl.unet))
    kit.sdxl.load_lora_weights({f"unet.{key}": tensor for key, tensor in attention.items()}, adapter_name="b")
    whole = restore(kit.sdxl, kit.photo)
    kit.sdxl.set_adapters("b", {"unet": {"down": 0.0, "mid": 0.0, "up": 1.0}})
    assert not torch.equal(restore(kit.sdxl, kit.photo), whole)


def _with_attention_lora(unet: nn.Module) -> nn.Module:
    unet = copy.deepcopy(unet)
    unet.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=r".*attn1\.to_q", init_lora_weights=False))
    return unet


@entry(LORA, "`save_lora_weights(safe_serialization=False)`", "", ValueError, "safetensors")
def _(kit: Kit) -> None:
    kit.tiny.save_lora_weights(kit.folder, unet_lora_layers=lora(kit), safe_serialization=False)


# --- peft -----------------------------------------------------------------------------------------------------------------------------

PEFT = "AdaptIR in peft"


def adapted(**options: Any) -> Any:
    """A small network with an AdaptIR adapter, by peft."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1))
    return get_peft_model(network, AdaptIRConfig(target_modules=["2"], **options))


@entry(PEFT, "`config.peft_type`", "Behaves as a member of `PeftType`: has a `value`, and is told by the status reports.")
def _(kit: Kit) -> None:
    model = adapted()
    assert model.active_peft_config.peft_type.value == "ADAPTIR"
    assert model.get_model_status().peft_types == {"default": "ADAPTIR"}
    assert len(model.get_layer_status()) == 1


@entry(PEFT, "`layer.in_features`, `layer.out_features`", "As every tuner layer.")
def _(kit: Kit) -> None:
    layer = adapted().base_model.model[2]
    assert (layer.in_features, layer.out_features) == (16, 16)


@entry(PEFT, "Every parameter learns", "All of an adapter's get a gradient.")
def _(kit: Kit) -> None:
    model = adapted(init_weights=False)
    model(torch.randn(2, 3, 8, 8)).square().sum().backward()
    still = [name for name, parameter in model.named_parameters() if parameter.requires_grad and not parameter.grad.abs().sum() > 1e-6]
    assert not still


@entry(PEFT, "`merge_and_unload()`", "An adapter with gates is not linear: `unload()` takes it away.", ValueError, "not linear")
def _(kit: Kit) -> None:
    adapted().merge_and_unload()


# --- signatures -----------------------------------------------------------------------------------------------------------------------

# Ours, diffusers' of the same purpose, and which of its arguments ours does not take, and why.
_ELSEWHERE = "set by the checkpoint or by `scheduler`"
_TILED = "SDXL's micro-conditioning follows the tiles"
SIGNATURES: list[tuple[str, Callable, Callable, dict[str, str]]] = [
    (
        "FoundIRPipeline.__call__",
        FoundIRPipeline.__call__,
        StableDiffusionXLImg2ImgPipeline.__call__,
        {
            **dict.fromkeys(("prompt_2", "negative_prompt_2"), "one prompt serves both text encoders"),
            **dict.fromkeys(("timesteps", "sigmas", "denoising_start", "denoising_end", "eta"), _ELSEWHERE),
            **dict.fromkeys(("ip_adapter_image", "ip_adapter_image_embeds"), "the degraded image is the condition"),
            "cross_attention_kwargs": "`set_adapters` weighs adapters",
            "guidance_rescale": "guidance is optional and mild here",
            **dict.fromkeys(("original_size", "crops_coords_top_left", "target_size", "aesthetic_score"), _TILED),
            **dict.fromkeys(
                ("negative_original_size", "negative_crops_coords_top_left", "negative_target_size", "negative_aesthetic_score"), _TILED
            ),
            "clip_skip": "give `prompt_embeds` of `encode_prompt(clip_skip=)`",
            "kwargs": "arguments are named",
        },
    ),
    ("FoundIRPipeline.load_lora_weights", FoundIRPipeline.load_lora_weights, StableDiffusionXLImg2ImgPipeline.load_lora_weights, {}),
    ("FoundIRPipeline.lora_state_dict", FoundIRPipeline.lora_state_dict, StableDiffusionXLImg2ImgPipeline.lora_state_dict, {}),
    (
        "FoundIRPipeline.save_lora_weights",
        FoundIRPipeline.save_lora_weights,
        StableDiffusionXLImg2ImgPipeline.save_lora_weights,
        {
            name: "text encoders are not adapted"
            for encoder in ("text_encoder", "text_encoder_2")
            for name in (f"{encoder}_lora_layers", f"{encoder}_lora_adapter_metadata")
        },
    ),
    ("FoundIRPipeline.set_adapters", FoundIRPipeline.set_adapters, StableDiffusionXLImg2ImgPipeline.set_adapters, {}),
    ("FoundIRPipeline.fuse_lora", FoundIRPipeline.fuse_lora, StableDiffusionXLImg2ImgPipeline.fuse_lora, {}),
    ("FoundIRPipeline.encode_prompt", FoundIRPipeline.encode_prompt, StableDiffusionXLImg2ImgPipeline.encode_prompt, {}),
]


def arguments(function: Callable) -> tuple[list[str], bool]:
    """Names of a function's arguments, and whether it takes others."""
    parameters = list(inspect.signature(function).parameters.values())
    names = [p.name for p in parameters if p.name not in ("self", "cls") and p.kind is not p.VAR_POSITIONAL]
    return names, any(p.kind is p.VAR_KEYWORD for p in parameters)


def page() -> str:
    """`docs/compatibility.md`."""
    lines = [
        "# What of diffusers and peft works on our classes",
        "",
        "Printed by `python tests/compatibility.py`; every line is a check that `tests/test_compatibility.py` runs, with the versions of",
        "`constraints.txt`. *Refused* means: one line that says so, and nothing is changed.",
    ]
    for section in dict.fromkeys(row.section for row in TABLE):
        lines += ["", f"## {section}", "", "| what | | note |", "|---|---|---|"]
        for row in TABLE:
            if row.section == section:
                lines.append(f"| {row.name} | {'works' if row.refused is None else 'refused'} | {row.note} |")
    lines += ["", "## Arguments of SDXL's pipeline that ours does not take", "", "| method | argument | why |", "|---|---|---|"]
    for name, _, _, absent in SIGNATURES:
        for why in dict.fromkeys(absent.values()):
            lines.append(f"| `{name}` | {', '.join(f'`{argument}`' for argument in absent if absent[argument] == why)} | {why} |")
    lines += [
        "",
        "`load_pipeline(quantization_config=)` hands diffusers' configuration on. Tried by hand with torchao 0.18 and 8-bit weights; not",
        "among the checks, because torchao, once installed, prints warnings at every import of diffusers.",
        "",
        "IP-adapters, textual inversion and `from_single_file` are not there: the condition of this model is the degraded image.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())
