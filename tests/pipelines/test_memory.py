"""Memory: what a plan says, what happens where it runs out, and large photographs without whole copies."""

from __future__ import annotations

import json
import logging
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from foundir_hf import read_photo, restore_photo
from foundir_hf.cli import main
from foundir_hf.io.photograph import Photo
from foundir_hf.io.record import read_record
from foundir_hf.pipelines.memory_foundir import KINDS, LIBRARIES, cast_nbytes, count, nbytes, parse_bytes
from foundir_hf.pipelines.pipeline_foundir import FoundIRPipeline, decode_latents
from foundir_hf.pipelines.tiling_foundir import TileGrid


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- the plan -------------------------------------------------------------------------------------------------------------------------


def test_storages_count_until_they_are_let_go_and_views_not_at_all():
    def function() -> None:
        first = torch.empty(100, 100)  # 40,000 bytes
        second = first[:50].T.reshape(50, 100)  # a copy of half
        del first
        (second.view(-1) @ torch.empty(5000)).item if second.numel() == 0 else torch.empty(10_000)

    found = count(function)
    assert found.peak == 60_000
    product = count(lambda: torch.empty(3, 4) @ torch.empty(4, 5))
    assert (product.peak, product.flops) == (4 * (12 + 20 + 15), 2 * 3 * 4 * 5)


def test_attention_is_counted_where_pytorch_s_counter_leaves_it_out():
    query = lambda: torch.empty(1, 2, 64, 16)  # noqa: E731
    found = count(lambda: torch.nn.functional.scaled_dot_product_attention(query(), query(), query()))
    assert found.flops == 2 * 2 * (2 * 64 * 64 * 16)


def test_the_first_mode_that_fits_is_chosen_and_its_options_are_the_call_s(pipeline, photo):
    plan = pipeline.plan(600, 400)
    assert [mode.tile_size for mode in plan.modes if not mode.kind] == [None, 512, 384, 256]
    assert plan.chosen.name == "whole"
    assert plan.options == {"tile_size": None, "tile_overlap": 0}
    peaks = {mode.name: mode.peak for mode in plan.modes}
    assert peaks["whole"] > peaks["tiles of 512"] > peaks["tiles of 256"] > LIBRARIES + nbytes(pipeline.unet)
    assert 0 < peaks["whole"] - peaks["whole, fp8 weights"] < nbytes(pipeline.unet) + nbytes(pipeline.lq_encoder)
    tight = pipeline.plan(600, 400, peaks["tiles of 512"])
    assert tight.chosen.peak <= peaks["tiles of 512"]
    assert tight.chosen.flops == min(mode.flops for mode in tight.modes if not mode.kind and mode.peak <= peaks["tiles of 512"])
    assert pipeline(photo, **tight.options, output_type="pt").images.shape == (1, 3, 56, 72)
    lines = str(tight).splitlines()
    assert lines[0] == "600 x 400 pixels, cpu"
    assert len(lines) == 1 + 1 + len(tight.modes) + 1
    assert sum(line.endswith("chosen") for line in lines) == 1
    assert lines[2].endswith("too much")
    assert "seconds" in str(replace(plan, flops_per_second=1e11))
    (alone,) = pipeline.plan(600, 400, kinds=[""], tile_sizes=[384]).modes
    assert alone in plan.modes
    several = {steps: pipeline.plan(6000, 4000, num_inference_steps=steps, kinds=[""], tile_sizes=[256]).modes[0].peak for steps in (1, 2)}
    assert several[2] > several[1]  # which holds the features of all tiles


def test_offloading_keeps_less_on_a_gpu_the_finer_it_is(sdxl_with_text):
    plan = sdxl_with_text.plan(256, 192, device="cuda", num_inference_steps=2, guidance_scale=3.0)
    whole = {mode.kind: mode.peak for mode in plan.modes if mode.tile_size is None}
    assert list(whole) == list(KINDS)
    assert whole[""] > whole["model"] > whole["group"] > whole["sequential"]
    assert whole[""] > whole["fp8"]
    assert replace(plan, chosen=plan.modes[2]).call == KINDS["model"]
    alone = sdxl_with_text.plan(256, 192, device="cuda", num_inference_steps=2, guidance_scale=3.0, sequential_guidance=True, kinds=[""])
    assert alone.modes[0].peak < whole[""]
    assert alone.modes[0].flops == pytest.approx(plan.modes[0].flops, rel=0.02)


