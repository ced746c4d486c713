"""`FoundIRPipeline`: a degraded photograph in, a restored photograph out.

Hub code: this file is copied verbatim next to the weights, so it imports torch, diffusers, transformers and its own siblings only.
"""

from __future__ import annotations

import inspect
import json
import logging
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline, ModelMixin, SchedulerMixin, StableDiffusionXLPipeline
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.pipelines.pipeline_utils import StableDiffusionMixin
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from .attention_foundir import DispatchedAttnProcessor, check_xformers, reset_attention_backend, set_attention_backend
from .color_fix_foundir import COLOR_FIXES
from .lora_foundir import FoundIRLoraLoaderMixin
from .memory_foundir import KINDS, TILE_SIZES, MemoryPlan, parse_bytes, plan_restoration, steps_in_bands
from .tiling_foundir import TileGrid

logger = logging.getLogger(__name__)
ImageInput = PIL.Image.Image | np.ndarray | torch.Tensor
# Our components, by the file of `models` that they are in.
_OWN_CLASSES = {
    "FoundIRCosineAutoencoder": "cosine_autoencoder_foundir",
    "FoundIRLQEncoder": "lq_encoder_foundir",
    "FoundIRPyramidEncoder": "lq_encoder_foundir",
    "FoundIRToneCurves": "tone_curves_foundir",
    "FoundIRUNet2DConditionModel": "unet_foundir",
}
_HOOKS = ("_hf_hook", "_diffusers_hook")  # of accelerate's and diffusers' offloading
_INSTALLED = __package__ == "foundir_hf.pipelines"  # or beside the weights, as remote code


@dataclass
class FoundIRPipelineOutput(BaseOutput):
    """What the pipeline returns.

    Args:
        images (`list[PIL.Image.Image]`, `np.ndarray` or `torch.Tensor`): The restored images, in the order they came in. `"pil"` gives a
            list; `"np"` gives `(batch, height, width, 3)` and `"pt"` `(batch, 3, height, width)`, both in [0, 1], or lists of such arrays
            without the batch axis when the sizes differ; a single `"pt"` image may lie channels last in memory. `"latent"` gives the scaled
            latents of the denoised images in the same way: `vae.decode(latents / vae.config.scaling_factor)` is a preview of them, without
            `fidelity`, `tone`, `strength` and `color_fix`.
    """

    images: list[PIL.Image.Image] | Any  # type checkers follow the default, `output_type="pil"`


@dataclass(frozen=True)
class _Settings:
    """Those arguments of `__call__` that the restoration of every image takes."""

    num_inference_steps: int
    guidance_scale: float
    sequential_guidance: bool
    start_from: str
    fidelity: float
    tone: str
    tile_size: int | None
    tile_overlap: int
    latents_only: bool
    callback_on_step_end: Callable | None
    callback_tensor_inputs: Sequence[str]


