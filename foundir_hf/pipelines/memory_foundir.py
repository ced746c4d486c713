"""What a restoration will take, before it is run: peak memory and arithmetic of each mode to run it in, and the mode that fits.

The components are run on tensors without contents (PyTorch's fake tensors) at the size of a tile, while every block of memory that they
make is counted until it is let go: it takes no memory, and a second or two for a new size. The buffers around them are those of
[`FoundIRPipeline.restore`], the weights those that diffusers' own offloading and casting keep on the device.

Hub code: this file is copied verbatim next to the pipeline, so it imports torch and diffusers only.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .tiling_foundir import TileGrid

TILE_SIZES = (2048, 1536, 1024, 768, 512, 384, 256)
# Kinds of modes, what costs least time first, and how to have them.
KINDS = {
    "": "",
    "fp8": "for part in (pipe.unet, pipe.lq_encoder): part.enable_layerwise_casting(torch.float8_e4m3fn, part.dtype)",
    "model": "pipe.enable_model_cpu_offload()",
    "group": 'pipe.enable_group_offload(torch.device("cuda"), num_blocks_per_group=1)',
    "sequential": "pipe.enable_sequential_cpu_offload()",
}
_CAST = ("unet", "lq_encoder")  # under "fp8"
# Latents that a scheduler's step holds at once: the sample, the prediction, the clean sample, its noise, the direction, their sum.
_SCHEDULER_LATENTS = 6
# What Python, PyTorch, diffusers and transformers take of main memory before there are weights.
LIBRARIES = 490 * 2**20


@dataclass(frozen=True)
class Mode:
    """A mode to run a restoration in.

    Args:
        tile_size: Of the pipeline's call; `None` is the whole image at once.
        kind: One of [`KINDS`]: `""`, layer-wise fp8, or diffusers' offloading of models, groups or layers.
        tiles: How many there are.
        peak: Bytes on the device at most, weights included. On a CPU, where all memory is one: of the process, with images and libraries.
        flops: Floating point operations; what tiles cost, by their overlaps, in time.
    """

    tile_size: int | None
    kind: str
    tiles: int
    peak: int
    flops: float

    @property
    def name(self) -> str:
        """For tables."""
        size = "whole" if self.tile_size is None else f"tiles of {self.tile_size}"
        return size + {"": "", "fp8": ", fp8 weights"}.get(self.kind, f", {self.kind} offload")


@dataclass(frozen=True)
class MemoryPlan:
    """All modes, and the one that was picked; printed, a table and a sentence.

    Args:
        width, height: Of the result, in pixels.
        device: Kind of device that it is for.
        memory: Bytes that may be taken, if there is a limit.
        modes: Kind by kind, and of each the largest tiles first.
        chosen: Of the first kind that fits, the mode with the least arithmetic; none if none fits.
        flops_per_second: Measured, for the column of seconds.
    """

    width: int
    height: int
    device: str
    memory: int | None
    modes: tuple[Mode, ...]
    chosen: Mode | None
    flops_per_second: float | None = None

    @property
    def options(self) -> dict[str, Any]:
        """For the pipeline's call: `tile_size`, and no overlap where there are no tiles. Raises `ValueError` if nothing fits."""
        if self.chosen is None:
            least = min(self.modes, key=lambda mode: mode.peak)
            raise ValueError(
                f"`device_memory` {_gib(self.memory or 0)} is too little for {self.width} x {self.height} pixels: {least.name} take "
                f"{_gib(least.peak)}."
            )
        return {"tile_size": self.chosen.tile_size} | ({"tile_overlap": 0} if self.chosen.tile_size is None else {})

    @property
    def call(self) -> str:
        """What to call before, Python code; empty if nothing."""
        return KINDS[self.chosen.kind] if self.chosen else ""

    def __str__(self) -> str:
        least = min(mode.flops for mode in self.modes)
        rows = [("mode", "tiles", "peak", "work", *(["seconds"] if self.flops_per_second else []), "")]
        for mode in self.modes:
            verdict = "chosen" if mode is self.chosen else "too much" if self.memory is not None and mode.peak > self.memory else ""
            seconds = [f"{mode.flops / self.flops_per_second:.1f}"] if self.flops_per_second else []
            rows.append((mode.name, str(mode.tiles), _gib(mode.peak), f"{mode.flops / least:.2f}", *seconds, verdict))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        table = ["  ".join([cells[0].ljust(widths[0]), *map(str.rjust, cells[1:-1], widths[1:-1]), cells[-1]]).rstrip() for cells in rows]
        allowed = "no limit was given" if self.memory is None else f"{_gib(self.memory)} may be taken"
        told = "none of these fits"
        if self.chosen is not None:
            told = f"{self.chosen.name}: of what fits, what moves the fewest weights and, among those, computes least"
        call = [f"Before: {self.call}"] if self.call else []
        return "\n".join([f"{self.width} x {self.height} pixels, {self.device}", *table, f"{allowed}; {told}.", *call])


