"""Training steps of a recipe's stage, side by side: precision, gradient checkpointing, attention kernels, compilation, where the data are.

`python benchmarks/training.py training/configs/tiny.yaml --stage regions`. Every variant differs from the recipe in one thing and has a
process of its own, so that its peak memory is its own; the processes take turns, a few steps each, round after round. On a shared machine
the ratios, medians over the rounds, say more than the numbers.
"""

from __future__ import annotations

import argparse
import resource
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from diffusers.models.attention_processor import Attention
from diffusers.training_utils import EMAModel
from diffusers.utils import is_xformers_available

from foundir_hf.data.loading import TrainingData
from foundir_hf.training.build import build_modules, prepare_modules
from foundir_hf.training.config import StageConfig, TrainConfig
from foundir_hf.training.loop import accumulate_gradients, measured_throughput, parameter_groups
from foundir_hf.training.performance import configure

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Variant:
    """What is measured: a recipe, its stage, and where the data are."""

    config: TrainConfig
    stage: StageConfig
    data: str
    in_memory: Literal["yes", "no"] = "yes"
    workers: int = 2


def variants(base: Variant, compiled: bool) -> dict[str, Variant]:
    """The recipe as it is, and with one thing changed at a time."""
    config = base.config
    found = {"the recipe": base}

    def add(name: str, **changes: Any) -> None:
        found[name] = replace(base, config=replace(config, **changes))

    other = "bf16" if config.mixed_precision == "no" else "no"
    add({"bf16": "bf16", "no": "fp32"}[other], mixed_precision=other)
    add(
        f"gradient checkpointing {'off' if config.gradient_checkpointing else 'on'}",
        gradient_checkpointing=not config.gradient_checkpointing,
    )
    if has_attention(config):
        kernels = ["sdpa", "eager", *(["xformers"] if torch.cuda.is_available() and is_xformers_available() else [])]
        for kernel in kernels:
            if kernel != config.attention:
                add(f"attention: {kernel}", attention=kernel)
    if compiled:
        add(f"compile {'off' if config.compile else 'on'}", compile=not config.compile)
    found[f"streamed, {base.workers} workers"] = replace(base, in_memory="no")
    return found


def has_attention(config: TrainConfig) -> bool:
    """Whether a kernel can be chosen anywhere: the experts always have PyTorch's own."""
    with torch.device("meta"):
        modules, _ = build_modules(config.configuration, **config.unet)
    return any(isinstance(module, Attention) for module in modules.modules())


def work(variant: Variant, steps: int, messages: Connection) -> None:
    """Makes `steps` training steps whenever it is asked to, as the training loop makes them, and answers with what they took.

    Asked for a `"profile"`, it says where their time went as well.
    """
    config, stage = variant.config, variant.stage
    parts = stage.micro_batches(1)
    accelerator = Accelerator(mixed_precision=config.mixed_precision, gradient_accumulation_steps=parts)
    modules, noise_scheduler = prepare_modules(config)
    configure(modules, gradient_checkpointing=config.gradient_checkpointing, attention=config.attention)
    modules.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    if config.compile:
        for component in modules.children():
            component.compile()
    groups = parameter_groups(modules, stage)
    trainable = [parameter for group in groups for parameter in group["params"]]
    ema = EMAModel(trainable, decay=config.ema_decay)
    ema.to(accelerator.device)
    wrapped, optimizer = accelerator.prepare(modules, torch.optim.AdamW(groups, betas=config.betas, weight_decay=config.weight_decay))
    size = stage.batch_size // parts
    data = TrainingData(variant.data, accelerator.device, in_memory=variant.in_memory, workers=variant.workers)
    source = data.batches(stage.tasks, size, stage.crop_size, stage.context_size, seed=0)
    speed = measured_throughput(accelerator, modules, stage, size, noise_scheduler)
    step = 0
    while (asked := messages.recv()) != "end":
        profiler = torch.profiler.profile() if asked == "profile" else None
        speed.report()  # the clock starts here
        if profiler:
            profiler.start()
        for _ in range(steps):
            numbers = range(step * parts, (step + 1) * parts)
            loss = accumulate_gradients(accelerator, wrapped, stage, source, noise_scheduler, speed, numbers)
            accelerator.clip_grad_norm_(trainable, config.max_grad_norm)
            loss.item()  # waits for the device, as the loop does
            optimizer.step()
            ema.step(trainable)
            optimizer.zero_grad(set_to_none=True)
            speed.count(stage.batch_size)
            step += 1
        if profiler:
            profiler.stop()
        shares = where_time_goes(profiler, accelerator.device) if profiler else []
        messages.send({**speed.report(), "mebibytes": peak_mebibytes(accelerator.device), "profile": shares})
    source.close()


def where_time_goes(profiler: torch.profiler.profile, device: torch.device, most: int = 8) -> list[tuple[str, float]]:
    """The operators that took most of the device's time by themselves, and their share of it."""
    attribute = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    times = {event.key: getattr(event, attribute) for event in profiler.key_averages()}
    total = sum(times.values())
    return [(name, times[name] / total) for name in sorted(times, key=times.__getitem__, reverse=True)[:most]]


