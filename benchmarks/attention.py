"""Attention backends side by side: time and peak memory of the sizes that `sdxl` meets, and of one denoising step of a whole model.

    python benchmarks/attention.py                                  # on a GPU: the paper's sizes in half precision
    python benchmarks/attention.py --device cpu --scale 16 --steps 2  # on a CPU: maps with a sixteenth of the positions

Ratios are to PyTorch's own choice of kernel (`native`). Errors are the largest difference to it, relative to its largest value. A backend
that is not here, or cannot compute a size, is told and left out. Every figure is the median of `--steps` runs after a warm one.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from diffusers.models.attention_dispatch import AttentionBackendName, attention_backend, dispatch_attention_fn
from torch.utils.flop_counter import FlopCounterMode

from foundir_hf.configurations import CONFIGURATIONS
from foundir_hf.models.unet_foundir import FoundIRUNet2DConditionModel
from foundir_hf.pipelines.attention_foundir import attentions, reset_attention_backend, set_attention_backend

# Where in `sdxl`, and its queries, keys, heads and channels a head, for a tile of 1024 x 1024 pixels.
SIZES = {
    "UNet, 64 x 64 positions": (4096, 4096, 10, 64),
    "UNet, 32 x 32 positions": (1024, 1024, 20, 64),
    "UNet, 64 x 64 to the prompt": (4096, 77, 10, 64),
    "spatial expert, a window of 64 x 64": (4096, 4096, 8, 80),
    "VAE and LQ encoder, 128 x 128": (16384, 16384, 1, 512),
}


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--backends", default="native,_native_flash,_native_efficient,_native_cudnn,_native_math,xformers,flash,sage")
    parser.add_argument("--steps", type=int, default=10, help="timed runs of each (default: 10)")
    parser.add_argument("--scale", type=int, default=1, help="divide the positions by this (default: 1)")
    parser.add_argument("--without-model", action="store_true", help="leave the whole denoiser out")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    backends = [AttentionBackendName(name) for name in arguments.backends.split(",")]
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{where}, torch {torch.__version__}, {str(dtype).removeprefix('torch.')}, positions / {arguments.scale}\n")
    print("| attention | backend | ms | of native | peak MiB | error |\n|---|---|---|---|---|---|")
    for name, size in SIZES.items():
        for line in compare_kernels(name, size, backends, device, dtype, arguments.steps, arguments.scale):
            print(line, flush=True)
    if not arguments.without_model:
        print("\n| whole denoiser | backend | ms | of native | peak MiB | error |\n|---|---|---|---|---|---|")
        for line in compare_models(backends, device, dtype, arguments.steps, arguments.scale):
            print(line, flush=True)


@torch.no_grad()
def compare_kernels(name, size, backends, device, dtype, steps: int, scale: int):
    """Lines of the first table."""
    queries, keys, heads, channels = size
    random = torch.Generator(device).manual_seed(0)
    query, key, value = (
        torch.randn(1, max(length // scale, 1) if length != 77 else 77, heads, channels, generator=random, device=device, dtype=dtype)
        for length in (queries, keys, keys)
    )
    expected = native = None
    for backend in backends:

        def compute(backend: AttentionBackendName = backend) -> torch.Tensor:
            return dispatch_attention_fn(query, key, value, backend=backend)

        try:
            with attention_backend(backend):  # checks what it needs
                output = compute()
        except Exception as error:  # every kernel has errors of its own
            yield f"| {name} | {backend.value} | cannot: {' '.join(str(error).split())[:70]} | | | |"
            continue
        milliseconds, mebibytes = measure(compute, device, steps)
        expected, native = (output, milliseconds) if expected is None or native is None else (expected, native)
        yield line(name, backend, milliseconds, native, mebibytes, output, expected)


@torch.no_grad()
def compare_models(backends, device, dtype, steps: int, scale: int):
    """Lines of the second table: `sdxl`'s denoiser on a tile of 1024 pixels; on a CPU a tenth as deep and half as wide."""
    config = dict(CONFIGURATIONS["sdxl"]["unet"])
    if device.type == "cpu":
        config |= {"transformer_layers_per_block": (1, 1, 1), "block_out_channels": (160, 320, 640)}
    torch.manual_seed(0)
    with device:
        unet = FoundIRUNet2DConditionModel(**config)
    torch.nn.init.normal_(unet.conv_in.projection.weight, std=0.02)  # so that the experts reach the output
    torch.nn.init.normal_(unet.conv_in.condition_embedding.conv_out.weight, std=0.02)
    unet = unet.to(dtype=dtype, memory_format=torch.channels_last).eval()  # pyright: ignore[reportCallIssue]
    side = round(128 / scale**0.5 / 4) * 4
    random = torch.Generator(device).manual_seed(0)
    sample = torch.randn(1, 4, side, side, generator=random, device=device, dtype=dtype)
    lq = torch.randn(1, 512, side, side, generator=random, device=device, dtype=dtype)
    text = unet.empty_prompt(1, 8 * side, 8 * side)

    def compute() -> torch.Tensor:
        return unet(sample, 500, lq_hidden_states=lq, **text).sample

    with FlopCounterMode(display=False) as counter:
        expected = compute()
    reached, native = len(attentions({"unet": unet})), None
    for backend in backends:
        reset_attention_backend({"unet": unet})
        try:
            set_attention_backend({"unet": unet}, backend.value)
            output = compute()
        except (ValueError, ModuleNotFoundError) as error:
            yield f"| {side * 8} pixels | {backend.value} | cannot: {str(error)[:70]} | | | |"
            continue
        milliseconds, mebibytes = measure(compute, device, steps)
        native = milliseconds if native is None else native
        yield line(f"{side * 8} pixels", backend, milliseconds, native, mebibytes, output, expected)
    yield f"\n{reached} attentions; {counter.get_total_flops() / 1e12:.2f} TFLOP a step."


def measure(compute: Callable[[], torch.Tensor], device: torch.device, steps: int) -> tuple[float, float]:
    """Median milliseconds of a call, and the peak of what it allocates, in MiB (0 on a CPU)."""
    gpu = device.type == "cuda"
    times = []
    if gpu:
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
    for _ in range(steps):
        start = time.perf_counter()
        compute()
        if gpu:
            torch.cuda.synchronize(device)
        times.append(1000 * (time.perf_counter() - start))
    peak = (torch.cuda.max_memory_allocated(device) - before) / 2**20 if gpu else 0.0
    return statistics.median(times), peak


def line(name: str, backend, milliseconds: float, native: float, mebibytes: float, output: torch.Tensor, expected: torch.Tensor) -> str:
    """A line of either table."""
    error = ((output - expected).abs().max() / expected.abs().max()).item()
    return f"| {name} | {backend.value} | {milliseconds:.2f} | {milliseconds / native:.2f} | {mebibytes:.0f} | {error:.1e} |"


if __name__ == "__main__":
    main()