def plan_restoration(
    pipeline: Any,
    width: int,
    height: int,
    *,
    device: str,
    memory: int | None,
    steps: int,
    passes: int,
    batch: int,
    fidelity: float,
    overlap: int,
    kinds: tuple[str, ...],
    tile_sizes: tuple[int | None, ...],
    flops_per_second: float | None,
) -> MemoryPlan:
    """See [`~FoundIRPipeline.plan`]. A step takes `passes` passes of `batch` rows; `kinds` are of [`KINDS`]."""
    fit = [s for s in tile_sizes if s is None or (overlap < s < max(width, height) and s % pipeline.size_multiple == 0)]
    if not fit:
        raise ValueError(f"`tile_sizes` must have one between the overlap, {overlap}, and {width} x {height} pixels, got {tile_sizes}.")
    image = _Image(pipeline, width, height, device, steps, passes, batch, fidelity)
    modes = tuple(image.mode(size, overlap, kind) for kind in kinds for size in fit)
    fitting = [mode for mode in modes if memory is None or mode.peak <= memory]
    chosen = min(fitting, key=lambda mode: (kinds.index(mode.kind), mode.flops), default=None)
    return MemoryPlan(width, height, device, memory, modes, chosen, flops_per_second)


@dataclass
class _Image:
    """An image to be restored by so many steps, each of so many passes of so many rows."""

    pipeline: Any
    width: int
    height: int
    device: str
    steps: int
    passes: int
    batch: int
    fidelity: float
    counted: dict[tuple[int, int], dict[str, Count]] = field(default_factory=dict)

    def mode(self, size: int | None, overlap: int, kind: str) -> Mode:
        """What one mode takes."""
        pipeline, scale, multiple = self.pipeline, self.pipeline.latent_scale_factor, self.pipeline.size_multiple
        rows, columns = (-(-side // multiple) * multiple // scale for side in (self.height, self.width))
        grid = TileGrid(rows, columns, size and size // scale, overlap // scale if size else 0)
        tile = (grid.row_spans[0][1], grid.column_spans[0][1])
        stages = self._stages(tile)
        pixels, area = rows * columns * scale**2, tile[0] * tile[1]
        # On the device for the whole image: latents, and the tiles' features, of several steps until the last is done.
        latents = 4 * pipeline.unet.config.in_channels * rows * columns
        # A single step takes the features tile by tile, unless models take turns on the device.
        interleaved = self.steps == 1 and kind != "model"
        features = len(grid) * area * pipeline.unet.config.lq_channels * pipeline.lq_encoder.dtype.itemsize
        if self.steps == 0 or interleaved:
            features = 0
        tile_light = 4 * 3 * area * scale**2
        # Of main memory: the picture with 8 bits, the estimate, over which the result is written, and bands of rows of it.
        picture, estimate = 3 * pixels, 4 * 3 * pixels
        band = 4 * 3 * tile[0] * scale * columns * scale
        curves = 4 * 3 * 9 * min(256, self.height) * self.width if pipeline.tone is not None else 0
        held = {name: self._weights(name, kind) for name in ("lq_encoder", "unet", "vae")}
        on_device = {
            "encode": (held["lq_encoder"] + features + stages["encode"].peak + (2 * latents if interleaved else 0), 2 * tile_light),
            "decode": (held["vae"] + latents + stages["decode"].peak, band + max(band, tile_light)),
            "tone": (held["vae"], curves),
        }
        for name in ("text_encoder", "text_encoder_2"):
            if getattr(pipeline, name) is not None:
                on_device[name] = (self._weights(name, kind), 0)
        flops = stages["encode"].flops
        if self.steps:
            at_once = 2 if steps_in_bands(pipeline.scheduler) else _SCHEDULER_LATENTS
            step = max(2 * latents + stages["denoise"].peak, at_once * latents)
            on_device["denoise"] = (held["unet"] + features + step, 0)
            flops += stages["decode"].flops + self.steps * self.passes * stages["denoise"].flops
        else:
            del on_device["decode"]
        if self.device == "cpu":
            peak = LIBRARIES + picture + estimate + max(map(sum, on_device.values()))
        else:
            peak = max(bytes_ for bytes_, _ in on_device.values())
        return Mode(size, kind, len(grid), int(peak), float(len(grid) * flops))

    def _stages(self, tile: tuple[int, int]) -> dict[str, Count]:
        """What each stage takes on a tile of so many latents, above weights."""
        pipeline, scale = self.pipeline, self.pipeline.latent_scale_factor
        unet, vae, encoder = pipeline.unet, pipeline.vae, pipeline.lq_encoder

        def empty(module: torch.nn.Module, channels: int, enlarged: int = 1, rows: int = 1) -> torch.Tensor:
            return torch.empty(rows, channels, tile[0] * enlarged, tile[1] * enlarged, dtype=module.dtype, device=module.device)

        def encode() -> None:
            encoder(empty(encoder, 3, scale))

        def denoise() -> None:
            rows = self.batch
            text = unet.empty_prompt(rows, tile[0] * scale, tile[1] * scale)
            features = empty(unet, unet.config.lq_channels, rows=rows)
            unet(empty(unet, unet.config.in_channels, rows=rows), 1, lq_hidden_states=features, **text).sample.float()

        def decode() -> None:
            pixels, latents = empty(vae, 3, scale), empty(vae, unet.config.in_channels)
            pipeline.decode_tile(latents, pixels, self.fidelity)

        stages = {"encode": encode, "decode": decode} | ({"denoise": denoise} if self.steps else {})
        if tile not in self.counted:
            self.counted[tile] = {name: count(stage) for name, stage in stages.items()}
        return self.counted[tile]

    def _weights(self, running: str, kind: str) -> int:
        """Bytes of weights that are on the device while a component runs."""
        models = {name: part for name, part in self.pipeline.components.items() if isinstance(part, torch.nn.Module)}
        if kind == "model":
            return nbytes(models[running])
        if kind == "sequential":  # a layer at a time
            return max(own_nbytes(layer) for layer in models[running].modules())
        if kind == "group":  # a block at a time, and what is in no block
            lists = [part for part in models[running].children() if isinstance(part, torch.nn.ModuleList | torch.nn.Sequential)]
            blocks = [nbytes(block) for part in lists for block in part]
            return nbytes(models[running]) - sum(blocks) + max(blocks, default=0)
        if kind == "fp8":  # all, and a layer as it computes
            cast = sum(cast_nbytes(part) if name in _CAST else nbytes(part) for name, part in models.items())
            return cast + (max(own_nbytes(layer) for layer in models[running].modules()) if running in _CAST else 0)
        return sum(map(nbytes, models.values()))


def steps_in_bands(scheduler: Any) -> bool:
    """Whether a scheduler draws and remembers nothing and takes each number by itself, so that bands of rows of the latents can be stepped
    one by one, without its intermediate results for the whole image."""
    return isinstance(scheduler, DDIMScheduler) and not scheduler.config.thresholding


def nbytes(module: torch.nn.Module) -> int:
    """Of a module's weights and buffers."""
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))


def own_nbytes(module: torch.nn.Module) -> int:
    """Of those that are not its children's."""
    return sum(tensor.nbytes for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)))