class FoundIRPipeline(DiffusionPipeline, StableDiffusionMixin, FoundIRLoraLoaderMixin):
    """Blind image restoration by latent diffusion under the degraded image (FoundIR-v2, CVPR 2026).

    Three scopes in one direction: the LQ encoder restores pixels and hands on features and a first estimate, the denoiser restores regions
    in the latents of that estimate, the tone curves restore the whole.

    Args:
        vae ([`FoundIRCosineAutoencoder`] or [`AutoencoderKL`]): Between images and the latents that are diffused.
        lq_encoder ([`FoundIRPyramidEncoder`] or [`FoundIRLQEncoder`]): Encoder of the degraded image.
        unet ([`FoundIRUNet2DConditionModel`]): Denoiser with the MoE-driven scheduler in its stem.
        scheduler ([`SchedulerMixin`]): Of the diffusion.
        tone ([`FoundIRToneCurves`], *optional*): Exposure, haze and colour of the whole photograph.
        text_encoder, text_encoder_2, tokenizer, tokenizer_2 (*optional*): SDXL's, for prompts. A checkpoint without them takes no prompt;
            if its denoiser asks for text all the same, it gets an empty one, as in training without captions.
        force_zeros_for_empty_prompt (`bool`, *optional*, defaults to `True`): As in SDXL's pipeline.
        license_note (`str`, *optional*): Terms of the weights where they are others than this code's; saved with them, as `NOTICE` too.
    """

    model_cpu_offload_seq = "text_encoder->text_encoder_2->lq_encoder->unet->vae->tone"
    _optional_components: ClassVar[list[str]] = ["tone", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"]
    _callback_tensor_inputs: ClassVar[list[str]] = ["latents", "prompt_embeds", "add_text_embeds", "add_time_ids"]
    # What callbacks read and set, as in diffusers' pipelines.
    _guidance_scale, _num_timesteps, _interrupt = 1.0, 0, False

    # The components are annotated with base classes: a remote-code load makes new classes of ours, which must compare as equal.
    def __init__(
        self,
        vae: ModelMixin,
        lq_encoder: ModelMixin,
        unet: ModelMixin,
        scheduler: SchedulerMixin,
        tone: ModelMixin | None = None,
        text_encoder: CLIPTextModel | None = None,
        text_encoder_2: CLIPTextModelWithProjection | None = None,
        tokenizer: CLIPTokenizer | None = None,
        tokenizer_2: CLIPTokenizer | None = None,
        force_zeros_for_empty_prompt: bool = True,
        license_note: str | None = None,
    ):
        super().__init__()
        self.register_modules(
            vae=vae,
            lq_encoder=lq_encoder,
            unet=unet,
            scheduler=scheduler,
            tone=tone,
            text_encoder=text_encoder,
            text_encoder_2=text_encoder_2,
            tokenizer=tokenizer,
            tokenizer_2=tokenizer_2,
        )
        self.register_to_config(force_zeros_for_empty_prompt=force_zeros_for_empty_prompt, license_note=license_note)
        self._tiling: dict[str, int | None] = {}
        # A tenth faster on CPUs. Here, so that everybody gets the same pixels: the order of sums follows the layout.
        for component in (lq_encoder, unet):
            if not getattr(component, "is_quantized", False):
                component.to(memory_format=torch.channels_last)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Self:
        """As `DiffusionPipeline.from_pretrained`, from safetensors only. Where the package is installed its own classes are loaded, no
        remote code, and a checkpoint that ships with it (`"tiny"`) is found by its name."""
        bundled = Path(__file__).parents[1] / "checkpoints" / str(pretrained_model_name_or_path)
        if _INSTALLED and (bundled / cls.config_name).is_file():
            pretrained_model_name_or_path = bundled
        kwargs.setdefault("use_safetensors", True)
        return super().from_pretrained(str(pretrained_model_name_or_path), **kwargs)  # pyright: ignore[reportReturnType]

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs: Any) -> Self:
        """As `DiffusionPipeline.from_pipe`, which takes over only what has exactly the type of our annotations."""
        return super().from_pipe(pipeline, **{**pipeline.components, **kwargs})  # pyright: ignore[reportReturnType]

    @classmethod
    def _dict_from_json_file(cls, json_file: str | Path) -> dict[str, Any]:
        # diffusers reads the index here, which calls our classes by the files beside the weights.
        index = super()._dict_from_json_file(json_file)
        return installed_index(index, str(json_file)) if _INSTALLED else index

    _get_add_time_ids = StableDiffusionXLPipeline._get_add_time_ids

    @property
    def guidance_scale(self) -> float:
        """Of the step that is running; a callback may set `_guidance_scale`."""
        return self._guidance_scale

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Whether a step takes two forward passes."""
        return self._guidance_scale > 1

    @property
    def num_timesteps(self) -> int:
        """Steps of the image that is being denoised."""
        return self._num_timesteps

    @property
    def interrupt(self) -> bool:
        """Whether a callback has set `_interrupt`: the image that is being denoised is then finished as it is, and the images after it come
        back as they were."""
        return self._interrupt

    @property
    def tiling(self) -> dict[str, int | None]:
        """`tile_size` and `tile_overlap` that the last image was restored with: smaller than asked for where memory ran out."""
        return dict(self._tiling)

    @property
    def latent_scale_factor(self) -> int:
        """Image pixels per latent, along one side."""
        return self.lq_encoder.scale_factor

    @property
    def size_multiple(self) -> int:
        """Images are padded inside to multiples of this, so that the UNet can halve their latents."""
        return self.latent_scale_factor * 2 ** (len(self.unet.config.block_out_channels) - 1)

    def _models(self) -> dict[str, torch.nn.Module]:
        return {name: module for name, module in self.components.items() if isinstance(module, torch.nn.Module)}

    def set_attention_backend(self, backend: str) -> None:
        """Has every component compute attention by one of diffusers' backends (`"xformers"`, `"flash"`, `"_native_math"`, ...); see
        [`~attention_foundir.set_attention_backend`]. To be called where the pipeline is to run, after `to(device)`."""
        set_attention_backend(self._models(), backend)

    def reset_attention_backend(self) -> None:
        """Takes [`set_attention_backend`] back."""
        reset_attention_backend(self._models())

    def enable_xformers_memory_efficient_attention(self, attention_op: Callable | None = None) -> None:
        """As `DiffusionPipeline.enable_xformers_memory_efficient_attention`; says in a line what is missing where it cannot."""
        check_xformers({module.device for module in self._models().values()})
        super().enable_xformers_memory_efficient_attention(attention_op)

    def plan(
        self,
        width: int,
        height: int,
        device_memory: int | str | None = None,
        *,
        num_inference_steps: int = 1,
        guidance_scale: float = 1.0,
        sequential_guidance: bool = False,
        fidelity: float | None = None,
        tile_overlap: int = 128,
        device: str | None = None,
        kinds: Sequence[str] | None = None,
        tile_sizes: Sequence[int | None] | None = None,
        flops_per_second: float | None = None,
    ) -> MemoryPlan:
        """What a restoration will take, mode by mode, and the mode that fits; nothing is computed.

        Args:
            width, height (`int`): Of the result, in pixels.
            device_memory (`int` or `str`, *optional*): What may be taken, in bytes or as `"8GB"` or `"7.5GiB"`: of a GPU's memory, or of
                main memory by the whole process. By default all that a GPU has free, and no limit on a CPU.
            num_inference_steps, guidance_scale, sequential_guidance, fidelity, tile_overlap: As of the call.
            device (`str`, *optional*): `"cuda"` plans for a GPU that need not be here; by default the device that the pipeline is on.
                Weights count in the type that they have.
            kinds (`list[str]`, *optional*): Of modes, in the order of preference: `""` (tiles alone), `"fp8"` (layer-wise casting of the
                weights), `"model"`, `"group"`, `"sequential"` (diffusers' offloading). By default all; on a CPU the first two.
            tile_sizes (`list[int | None]`, *optional*): Of modes; `None` is the whole image. By default that and 256 to 2048 pixels, as
                far as the image is larger. Each takes a second or more to be counted.
            flops_per_second (`float`, *optional*): That the device was measured to do, for a column of seconds. Without it the table says
                how many times the least arithmetic a mode takes.

        Returns:
            [`MemoryPlan`]: printed, a table. `pipe(image, **plan.options)` after what `plan.call` says, if anything.

        Example:
            ```py
            >>> plan = pipe.plan(4096, 3072, "8GB")
            >>> print(plan)
            >>> restored = pipe(photo, **plan.options).images[0]
            ```
        """
        if any(hasattr(module, name) for part in self._models().values() for module in part.modules() for name in _HOOKS):
            raise ValueError("`plan` must be asked before offloading or layer-wise casting is enabled.")
        for name, value in (("width", width), ("height", height)):
            if not isinstance(value, Integral) or value < 1:
                raise ValueError(f"`{name}` must be a positive whole number, got {value!r}.")
        device = torch.device(device).type if device else self.device.type
        try:
            memory = None if device_memory is None else parse_bytes(device_memory)
        except ValueError as error:
            raise ValueError(f"`device_memory` {error}.") from None
        if memory is None and device == "cuda" and torch.cuda.is_available():
            memory = torch.cuda.mem_get_info()[0] + torch.cuda.memory_allocated()
        known = ("", "fp8") if device == "cpu" else tuple(KINDS)  # on a CPU there is nowhere to offload to
        if kinds is not None and (not kinds or not set(kinds) <= set(known)):
            raise ValueError(f"`kinds` must be of {known} on {device}, got {kinds!r}.")
        guided = guidance_scale > 1
        return plan_restoration(
            self,
            int(width),
            int(height),
            device=device,
            memory=memory,
            steps=int(num_inference_steps),
            passes=2 if guided and sequential_guidance else 1,
            batch=2 if guided and not sequential_guidance else 1,
            fidelity=float(self.unet.config.latent_residual) if fidelity is None else fidelity,
            overlap=tile_overlap,
            kinds=known if kinds is None else tuple(kinds),
            tile_sizes=(None, *TILE_SIZES) if tile_sizes is None else tuple(tile_sizes),
            flops_per_second=flops_per_second,
        )

    @torch.no_grad()
    def __call__(
        self,
        image: ImageInput | list[ImageInput],
        prompt: str | list[str] | None = None,
        negative_prompt: str | list[str] | None = None,
        upscale: float = 1.0,
        num_inference_steps: int = 1,
        guidance_scale: float = 1.0,
        sequential_guidance: bool = False,
        start_from: Literal["noise", "lq"] = "noise",
        fidelity: float | None = None,
        strength: float = 1.0,
        tone: Literal["auto", "off", "always"] = "auto",
        tile_size: int | None = 1024,
        tile_overlap: int = 128,
        color_fix: Literal["adain", "wavelet"] | None = None,
        num_images_per_prompt: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        prompt_embeds: torch.Tensor | None = None,
        pooled_prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        negative_pooled_prompt_embeds: torch.Tensor | None = None,
        output_type: Literal["pil", "np", "pt", "latent"] = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[[Any, int, int, dict[str, Any]], dict[str, Any]]
        | PipelineCallback
        | MultiPipelineCallbacks
        | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> FoundIRPipelineOutput:
        """Restores one image or several, of any size.

        Args:
            image (`PIL.Image.Image`, `np.ndarray`, `torch.Tensor`, or a list of them): Degraded images. Arrays are `(height, width, 3)`,
                `uint8`, `uint16` or floating point in [0, 1], with a leading batch axis or without; tensors are `(3, height, width)` in
                [0, 1], with a leading batch axis or without. Images of a list may differ in size; each gives what it gives alone.
            prompt, negative_prompt (`str` or `list[str]`, *optional*): What the pictures show, one for all or one for each image. Needs a
                checkpoint with text encoders.
            upscale (`float`, *optional*, defaults to 1.0): Factor in [1, 8]; the result is exactly `round(side * upscale)`.
            num_inference_steps (`int`, *optional*, defaults to 1): Denoising steps; 0 is the LQ encoder's estimate, which is the fastest.
            guidance_scale (`float`, *optional*, defaults to 1.0): Classifier-free guidance; up to 1 a step takes one forward pass, above
                it two, and prompts or prompt embeddings are needed.
            sequential_guidance (`bool`, *optional*, defaults to `False`): Whether the two passes follow one another, in the memory of one.
                Not for converted weights, whose experts look at both at once.
            start_from (`"noise"` or `"lq"`, *optional*, defaults to `"noise"`): Start from pure noise, or from the degraded image's latents
                noised to the first timestep. Where the schedule ends in pure noise (zero terminal SNR, as `tiny`'s), the two are the same.
            fidelity (`float`, *optional*): How much of what the autoencoder loses of the estimate is given back, in [0, 1]; 0 is the plain
                decoder. By default 1 where the latents are a residual to the estimate (`tiny`), else 0 (the paper's model).
            strength (`float`, *optional*, defaults to 1.0): How much of the restoration to apply, in [0, 1]: the result is
                `input + strength * (restored - input)`. 0 returns the input bit for bit (enlarged if `upscale` asks for it).
            tone (`"auto"`, `"off"` or `"always"`, *optional*, defaults to `"auto"`): Whether exposure, haze and colour of the whole are
                mended: as far as the network is sure, not at all, or however unsure it is.
            tile_size (`int` or `None`, *optional*, defaults to 1024): Longest side of the tiles that larger images are worked on in, in
                pixels of the result; `None` never tiles. Peak memory follows it more than the image, see [`plan`]. Where memory runs out
                all the same, an image is begun again in tiles of half the size, which a warning tells.
            tile_overlap (`int`, *optional*, defaults to 128): Pixels that neighbouring tiles share and blend over.
            color_fix (`"adain"`, `"wavelet"` or `None`, *optional*): Take colours from the input, see `color_fix_foundir.py`.
            num_images_per_prompt (`int`, *optional*, defaults to 1): Results for each image, from other noise each, in a row.
            generator (`torch.Generator` or a list of them, *optional*): Same seed, same bytes. One generator serves all images alike:
                every image starts from the state that the generator has on entry. A list holds one for each result.
            latents (`torch.Tensor`, *optional*): The noise to start from, `(results, channels, height / scale, width / scale)` with the
                sides padded to multiples of `size_multiple`, for images of one size.
            prompt_embeds, pooled_prompt_embeds, negative_prompt_embeds, negative_pooled_prompt_embeds (`torch.Tensor`, *optional*): As in
                SDXL's pipeline, one for all images or one for each, instead of prompts.
            output_type (`"pil"`, `"np"`, `"pt"` or `"latent"`, *optional*, defaults to `"pil"`): See [`FoundIRPipelineOutput`].
            return_dict (`bool`, *optional*, defaults to `True`): `False` returns the plain tuple `(images,)`.
            callback_on_step_end (`Callable`, *optional*): Called after each step of each image as
                `callback(pipeline, step, timestep, tensors)`; what it returns under the same names takes their place. It may set
                `pipeline._guidance_scale`, and `pipeline._interrupt`, see [`interrupt`].
            callback_on_step_end_tensor_inputs (`list[str]`, *optional*): Names of these tensors: `"latents"`, and with text also
                `"prompt_embeds"`, `"add_text_embeds"` and `"add_time_ids"` (of the first tile, to be read only).

        Returns:
            [`FoundIRPipelineOutput`].

        Example:
            ```py
            >>> from diffusers import DiffusionPipeline
            >>> from PIL import Image

            >>> pipe = DiffusionPipeline.from_pretrained("path/or/repo", trust_remote_code=True)
            >>> restored = pipe(Image.open("old.jpg")).images[0]
            ```
        """
        # 1. Check.
        images, is_batch = _as_tensors(image)
        if isinstance(callback_on_step_end, PipelineCallback | MultiPipelineCallbacks):
            callback_on_step_end_tensor_inputs = callback_on_step_end.tensor_inputs
        settings = _Settings(
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            sequential_guidance=sequential_guidance,
            start_from=start_from,
            fidelity=float(self.unet.config.latent_residual) if fidelity is None else fidelity,
            tone=tone,
            tile_size=tile_size,
            tile_overlap=tile_overlap,
            latents_only=output_type == "latent",
            callback_on_step_end=callback_on_step_end,
            callback_tensor_inputs=callback_on_step_end_tensor_inputs,
        )
        self.check_inputs(settings, upscale, strength, color_fix, num_images_per_prompt, output_type)
        results = len(images) * num_images_per_prompt
        for name, given in (("generator", generator if isinstance(generator, list) else None), ("latents", latents)):
            if given is not None and len(given) != results:
                raise ValueError(f"`{name}` must hold one for each result, {results}; got {len(given)}.")

        # 2. Encode the prompts.
        conditioning = self.encode_conditioning(
            prompt,
            negative_prompt,
            guidance_scale,
            (prompt_embeds, negative_prompt_embeds, pooled_prompt_embeds, negative_pooled_prompt_embeds),
            len(images),
        )

        # 3. Restore image by image, so that a batch gives what its images give alone.
        self._interrupt, self._tiling = False, {"tile_size": tile_size, "tile_overlap": tile_overlap}
        state = None if generator is None or isinstance(generator, list) else generator.get_state()
        restored = []
        for index, pixels in enumerate(images):
            if state is not None:
                generator.set_state(state)
            enlarged = pixels if upscale == 1 else enlarge(_light(pixels), float(upscale))
            for result in range(index * num_images_per_prompt, (index + 1) * num_images_per_prompt):
                # A copy where nothing is to be done: never the caller's own.
                if not settings.latents_only and (strength == 0 or self.interrupt):
                    restored.append(_light(enlarged).clone())
                    continue
                picture = self.restore_in_smaller_tiles(
                    enlarged,
                    conditioning[index],
                    settings,
                    generator[result] if isinstance(generator, list) else generator,
                    None if latents is None else latents[result : result + 1],
                )
                if settings.latents_only:
                    restored.append(picture)
                    continue
                if color_fix is not None:
                    picture = COLOR_FIXES[color_fix](picture, _light(enlarged)).clamp_(0, 1)
                restored.append(picture if strength == 1 else torch.lerp(_light(enlarged), picture, float(strength)))
        self.maybe_free_model_hooks()

        # 4. Hand out.
        output = _as_output(restored, output_type, is_batch)
        return FoundIRPipelineOutput(images=output) if return_dict else (output,)  # pyright: ignore[reportReturnType]

    def check_inputs(
        self, settings: _Settings, upscale: Any, strength: Any, color_fix: Any, num_images_per_prompt: Any, output_type: Any
    ) -> None:
        """Raises `ValueError` naming the argument, what arrived and what is accepted."""
        for name, value, low, high in (
            ("upscale", upscale, 1, 8),
            ("fidelity", settings.fidelity, 0, 1),
            ("strength", strength, 0, 1),
            ("guidance_scale", settings.guidance_scale, 0, 100),
        ):
            if not isinstance(value, Real) or not low <= float(value) <= high:  # NaN fails the comparison
                raise ValueError(f"`{name}` must be a number in [{low}, {high}], got {value!r}.")
        least = 1 - self.unet.config.latent_residual  # an estimate that is the degraded image would be returned as it came
        for name, value, low, high in (
            (
                "num_inference_steps",
                settings.num_inference_steps,
                least,
                self.scheduler.config.num_train_timesteps,
            ),
            ("num_images_per_prompt", num_images_per_prompt, 1, 1000),
        ):
            if not isinstance(value, Integral) or not low <= int(value) <= high:
                raise ValueError(f"`{name}` must be a whole number in [{low}, {high}], got {value!r}.")
        multiple, tile_size, tile_overlap = self.size_multiple, settings.tile_size, settings.tile_overlap
        if tile_size is not None and (not isinstance(tile_size, Integral) or tile_size < multiple or tile_size % multiple):
            raise ValueError(f"`tile_size` must be None or a positive multiple of {multiple}, got {tile_size!r}.")
        limit = tile_size or tile_overlap + 1
        if not isinstance(tile_overlap, Integral) or not 0 <= tile_overlap < limit or tile_overlap % multiple:
            raise ValueError(f"`tile_overlap` must be a multiple of {multiple} in [0, tile_size), got {tile_overlap!r}.")
        if settings.sequential_guidance and self.unet.config.moe_attend_over == "batch":
            raise ValueError("`sequential_guidance` must be False with this checkpoint, whose experts attend over the batch; got True.")
        for name, value, accepted in (
            ("start_from", settings.start_from, ("noise", "lq")),
            ("tone", settings.tone, ("auto", "off") if self.tone is None else ("auto", "off", "always")),
            ("color_fix", color_fix, (None, *COLOR_FIXES)),
            ("output_type", output_type, ("pil", "np", "pt", "latent")),
            *(
                ("callback_on_step_end_tensor_inputs", name, tuple(self._callback_tensor_inputs))
                for name in settings.callback_tensor_inputs
            ),
        ):
            if value not in accepted:
                raise ValueError(f"`{name}` must be one of {accepted}, got {value!r}.")

    def encode_prompt(self, *args, **kwargs) -> tuple[torch.Tensor | None, ...]:
        """As `StableDiffusionXLPipeline.encode_prompt`."""
        if self.text_encoder is None and self.text_encoder_2 is None:
            raise ValueError("`prompt` cannot be encoded: this checkpoint has no text encoder.")
        return StableDiffusionXLPipeline.encode_prompt(self, *args, **kwargs)  # pyright: ignore[reportArgumentType]

    def encode_conditioning(
        self,
        prompt: str | list[str] | None,
        negative_prompt: str | list[str] | None,
        guidance_scale: float,
        embeds: tuple[torch.Tensor | None, ...],
        count: int,
    ) -> list[dict[str, Any]]:
        """The text side of the denoiser's arguments for each of `count` images: of batch size 1, or 2 `[negative, positive]` under
        guidance; empty without text.

        Without text encoders and embeddings the denoiser is told what [`~FoundIRUNet2DConditionModel.empty_prompt`] says of each tile.
        """
        guided = guidance_scale > 1
        if self.text_encoder is None and self.text_encoder_2 is None:
            if prompt or negative_prompt:
                raise ValueError(f"`prompt` must be empty: this checkpoint has no text encoder, got {prompt or negative_prompt!r}.")
            if embeds[0] is None:
                if guided:
                    raise ValueError(f"`guidance_scale` must be at most 1 without prompt embeddings, got {guidance_scale}.")
                return [{}] * count
        if embeds[0] is None:
            prompts = [prompt or ""] if prompt is None or isinstance(prompt, str) else prompt
            embeds = self.encode_prompt(
                prompt=prompts,
                negative_prompt=[negative_prompt] * len(prompts) if isinstance(negative_prompt, str) else negative_prompt,
                device=self._execution_device,
                do_classifier_free_guidance=guided,
            )
        positive, negative, pooled, negative_pooled = embeds
        if guided and (negative is None or (pooled is not None and negative_pooled is None)):
            raise ValueError("`negative_prompt_embeds` (and the pooled ones) are needed beside `prompt_embeds` when `guidance_scale` > 1.")
        if len(positive) not in (1, count):
            raise ValueError(f"`prompt` must be one for all images or one for each: got {len(positive)} for {count} images.")

        def of_image(index: int, positive: torch.Tensor, negative: torch.Tensor | None) -> torch.Tensor:
            parts = [positive] if negative is None or not guided else [negative, positive]
            rows = [part[index % len(part)][None] for part in parts]
            return torch.cat(rows).to(self._execution_device, self.unet.dtype)

        conditioning: list[dict[str, Any]] = [{"encoder_hidden_states": of_image(i, positive, negative)} for i in range(count)]
        if pooled is not None:
            for index, entry in enumerate(conditioning):
                entry["text_embeds"] = of_image(index, pooled, negative_pooled)
        return conditioning

    def restore_in_smaller_tiles(
        self,
        pixels: torch.Tensor,
        conditioning: dict[str, torch.Tensor],
        settings: _Settings,
        generator: torch.Generator | None,
        noise: torch.Tensor | None,
    ) -> torch.Tensor:
        """[`restore`], begun again in tiles of half the size each time that memory runs out."""
        state = None if generator is None else generator.get_state()
        while True:
            self._tiling = {"tile_size": settings.tile_size, "tile_overlap": settings.tile_overlap}
            try:
                return self.restore(pixels, conditioning, settings, generator, noise)
            except (RuntimeError, MemoryError) as error:
                smaller = self._smaller_tiles(settings, max(pixels.shape[2:])) if is_out_of_memory(error) else None
                if smaller is None:
                    raise
            # Here, where no traceback holds what the attempt had made.
            size = "the whole image" if settings.tile_size is None else f"tiles of {settings.tile_size} pixels"
            logger.warning("Out of memory with %s: going on with tiles of %d.", size, smaller.tile_size)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if generator is not None:
                generator.set_state(state)
            settings = smaller

    def _smaller_tiles(self, settings: _Settings, longest: int) -> _Settings | None:
        """With half the tile size; `None` if it would be too small to be worth trying."""
        multiple = self.size_multiple
        size = min(longest, settings.tile_size or longest) // 2 // multiple * multiple
        if size < 4 * multiple:
            return None
        overlap = settings.tile_overlap or size // 8  # a whole image had none
        return replace(settings, tile_size=size, tile_overlap=min(overlap, size // 4) // multiple * multiple)

    def restore(
        self,
        pixels: torch.Tensor,
        conditioning: dict[str, torch.Tensor],
        settings: _Settings,
        generator: torch.Generator | None,
        noise: torch.Tensor | None,
    ) -> torch.Tensor:
        """The whole way of one image, `(1, 3, height, width)` on the CPU, and back, in [0, 1]; every stage but the last works in tiles.

        Beside `pixels`, which may be of 8 or 16 bits, there is one buffer in single precision of the image's size: the estimate, over which
        the decoded image is written, bent by the tone curves and handed out.
        """
        scale, tile_size = self.latent_scale_factor, settings.tile_size
        height, width = pixels.shape[2:]
        rows, columns = (-(-side // self.size_multiple) * self.size_multiple // scale for side in (height, width))
        grid = TileGrid(rows, columns, None if tile_size is None else tile_size // scale, settings.tile_overlap // scale)
        passes = 1 if settings.num_inference_steps == 0 else settings.num_inference_steps + 2
        with self.progress_bar(total=len(grid) * passes) as bar:
            estimate, latents = torch.zeros(1, 3, grid.height * scale, grid.width * scale), None
            lq_hidden_states = self.encode_lq(pixels, estimate, grid, bar)
            if settings.num_inference_steps:
                latents = self.denoise(estimate, lq_hidden_states, conditioning, settings, grid, pixels.shape, generator, noise, bar)
            for _ in lq_hidden_states:  # where nobody wanted them, the estimate is not made yet
                pass
            if settings.latents_only:
                if latents is not None and not self.unet.config.latent_residual:
                    return latents
                encoded = self.encode_estimate(estimate, grid)
                return encoded if latents is None else latents + encoded
            if latents is not None:
                self.decode_latents(latents, estimate, grid, settings.fidelity, bar)
            del latents
        image = estimate[..., :height, :width]
        if self.tone is not None and settings.tone != "off":
            curves = self.tone(_to_module(self.tone.thumbnail(image), self.tone, self._execution_device), settings.tone)
            if curves.any():  # a shut gate changes nothing
                self.tone.apply_curves(image, curves.to(image.device), out=image)
        return image.add_(1).div_(2).clamp_(0, 1)

    def encode_lq(self, pixels: torch.Tensor, estimate: torch.Tensor, grid: TileGrid, bar) -> Iterator[torch.Tensor]:
        """The LQ encoder on every tile: yields its features, and blends its estimate, in [-1, 1], into that of the whole padded image,
        which is zeros before and complete when all tiles have been asked for."""
        for tile in grid.tiles(self.latent_scale_factor):
            # Padded and scaled tile by tile: a second copy of a large photograph would be a fifth of all memory.
            lq = _pad_to_multiple(_light(tile.of(pixels)), self.size_multiple).mul(2).sub_(1)
            encoded = self.lq_encoder(_to_module(lq, self.lq_encoder, self._execution_device))
            tile.of(estimate).add_(encoded.estimate.float().cpu() * tile.weight)
            bar.update()
            yield encoded.lq_hidden_states

    def encode_estimate(self, estimate: torch.Tensor, grid: TileGrid) -> torch.Tensor:
        """Scaled latents of the whole estimate, tile by tile, blended."""
        device = self._execution_device
        latents = torch.zeros(1, self.unet.config.in_channels, grid.height, grid.width, device=device)
        for tile, blend in zip(grid.tiles(self.latent_scale_factor), grid.tiles(device=device), strict=True):
            blend.of(latents).add_(encode_latents(self.vae, _to_module(tile.of(estimate), self.vae, device)) * blend.weight)
        return latents

    def denoise(
        self,
        estimate: torch.Tensor,
        lq_hidden_states: Iterable[torch.Tensor],
        conditioning: dict[str, torch.Tensor],
        settings: _Settings,
        grid: TileGrid,
        image_shape: torch.Size,
        generator: torch.Generator | None,
        noise: torch.Tensor | None,
        bar,
    ) -> torch.Tensor:
        """The diffusion: clean latents of the whole image, `(1, channels, height / scale, width / scale)`.

        A single step takes each tile's features as the LQ encoder makes them; those of all tiles would be a third of the memory. They are
        gathered for several steps, for latents of the estimate to start from, and where models take turns on the device.
        """
        self.scheduler.set_timesteps(int(settings.num_inference_steps), device=self._execution_device)
        timesteps = self.scheduler.timesteps
        starts_from_noise = settings.start_from == "noise" or self.unet.config.latent_residual
        if len(timesteps) > 1 or not starts_from_noise or getattr(self, "_all_hooks", None):
            lq_hidden_states = _gathered(lq_hidden_states, len(grid)).split(1)
        latents = self.prepare_latents(estimate, grid, timesteps[:1], settings.start_from, generator, noise)
        self._guidance_scale, self._num_timesteps = settings.guidance_scale, len(timesteps)
        # Those that draw noise on the way (LCM, stochastic DPM++, ancestral Euler) draw it from here.
        drawing = {"generator": generator} if "generator" in inspect.signature(self.scheduler.step).parameters else {}
        for index, timestep in enumerate(timesteps):
            if self.interrupt:
                break
            prediction = self.predict_noise(
                latents, timestep, lq_hidden_states, conditioning, grid, image_shape, bar, settings.sequential_guidance
            )
            latents = self._step(prediction, timestep, latents, drawing)
            del prediction
            if settings.callback_on_step_end is not None:
                held = {
                    "latents": latents,
                    "prompt_embeds": conditioning.get("encoder_hidden_states"),
                    "add_text_embeds": conditioning.get("text_embeds"),
                }
                if "text_embeds" in conditioning:
                    held["add_time_ids"] = self._time_ids(image_shape, next(grid.tiles()), conditioning["text_embeds"])
                given = {name: held.get(name) for name in settings.callback_tensor_inputs}
                held |= settings.callback_on_step_end(self, index, timestep, given) or {}
                latents = held["latents"]
                texts = {"encoder_hidden_states": held["prompt_embeds"], "text_embeds": held["add_text_embeds"]}
                conditioning = {name: text for name, text in texts.items() if text is not None}
        return latents

    def _step(self, prediction: torch.Tensor, timestep: torch.Tensor, latents: torch.Tensor, drawing: dict[str, Any]) -> torch.Tensor:
        """The scheduler's step; written over the prediction, in bands of rows, where it can be."""
        if not steps_in_bands(self.scheduler):
            return self.scheduler.step(prediction, timestep, latents, return_dict=False, **drawing)[0]
        for band, before in zip(prediction.split(64, dim=2), latents.split(64, dim=2), strict=True):
            band.copy_(self.scheduler.step(band, timestep, before, return_dict=False, **drawing)[0])
        return prediction

    def prepare_latents(
        self,
        estimate: torch.Tensor,
        grid: TileGrid,
        first_timestep: torch.Tensor,
        start_from: str,
        generator: torch.Generator | None,
        noise: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Latents of the whole image at the first timestep, `(1, channels, height / scale, width / scale)`, from `noise` if it is given."""
        device = self._execution_device
        shape = (1, self.unet.config.in_channels, grid.height, grid.width)
        if noise is None:
            noise = randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
        elif noise.shape != shape:
            raise ValueError(f"`latents` must be of shape {('results', *shape[1:])} for this image, got {('results', *noise.shape[1:])}.")
        noise = noise.to(device, torch.float32)
        if start_from == "noise":
            return noise * self.scheduler.init_noise_sigma
        # The estimate's own residual is none.
        latents = torch.zeros_like(noise) if self.unet.config.latent_residual else self.encode_estimate(estimate, grid)
        return self.scheduler.add_noise(latents, noise, first_timestep)

    def predict_noise(
        self,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        lq_hidden_states: Iterable[torch.Tensor],
        conditioning: dict[str, torch.Tensor],
        grid: TileGrid,
        image_shape: torch.Size,
        bar,
        sequential: bool = False,
    ) -> torch.Tensor:
        """The denoiser's prediction for the whole image: tiles' predictions blended, so that the scheduler steps once for all."""
        guided = self.do_classifier_free_guidance
        if not guided:  # a callback may have ended the guidance
            conditioning = {name: text[-1:] for name, text in conditioning.items()}
        model_input = self.scheduler.scale_model_input(latents, timestep)
        prediction = torch.zeros_like(latents)
        for tile, lq_tile in zip(grid.tiles(device=latents.device), lq_hidden_states, strict=True):
            sample = tile.of(model_input).to(self.unet.dtype)
            lq_tile = lq_tile.to(self.unet.dtype)
            if conditioning:
                kwargs: dict[str, Any] = {"encoder_hidden_states": conditioning["encoder_hidden_states"]}
            else:
                kwargs = self.unet.empty_prompt(1, *(side * self.latent_scale_factor for side in sample.shape[2:]))
            if "text_embeds" in conditioning:
                kwargs["added_cond_kwargs"] = {
                    "text_embeds": conditioning["text_embeds"],
                    "time_ids": self._time_ids(image_shape, tile, conditioning["text_embeds"]),
                }
            # All rows of the batch in one pass, or each in its own.
            rows = [slice(0, 1), slice(1, 2)] if guided and sequential else [slice(0, 2) if guided else slice(0, 1)]
            output = torch.cat([self._predict_rows(row, sample, timestep, lq_tile, kwargs) for row in rows])
            if guided:
                negative, positive = output.chunk(2)
                output = negative + self.guidance_scale * (positive - negative)
            tile.of(prediction).add_(output * tile.weight)
            bar.update()
        return prediction

    def _predict_rows(
        self, rows: slice, sample: torch.Tensor, timestep: torch.Tensor, lq_hidden_states: torch.Tensor, text: dict[str, Any]
    ) -> torch.Tensor:
        """The denoiser on these rows of the text, the same latents and features beside each."""
        count = rows.stop - rows.start
        added = text.get("added_cond_kwargs")
        text = {name: value[rows] for name, value in text.items() if name != "added_cond_kwargs"}
        if added is not None:
            text["added_cond_kwargs"] = {name: value[rows] for name, value in added.items()}
        if count > 1:
            sample, lq_hidden_states = sample.repeat(count, 1, 1, 1), lq_hidden_states.repeat(count, 1, 1, 1)
        return self.unet(sample, timestep, lq_hidden_states=lq_hidden_states, **text).sample.float()

    def _time_ids(self, image_shape: torch.Size, tile, text_embeds: torch.Tensor) -> torch.Tensor:
        """SDXL's micro-conditioning: size of the image, where the tile was cropped (in pixels, as in training), size of the tile."""
        scale = self.latent_scale_factor
        crop = (tile.rows.start * scale, tile.columns.start * scale)
        tile_size = ((tile.rows.stop - tile.rows.start) * scale, (tile.columns.stop - tile.columns.start) * scale)
        # Float, for half precision counts no further than 2048.
        ids = self._get_add_time_ids(
            tuple(image_shape[2:]), crop, tile_size, dtype=torch.float, text_encoder_projection_dim=text_embeds.shape[-1]
        )
        return ids.to(text_embeds.device).repeat(len(text_embeds), 1)

    def decode_latents(self, latents: torch.Tensor, estimate: torch.Tensor, grid: TileGrid, fidelity: float, bar) -> None:
        """Latents -> image in [-1, 1] on the CPU, tile by tile, blended; it is written over `estimate`, row of tiles by row."""
        device, scale = self._execution_device, self.latent_scale_factor
        # What is not complete yet: from row `top` on, as high as the tiles are.
        band, top = torch.zeros_like(estimate[..., : grid.row_spans[0][1] * scale, :]), 0
        for tile, blend in zip(grid.tiles(device=device), grid.tiles(scale), strict=True):
            if complete := blend.rows.start - top:  # rows that no tile from here on reaches
                estimate[..., top : blend.rows.start, :] = band[..., :complete, :]
                band[..., :-complete, :] = band[..., complete:, :].clone()
                band[..., -complete:, :] = 0
                top = blend.rows.start
            pixels, part = (_to_module(tensor, self.vae, device) for tensor in (blend.of(estimate), tile.of(latents)))
            decoded = self.decode_tile(part, pixels, fidelity)
            band[..., blend.columns].add_(decoded.float().cpu() * blend.weight)
            bar.update()
        estimate[..., top:, :] = band

    def decode_tile(self, latents: torch.Tensor, estimate: torch.Tensor, fidelity: float) -> torch.Tensor:
        """Latents and estimate of a tile, as the autoencoder takes them -> its image in [-1, 1]; see [`decode_latents`]."""
        return decode_latents(self.vae, latents, estimate, residual=self.unet.config.latent_residual, fidelity=fidelity)

    def save_pretrained(self, save_directory: str | Path, *args, **kwargs) -> None:
        """As `DiffusionPipeline.save_pretrained`; refuses a pipeline with adapters, whose weights have other names."""
        if adapted := [name for name, module in self.components.items() if getattr(module, "peft_config", {})]:
            raise ValueError(
                f"{', '.join(adapted)}: adapters are saved by themselves. Call `fuse_lora()` and then `unload_lora_weights()` to save a "
                "pipeline that has them in its weights, or `unload_lora_weights()` alone to save it without."
            )
        super().save_pretrained(save_directory, *args, **kwargs)

    def save_config(self, save_directory: str | Path, push_to_hub: bool = False, **kwargs) -> None:
        """Writes `model_index.json` and, beside it and beside our components' weights, the source files that load them.

        `save_pretrained` calls this last, before it uploads; so what is pushed is what was saved. The source is found through `inspect`, so
        a pipeline that was itself loaded as remote code saves a working folder too.
        """
        super().save_config(save_directory, push_to_hub=push_to_hub, **kwargs)
        folder = Path(save_directory)
        index_path = folder / self.config_name
        index = json.loads(index_path.read_text(encoding="utf-8"))
        own_source = Path(inspect.getsourcefile(type(self)))
        index["_class_name"] = [own_source.stem, type(self).__name__]
        sources = {folder / own_source.name: own_source}
        for helper in (TileGrid, COLOR_FIXES["adain"], FoundIRLoraLoaderMixin, DispatchedAttnProcessor, MemoryPlan):
            source = Path(inspect.getsourcefile(helper))
            sources[folder / source.name] = source
        for name, component in self.components.items():
            if not type(component).__module__.endswith("_foundir"):  # a library's
                continue
            source = Path(inspect.getsourcefile(sys.modules[type(component).__module__]))
            index[name] = [source.stem, type(component).__name__]
            sources[folder / name / source.name] = source
        for target, source in sources.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.resolve() != source.resolve():
                shutil.copyfile(source, target)
        index_path.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        if self.config.license_note:
            (folder / "NOTICE").write_text(self.config.license_note.strip() + "\n", encoding="utf-8")
        for path in (index_path, *folder.glob("*/config.json")):
            config = json.loads(path.read_text(encoding="utf-8"))
            if config.pop("_name_or_path", None) is not None:  # a path of this machine
                path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def installed_index(index: dict[str, Any], origin: str) -> dict[str, Any]:
    """A checkpoint's index with the installed package's modules in place of files beside the weights.

    Args:
        index: `model_index.json`.
        origin: Where it is from, for messages.

    Raises:
        ValueError: If it is not of this pipeline, of version 0.1, or asks for classes of other libraries.
    """
    held = index.get("_class_name")  # a name, or a file of ours and a name
    held = held[-1] if isinstance(held, list) else held
    if held != FoundIRPipeline.__name__:
        raise ValueError(f"{origin!r} must hold a {FoundIRPipeline.__name__}, got {held}.")
    if "FoundIRAutoencoderKL" in index.get("vae", ()):
        raise ValueError(f"{origin!r} is of foundir_hf 0.1, whose commit 04d752d reads it.")
    installed = {**index, "_class_name": held}
    for name, entry in index.items():
        if name.startswith("_") or not isinstance(entry, list) or entry[1] is None:
            continue
        library, class_name = entry
        if class_name in _OWN_CLASSES:
            # Imported here: diffusers loads from modules that somebody has imported, never because an index names them.
            module = import_module(f"..models.{_OWN_CLASSES[class_name]}", __package__)
            installed[name] = [module.__name__, class_name]
        elif library not in ("diffusers", "transformers"):
            raise ValueError(f"{origin!r} asks for {library}.{class_name}, which this package does not know.")
    return installed


def encode_latents(vae: ModelMixin, images: torch.Tensor) -> torch.Tensor:
    """Images `(batch, 3, height, width)` in [-1, 1] -> scaled latents, in single precision."""
    return vae.encode(images).latent_dist.mode().float() * vae.config.scaling_factor


def decode_latents(vae: ModelMixin, latents: torch.Tensor, estimate: torch.Tensor, *, residual: bool, fidelity: float) -> torch.Tensor:
    """`D(z) + fidelity * (estimate - D(E(estimate)))`: what the autoencoder cannot hold of the estimate passes around it.

    Args:
        vae: The autoencoder, `E` and `D`.
        latents (`torch.Tensor`): Scaled; `z`, or what is missing between `E(estimate)` and `z`.
        estimate (`torch.Tensor` of shape `(batch, 3, height, width)`): In [-1, 1].
        residual (`bool`): Which of the two the latents are.
        fidelity (`float`): In [0, 1].

    Returns:
        Images `(batch, 3, height, width)`.
    """
    encoded = encode_latents(vae, estimate) if residual or fidelity else 0
    image = vae.decode(((latents + encoded if residual else latents) / vae.config.scaling_factor).to(vae.dtype)).sample
    if fidelity:
        image = image + fidelity * (estimate - vae.decode((encoded / vae.config.scaling_factor).to(vae.dtype)).sample)
    return image


def _gathered(features: Iterable[torch.Tensor], count: int) -> torch.Tensor:
    """So many tiles' features as one batch. One block: small ones that stay, between large ones that go, would break the memory of a large
    photograph to pieces."""
    block = torch.empty(0)
    for index, tile in enumerate(features):
        if index == 0:
            block = tile.new_empty(count, *tile.shape[1:])
        block[index] = tile[0]
    return block


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that an allocation failed; of main memory PyTorch says it in words only."""
    said = ("out of memory", "not enough memory", "allocate memory", "ALLOC_FAILED", "bad_alloc")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in said)
    )


def enlarge(pixels: torch.Tensor, upscale: float, *, limit: bool = True) -> torch.Tensor:
    """Bicubic enlargement of `(batch, channels, height, width)` to exactly `round(side * upscale)`; the same tensor if there is none.
    What overshoots [0, 1] is cut off unless `limit` says otherwise."""
    if upscale == 1:
        return pixels
    size = [max(1, round(side * upscale)) for side in pixels.shape[2:]]
    larger = F.interpolate(pixels, size=size, mode="bicubic", align_corners=False)
    return larger.clamp_(0, 1) if limit else larger


def _pad_to_multiple(pixels: torch.Tensor, multiple: int) -> torch.Tensor:
    """Mirrors the right and bottom edge outwards; what is too small to be mirrored is repeated."""
    for _ in range(2):
        height, width = pixels.shape[2:]
        missing_h, missing_w = -height % multiple, -width % multiple
        if missing_h < height and missing_w < width:
            return F.pad(pixels, (0, missing_w, 0, missing_h), mode="reflect")
        pixels = F.pad(pixels, (0, missing_w if missing_w >= width else 0, 0, missing_h if missing_h >= height else 0), mode="replicate")
    return pixels


def _to_module(tensor: torch.Tensor, module: ModelMixin, device: torch.device) -> torch.Tensor:
    return tensor.to(device, module.dtype)


def _as_tensors(image: ImageInput | list[ImageInput]) -> tuple[list[torch.Tensor], bool]:
    """Any accepted input -> tensors `(1, 3, height, width)` on the CPU, in [0, 1] or of 8 or 16 bits, and whether it was one batch."""
    if isinstance(image, list | tuple):
        tensors = [_as_tensor(entry, f"image[{i}]") for i, entry in enumerate(image)]
        if any(len(t) != 1 for t in tensors):
            raise ValueError("`image` must not be a list of batches; pass a list of single images or one batch.")
        is_batch = False
    else:
        batch = _as_tensor(image, "image")
        tensors, is_batch = list(batch.split(1)), getattr(image, "ndim", 3) == 4
    if not tensors:
        raise ValueError("`image` must hold at least one image, got an empty list or batch.")
    return tensors, is_batch


def _as_tensor(image: ImageInput, name: str) -> torch.Tensor:
    if isinstance(image, PIL.Image.Image):
        image = np.array(image.convert("RGB"))
    if isinstance(image, np.ndarray):
        # Read and never written; but PyTorch wants to be allowed to write, and knows no steps backwards.
        held = image if image.flags.writeable and min(image.strides, default=1) > 0 else image.copy()
        tensor = torch.from_numpy(held)
        tensor = tensor.movedim(-1, -3) if tensor.ndim in (3, 4) else tensor
        tensor = tensor if image.dtype in (np.uint8, np.uint16) else tensor.float()
        layout = "(height, width, 3)"
    elif isinstance(image, torch.Tensor):
        if not image.is_floating_point():
            raise ValueError(f"`{name}` must be a floating point tensor in [0, 1], got {image.dtype}.")
        tensor = image.detach().float().cpu()
        layout = "(3, height, width)"
    else:
        hint = f": PIL.Image.open({str(image)!r}) opens a file" if isinstance(image, str | Path) else ""
        raise ValueError(f"`{name}` must be a PIL image, an array or a tensor, got {type(image).__name__}{hint}.")
    if tensor.ndim == 3:
        tensor = tensor[None]
    if tensor.ndim != 4 or tensor.shape[1] != 3 or 0 in tensor.shape[2:]:
        raise ValueError(f"`{name}` must be {layout} or a batch of that, got shape {tuple(image.shape)}.")
    if tensor.is_floating_point() and not (tensor.amin() >= 0 and tensor.amax() <= 1):  # NaN fails too
        raise ValueError(f"`{name}` must hold finite numbers in [0, 1].")
    return tensor


def _light(pixels: torch.Tensor) -> torch.Tensor:
    """Numbers of 8 or 16 bits as light in [0, 1], in single precision; light as it is."""
    return pixels if pixels.is_floating_point() else pixels.float().div_(torch.iinfo(pixels.dtype).max)


def _as_output(restored: list[torch.Tensor], output_type: str, is_batch: bool):
    if output_type == "pil":
        return [PIL.Image.fromarray((t[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()) for t in restored]
    if output_type == "np":
        arrays = [t[0].permute(1, 2, 0).numpy() for t in restored]
        return np.stack(arrays) if is_batch or len({a.shape for a in arrays}) == 1 else arrays
    same_size = len({t.shape for t in restored}) == 1
    if len(restored) == 1:
        return restored[0]  # a copy of a large photograph would be a third of its memory
    return torch.cat(restored) if is_batch or same_size else [t[0] for t in restored]
