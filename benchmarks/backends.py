"""What exported graphs would bring on a CPU: the networks of a checkpoint in ONNX Runtime and OpenVINO, side by side with PyTorch.

`pip install onnx onnxscript onnxruntime openvino`, then `python benchmarks/backends.py --side 1024`. All in single precision, one thread
each, turn by turn in one process, by processor seconds: those of other work on the machine do not count.
The tile is of a sample photograph with noise, the graphs take any size.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from foundir_hf import load_pipeline
from foundir_hf.cli import quiet_libraries

SAMPLE = Path(__file__).parents[1] / "foundir_hf" / "samples" / "astronaut.jpg"


class Encoder(torch.nn.Module):
    """The LQ encoder with a tuple for an output, as exporters want it."""

    def __init__(self, lq_encoder: torch.nn.Module):
        super().__init__()
        self.lq_encoder = lq_encoder

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features and estimate."""
        return self.lq_encoder(pixel_values, return_dict=False)


class Denoiser(torch.nn.Module):
    """The UNet without text, as above."""

    def __init__(self, unet: torch.nn.Module):
        super().__init__()
        self.unet = unet

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor, lq_hidden_states: torch.Tensor) -> tuple[torch.Tensor]:
        """The prediction."""
        return self.unet(sample, timestep, lq_hidden_states=lq_hidden_states, return_dict=False)


def exported(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], path: Path) -> dict[str, Callable[[], list[np.ndarray]]]:
    """Runs of the same graph by name. It is exported with a smaller tile, so that what runs has sizes that are new to it."""
    import onnxruntime  # pyright: ignore[reportMissingImports]
    import openvino  # pyright: ignore[reportMissingImports]

    smaller = tuple(x[..., : x.shape[2] // 2, : x.shape[3] // 4].contiguous() if x.ndim == 4 else x for x in inputs)
    dynamic = tuple({2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO} if x.ndim == 4 else None for x in inputs)
    with torch.no_grad():
        torch.onnx.export(module, smaller, path, dynamo=True, dynamic_shapes=dynamic, verbose=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feeds = {entry.name: x.numpy() for entry, x in zip(session.get_inputs(), inputs, strict=True)}
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}  # or else bfloat16 where there is any
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    return {
        "ONNX Runtime": lambda: session.run(None, feeds),
        "OpenVINO": lambda: list(compiled(list(feeds.values())).values()),
    }


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="tiny")
    parser.add_argument("--side", type=int, default=1024, help="of the tile, in pixels (default: 1024)")
    parser.add_argument("--runs", type=int, default=5, help="of each, turn by turn (default: 5)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    quiet_libraries()
    pipeline = load_pipeline(arguments.checkpoint)
    photo = np.asarray(ImageOps.fit(Image.open(SAMPLE), (arguments.side, arguments.side)))
    pixels = torch.from_numpy(photo.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    random = torch.Generator().manual_seed(0)
    # A clean photograph would leave the denoiser nothing to say.
    pixels = (pixels + 0.3 * torch.randn(pixels.shape, generator=random)).clamp(-1, 1)
    with torch.no_grad():
        features, _ = pipeline.lq_encoder(pixels, return_dict=False)
    channels, scale = pipeline.unet.config["in_channels"], pipeline.latent_scale_factor
    noise = torch.randn(1, channels, arguments.side // scale, arguments.side // scale, generator=random)
    total: dict[str, float] = {}
    print(f"torch {torch.__version__}, tile of {arguments.side} pixels\n")
    print("| network | by | processor seconds | faster | difference |\n|---|---|---|---|---|")
    for module, inputs in (
        (Encoder(pipeline.lq_encoder), (pixels,)),
        (Denoiser(pipeline.unet), (noise, torch.tensor([999]), features.contiguous())),
    ):
        module.eval()
        laid_out = [x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x for x in inputs]

        def eager(module: torch.nn.Module = module, laid_out: list[torch.Tensor] = laid_out) -> list[np.ndarray]:
            with torch.no_grad():
                return [x.numpy() for x in module(*laid_out)]

        with tempfile.TemporaryDirectory() as folder:
            runs = {"PyTorch": eager, **exported(module, inputs, Path(folder) / "graph.onnx")}
            outputs = {name: [np.array(x) for x in run()] for name, run in runs.items()}  # and warm
            seconds: dict[str, list[float]] = {name: [] for name in runs}
            for _ in range(arguments.runs):
                for name, run in runs.items():
                    start = time.process_time()
                    run()
                    seconds[name].append(time.process_time() - start)
        for name in runs:
            median = statistics.median(seconds[name])
            total[name] = total.get(name, 0) + median
            faster = statistics.median(seconds["PyTorch"]) / median
            differs = max(float(np.abs(x - y).max()) for x, y in zip(outputs[name], outputs["PyTorch"], strict=True))
            print(f"| {type(module).__name__} | {name} | {median:.3f} | {faster:.2f} | {differs:.1e} |", flush=True)
    for name, median in total.items():
        print(f"| both | {name} | {median:.3f} | {total['PyTorch'] / median:.2f} | |")


if __name__ == "__main__":
    main()