def cast_nbytes(module: torch.nn.Module) -> int:
    """Of a component under diffusers' layer-wise casting to 8 bits, which leaves norms and what is no usual layer alone."""
    from diffusers.hooks._common import _GO_LC_SUPPORTED_PYTORCH_LAYERS as CASTABLE  # private: not for whoever only restores
    from diffusers.hooks.layerwise_casting import DEFAULT_SKIP_MODULES_PATTERN

    patterns = [*DEFAULT_SKIP_MODULES_PATTERN, *(getattr(module, "_skip_layerwise_casting_patterns", None) or ())]
    total = 0
    for name, layer in module.named_modules():
        parents = [name[:end] for end in (*(dot.start() for dot in re.finditer(r"\.", name)), len(name))]
        cast = isinstance(layer, CASTABLE) and not any(re.search(pattern, parent) for pattern in patterns for parent in parents)
        total += sum(p.numel() for p in layer.parameters(recurse=False)) if cast else own_nbytes(layer)
    return total


@dataclass(frozen=True)
class Count:
    """What a function takes: bytes at most, and floating point operations."""

    peak: int
    flops: float


def count(function: Callable[[], Any]) -> Count:
    """Runs a function on tensors without contents."""
    from torch._subclasses import FakeTensorMode  # private, too
    from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

    def attention_flops(query: Any, key: Any, value: Any, *rest: Any, **more: Any) -> int:
        return sdpa_flop_count(query, key, value)

    cpu_attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # which PyTorch's counter leaves out
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        torch.no_grad(),
        FlopCounterMode(display=False, custom_mapping={cpu_attention: attention_flops}) as flops,
        _Storages() as storages,
    ):
        function()
    return Count(storages.peak, float(flops.get_total_flops()))


class _Storages(TorchDispatchMode):
    """Counts the bytes of storages from the operator that makes them until they are let go."""

    def __init__(self):
        super().__init__()
        self.live: dict[int, int] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(output):
            if not isinstance(tensor, torch.Tensor):
                continue
            storage = tensor.untyped_storage()
            if (key := storage._cdata) not in self.live:
                self.live[key] = storage.nbytes()
                self.now += self.live[key]
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._let_go, key)
        return output

    def _let_go(self, key: int) -> None:
        self.now -= self.live.pop(key)


def parse_bytes(text: int | float | str) -> int:
    """`8e9`, `"8GB"`, `"7.5 GiB"`, `"900MB"` -> bytes. Raises `ValueError`."""
    found = re.fullmatch(r"([0-9.]+(?:e[0-9]+)?)\s*([KMGT]?)(i?)B?", str(text).strip(), re.IGNORECASE)
    try:
        size = int(float(found[1]) * (1024 if found[3] else 1000) ** " KMGT".index(found[2].upper() or " ")) if found else 0
    except ValueError:
        size = 0
    if size < 1:
        raise ValueError(f"must be bytes, or a size such as 8GB or 7.5GiB, got {text!r}")
    return size


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