def test_layer_wise_casting_leaves_what_the_plan_says(sdxl):
    unet = type(sdxl.unet).from_config(sdxl.unet.config)
    expected = cast_nbytes(unet)
    unet.enable_layerwise_casting(torch.float8_e4m3fn, torch.float32)
    assert nbytes(unet) == expected < 0.4 * nbytes(sdxl.unet)
    pipe = FoundIRPipeline(**{**sdxl.components, "unet": unet})
    pipe.set_progress_bar_config(disable=True)
    assert pipe(torch.rand(1, 3, 64, 64), output_type="pt").images.isfinite().all()
    with pytest.raises(ValueError, match="`plan` must be asked before"):
        pipe.plan(64, 64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0, "height": 5}, "`width` must be a positive whole number, got 0"),
        ({"width": 5, "height": 5, "device_memory": "a lot"}, "`device_memory` must be bytes, or a size such as 8GB"),
        ({"width": 600, "height": 400, "tile_sizes": [64, 640]}, r"`tile_sizes` must have one between the overlap, 128, and 600 x 400"),
        ({"width": 5, "height": 5, "kinds": ["group"]}, r"`kinds` must be of \('', 'fp8'\) on cpu, got \['group'\]"),
    ],
)
def test_what_cannot_be_planned_is_refused(pipeline, arguments, message):
    with pytest.raises(ValueError, match=message):
        pipeline.plan(**arguments)
    with pytest.raises(ValueError, match=r"`device_memory` 0\.00 GiB is too little for 64 x 64 pixels: whole, fp8 weights take"):
        _ = pipeline.plan(64, 64, 1000).options


@pytest.mark.parametrize(("text", "size"), [("8GB", 8 * 10**9), ("7.5 GiB", 7.5 * 2**30), ("900mb", 9 * 10**8), (12, 12), ("4e9", 4e9)])
def test_sizes_are_read_as_people_write_them(text, size):
    assert parse_bytes(text) == size


def test_the_command_line_takes_tiles_that_fit(checkpoint, tmp_path, capsys):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 420, 3), dtype=np.uint8)).save(tmp_path / "photo.png")
    command = ["restore", str(tmp_path / "photo.png"), "--checkpoint", str(checkpoint), "--steps", "0", "--no-record"]
    assert main([*command, "--memory", "20GB", "-o", str(tmp_path / "whole.png")]) == 0, capsys.readouterr().err
    assert main([*command, "-o", str(tmp_path / "usual.png")]) == 0
    assert (tmp_path / "whole.png").read_bytes() == (tmp_path / "usual.png").read_bytes()
    capsys.readouterr()
    assert main([*command, "--memory", "100MB", "-o", str(tmp_path / "no.png")]) == 1
    assert "photo.png: `device_memory` 0.09 GiB is too little for 420 x 300 pixels: tiles of" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*command, "--memory", "lots", "-o", str(tmp_path / "no.png")])
    assert capsys.readouterr().err.startswith("foundir: argument --memory: must be bytes, or a size such as 8GB or 7.5GiB, got 'lots'")


# --- out of memory --------------------------------------------------------------------------------------------------------------------


def test_out_of_memory_an_image_is_begun_again_in_smaller_tiles_and_that_is_told(pipeline, caplog):
    """The denoiser raises what PyTorch raises, for all that is larger than 128 pixels."""
    allowed = 128 // pipeline.latent_scale_factor

    def allocate(module: torch.nn.Module, inputs: tuple) -> None:
        if inputs[0].shape[-1] > allowed:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    image = torch.rand(1, 3, 256, 320, generator=seeded())
    expected = pipeline(image, generator=seeded(), tile_size=128, tile_overlap=32, output_type="pt").images
    hook = pipeline.unet.register_forward_pre_hook(allocate)
    try:
        with caplog.at_level(logging.WARNING):
            restored = pipeline(image, generator=seeded(), tile_size=256, tile_overlap=64, output_type="pt").images
            assert [record.getMessage() for record in caplog.records] == [
                "Out of memory with tiles of 256 pixels: going on with tiles of 128.",
            ]
            assert pipeline.tiling == {"tile_size": 128, "tile_overlap": 32}
            allowed = 0
            with pytest.raises(torch.OutOfMemoryError):
                pipeline(image, generator=seeded(), tile_size=None, tile_overlap=0, output_type="pt")
            assert caplog.records[1].getMessage() == "Out of memory with the whole image: going on with tiles of 160."
    finally:
        hook.remove()
    assert torch.equal(restored, expected)


def test_what_is_written_of_a_photograph_is_the_tiles_that_it_took(checkpoint, tmp_path, capsys):
    """The denoiser raises, for all that is larger than 128 pixels."""

    def allocate(module: torch.nn.Module, inputs: tuple) -> None:
        if type(module).__name__ == "FoundIRUNet2DConditionModel" and inputs[0].shape[-1] > 16:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)).save(tmp_path / "photo.png")
    command = ["restore", str(tmp_path / "photo.png"), "--checkpoint", str(checkpoint), "-o", str(tmp_path / "restored.png")]
    hook = torch.nn.modules.module.register_module_forward_pre_hook(allocate)
    try:
        assert main([*command, "--tile-size", "256", "--tile-overlap", "64"]) == 0, capsys.readouterr().err
    finally:
        hook.remove()
    done = json.loads(read_record(read_photo(tmp_path / "restored.png").metadata)["settings"])
    assert (done["tile_size"], done["tile_overlap"]) == (128, 32)