def peak_mebibytes(device: torch.device) -> float:
    """The most memory so far: of the GPU's allocator, or of this process (Linux counts in KiB)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextmanager
def workers(chosen: dict[str, Variant], steps: int) -> Iterator[dict[str, Connection]]:
    """A process for each variant; they wait for their turn."""
    context = torch.multiprocessing.get_context("spawn")
    connections, processes = {}, []
    for name, variant in chosen.items():
        connections[name], theirs = context.Pipe()
        processes.append(context.Process(target=work, args=(variant, steps, theirs)))
        processes[-1].start()
        theirs.close()
        turn(connections[name])  # the first steps warm up, and nobody else is busy while the device's peak is measured
    try:
        yield connections
    finally:
        for connection in connections.values():
            connection.send("end")
        for process in processes:
            process.join()


def turn(connection: Connection, asked: str = "go") -> dict[str, Any]:
    connection.send(asked)
    return connection.recv()


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed and memory of training steps, one thing changed at a time.")
    parser.add_argument("recipe", type=Path, nargs="?", default=ROOT / "training" / "configs" / "smoke.yaml")
    parser.add_argument("--stage", help="of the recipe (default: the last)")
    parser.add_argument("--configuration", help="another model size, with fresh weights")
    parser.add_argument(
        "--data", default=str(ROOT / "foundir_hf" / "samples"), help="see training/README.md (default: the sample photographs)"
    )
    parser.add_argument("--batch-size", type=int, help="instead of the recipe's, all at once")
    parser.add_argument("--crop-size", type=int, help="instead of the recipe's, without surroundings")
    parser.add_argument("--steps", type=int, default=4, help="of each turn (default: 4)")
    parser.add_argument("--rounds", type=int, default=7, help="after one to warm up (default: 7)")
    parser.add_argument("--workers", type=int, default=2, help="that decode streamed data (default: 2)")
    parser.add_argument("--compile", action="store_true", help="measure torch.compile too, which takes minutes to begin")
    parser.add_argument("--only", metavar="VARIANT", help="of the table's; 'the recipe' for one")
    parser.add_argument("--profile", action="store_true", help="tell where the recipe's time goes")
    arguments = parser.parse_args()
    config = TrainConfig.from_yaml(arguments.recipe)
    stages = {stage.name: stage for stage in config.stages}
    stage = stages.get(arguments.stage or config.stages[-1].name)
    if stage is None:
        parser.error(f"--stage must be one of {', '.join(stages)}; got {arguments.stage}")
    if arguments.configuration:
        config = replace(config, configuration=arguments.configuration, initial_checkpoint=None)
    if arguments.batch_size:
        stage = replace(stage, batch_size=arguments.batch_size, micro_batch_size=None)
    if arguments.crop_size:
        stage = replace(stage, crop_size=arguments.crop_size, context_size=arguments.crop_size)
    chosen = variants(Variant(config, stage, arguments.data, workers=arguments.workers), arguments.compile)
    if arguments.only:
        if arguments.only not in chosen:
            parser.error(f"--only must be one of {', '.join(chosen)}; got {arguments.only}")
        chosen = {arguments.only: chosen[arguments.only]}
    rounds: list[dict[str, dict[str, Any]]] = []
    with workers(chosen, arguments.steps) as connections:
        for _ in range(arguments.rounds):
            rounds.append({name: turn(connection) for name, connection in connections.items()})
        profile = turn(next(iter(connections.values())), "profile")["profile"] if arguments.profile else []

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    crops = f"{stage.batch_size} crops of {stage.crop_size} pixels"
    print(f"\n`{config.configuration}`, stage `{stage.name}` of {arguments.recipe.name}, {crops}, {device}")
    print(f"{arguments.rounds} rounds of {arguments.steps} steps\n")
    print("| variant | samples/s | ratio (least to most) | waits for data | MFU | peak MiB | ratio |\n|---|---|---|---|---|---|---|")
    first = next(iter(chosen))
    for name in chosen:
        speeds = [row[name]["samples_per_second"] for row in rounds]
        ratios = sorted(row[name]["samples_per_second"] / row[first]["samples_per_second"] for row in rounds)
        waits, mfu = (statistics.median(row[name].get(key, float("nan")) for row in rounds) for key in ("data_share", "mfu"))
        peak = rounds[-1][name]["mebibytes"]
        print(
            f"| {name} | {statistics.median(speeds):.1f} | {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) "
            f"| {waits:.0%} | {mfu:.1%} | {peak:.0f} | {peak / rounds[-1][first]['mebibytes']:.2f} |"
        )
    if profile:
        print("\nWhere the time of a step goes: " + ", ".join(f"{name} {share:.0%}" for name, share in profile))


if __name__ == "__main__":
    main()