def test_another_error_is_no_lack_of_memory(pipeline, caplog):
    def fail(module: torch.nn.Module, inputs: tuple) -> None:
        raise RuntimeError("unsupported memory format option")

    hook = pipeline.unet.register_forward_pre_hook(fail)
    try:
        with pytest.raises(RuntimeError, match="memory format"):
            pipeline(torch.rand(1, 3, 256, 320), generator=seeded())
    finally:
        hook.remove()
    assert not caplog.records


# --- one buffer -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(7, 9), (16, 9), (18, 20), (19, 17)])
def test_rows_written_over_the_estimate_are_those_of_a_buffer_of_their_own(pipeline, size):
    """Also where the last row of tiles was moved back, so that three meet."""
    grid, scale = TileGrid(*size, 8, 4), pipeline.latent_scale_factor
    latents, estimate = torch.randn(1, 48, *size), torch.rand(1, 3, size[0] * scale, size[1] * scale) * 2 - 1
    expected = torch.zeros_like(estimate)
    with torch.no_grad():
        for tile, blend in zip(grid.tiles(), grid.tiles(scale), strict=True):
            decoded = decode_latents(pipeline.vae, tile.of(latents), blend.of(estimate), residual=True, fidelity=1.0)
            blend.of(expected).add_(decoded * blend.weight)
        with pipeline.progress_bar(total=len(grid)) as bar:
            pipeline.decode_latents(latents, estimate, grid, 1.0, bar)
    assert torch.equal(estimate, expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_numbers_of_8_and_16_bits_give_what_the_same_light_gives(pipeline, dtype):
    most = np.iinfo(dtype).max
    pixels = np.random.default_rng(0).integers(0, most + 1, (150, 170, 3)).astype(dtype)
    options = {"tile_size": 128, "tile_overlap": 32}
    light = pixels.astype(np.float32) / np.float32(most)
    restored = pipeline(light, generator=seeded(), output_type="np", **options).images[0]
    kept = pixels.copy()
    photo = restore_photo(pipeline, Photo(pixels), generator=seeded(), **options)
    assert np.array_equal(photo.pixels, (restored * most).round().astype(dtype))
    assert np.array_equal(pixels, kept)
    for held in (pixels[::-1], np.frombuffer(pixels.tobytes(), dtype).reshape(pixels.shape)):  # backwards; not to be written to
        assert np.isfinite(pipeline(held, num_inference_steps=0, output_type="np").images).all()


@pytest.mark.parametrize(("steps", "held"), [(1, 1), (2, 4)])
def test_a_single_step_holds_one_tile_s_features_and_several_those_of_all(pipeline, steps, held):
    """Counted when the denoiser runs; and the result is that of features which are all there."""
    alive: set[int] = set()
    most = 0

    def keep(module: torch.nn.Module, inputs: tuple, output) -> None:
        storage = output.lq_hidden_states.untyped_storage()
        alive.add(key := storage._cdata)
        weakref.finalize(storage, alive.discard, key)

    def look(module: torch.nn.Module, inputs: tuple, kwargs: dict) -> None:
        nonlocal most
        block = kwargs["lq_hidden_states"].untyped_storage().nbytes() // kwargs["lq_hidden_states"].nbytes
        most = max(most, len(alive), block)

    hooks = [pipeline.lq_encoder.register_forward_hook(keep), pipeline.unet.register_forward_pre_hook(look, with_kwargs=True)]
    try:
        pipeline(torch.rand(1, 3, 192, 192), num_inference_steps=steps, tile_size=128, tile_overlap=32, generator=seeded())
    finally:
        for hook in hooks:
            hook.remove()
    assert most == held


def test_a_step_in_bands_of_rows_is_the_scheduler_s_own(pipeline):
    latents, prediction = torch.randn(1, 48, 130, 10), torch.randn(1, 48, 130, 10)
    pipeline.scheduler.set_timesteps(2)
    for timestep in pipeline.scheduler.timesteps:
        expected = pipeline.scheduler.step(prediction, timestep, latents).prev_sample
        assert torch.equal(pipeline._step(prediction.clone(), timestep, latents, {}), expected)


def test_a_large_photograph_s_thumbnail_is_that_of_pooling_it_at_once(pipeline):
    part = torch.rand(1, 3, 1, 5461).expand(-1, -1, 4099, -1) * torch.rand(4099, 1)
    assert part.numel() > 2**26
    assert torch.equal(pipeline.tone.thumbnail(part), torch.nn.functional.adaptive_avg_pool2d(part, 64))
