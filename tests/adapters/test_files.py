"""Adapters as files: what is written, who reads it, and everything that is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from small import all_components, awaken_adapter, fresh_pipeline, restored

from foundir_hf.adapters.attach import AdapterConfig, add_adapter
from foundir_hf.adapters.files import Base, load_adapter, save_adapter
from foundir_hf.hub import load_pipeline

CONFIGS = {"lora": AdapterConfig("lora", rank=2, dora=True), "adaptir": AdapterConfig("adaptir")}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "nano"
    fresh_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=CONFIGS)
def adapter(request, base, tmp_path_factory) -> tuple[Path, torch.Tensor]:
    """A folder, and what a picture becomes with the adapter."""
    folder = tmp_path_factory.mktemp("adapter") / "my.scans"
    pipe = load(base)
    add_adapter(pipe, CONFIGS[request.param])
    awaken_adapter(pipe)
    save_adapter(pipe, folder, Base.of_checkpoint(base), card="---\nlibrary_name: peft\n---\n")
    return folder, restored(pipe)


@pytest.fixture
def changed(adapter, tmp_path) -> Path:
    """A copy that a test may spoil."""
    shutil.copytree(adapter[0], tmp_path / "changed")
    return tmp_path / "changed"


def load(folder: Path):
    pipe = load_pipeline(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_what_is_written_is_what_peft_writes_and_says_where_it_belongs(adapter, base):
    folder, _ = adapter
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    parts = [f"{c}/{f}" for c in ("lq_encoder", "tone", "unet") for f in ("adapter_config.json", "adapter_model.safetensors")]
    assert files == ["README.md", "foundir_adapter.json", *parts]
    index = json.loads((folder / "foundir_adapter.json").read_text())
    assert index["base"]["checkpoint"] == "nano"
    assert sorted(index["base"]["weights"]) == [f"{c}/diffusion_pytorch_model.safetensors" for c in ("lq_encoder", "tone", "unet")]
    assert index["components"] == ["lq_encoder", "unet", "tone"]
    assert index["parameters"] == sum(
        t.numel() for c in index["components"] for t in load_file(folder / c / "adapter_model.safetensors").values()
    )
    for path in folder.rglob("*.json"):
        assert str(base.parent) not in path.read_text(), path.name


def test_it_is_loaded_and_called_after_its_folder(adapter, base):
    folder, expected = adapter
    pipe = load(base)
    plain = restored(pipe)
    assert load_adapter(pipe, folder) == "my_scans"
    assert torch.allclose(restored(pipe), expected, atol=1e-5)
    load_adapter(pipe, folder, "again")
    pipe.set_adapters(["my_scans", "again"], [1.0, 0.0])
    assert torch.allclose(restored(pipe), expected, atol=1e-5)
    pipe.set_adapters(["my_scans", "again"], [0.0, 0.0])
    assert torch.equal(restored(pipe), plain)
    with pytest.raises(ValueError, match="'again' is taken"):
        load_adapter(pipe, folder, "again")


def test_plain_peft_reads_every_component(adapter, base):
    pipe = load(base)
    for name in ("lq_encoder", "unet", "tone"):
        PeftModel.from_pretrained(getattr(pipe, name), adapter[0], subfolder=name)
    assert torch.allclose(restored(pipe), adapter[1], atol=1e-5)


def test_saving_again_replaces_an_adapter_and_nothing_else(adapter, base, tmp_path):
    pipe = load(base)
    load_adapter(pipe, adapter[0], "a")
    for _ in range(2):
        save_adapter(pipe, tmp_path / "copy", Base.of_pipeline(pipe, "nano"), "a")
    assert [p.name for p in tmp_path.iterdir()] == ["copy"]
    other = load(base)
    load_adapter(other, tmp_path / "copy")
    assert torch.allclose(restored(other), adapter[1], atol=1e-5)
    (tmp_path / "mine").mkdir()
    with pytest.raises(ValueError, match="exists and is no adapter"):
        save_adapter(pipe, tmp_path / "mine", Base("x", {}), "a")
    with pytest.raises(ValueError, match="`name` 'b': there is no such adapter"):
        save_adapter(pipe, tmp_path / "copy", Base("x", {}), "b")


def test_another_base_is_refused_and_both_are_named(adapter, tmp_path):
    other = fresh_pipeline()
    with torch.no_grad():
        other.tone.whole_out.bias.add_(1)
    other.save_pretrained(tmp_path / "other")
    pipe = load(tmp_path / "other")
    with pytest.raises(ValueError, match=r"trained on 'nano', and this is '.*other.*': 1 weight files differ, tone/diffusion"):
        load_adapter(pipe, adapter[0])
    assert all_components(pipe) == []
    load_adapter(pipe, adapter[0], check_base=False)
    with pytest.raises(ValueError, match="not loaded from files"):
        load_adapter(fresh_pipeline(), adapter[0])


def spoil_weights(change: Callable[[dict], None], component: str = "tone") -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / component / "adapter_model.safetensors"
        weights = {key: tensor.clone() for key, tensor in load_file(path).items()}  # the file is mapped, and about to be replaced
        change(weights)
        save_file(weights, path)

    return spoil


def spoil_json(name: str, **changes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(json.dumps({**json.loads((folder / name).read_text()), **changes}))


def to_pickle(folder: Path) -> None:
    path = folder / "unet" / "adapter_model.safetensors"
    torch.save(load_file(path), path.with_suffix(".bin"))
    path.unlink()


def rename(weights: dict) -> None:
    weights["base_model.model.somewhere.lora_A.weight"] = weights.pop(next(iter(weights)))


SPOILT = {
    "not a number": (spoil_weights(lambda w: next(iter(w.values())).fill_(float("nan"))), "`tone` holds weights that are not finite"),
    "infinite": (spoil_weights(lambda w: next(iter(w.values())).fill_(float("inf")), "lq_encoder"), "`lq_encoder` holds weights"),
    "pickle": (to_pickle, r"adapter_model\.bin is a pickle, which can run code and is never read"),
    "no safetensors": (lambda f: (f / "unet" / "adapter_model.safetensors").write_bytes(b"PK\3\4" * 9), "is no safetensors file"),
    "missing key": (spoil_weights(lambda w: w.pop(next(iter(w)))), "does not fit `tone`: 1 keys missing"),
    "unknown key": (spoil_weights(rename), "does not fit `tone`"),
    "foreign prefix": (spoil_weights(lambda w: w.update(x=torch.zeros(1))), r"keys must start with 'base_model\.model\.', got 'x'"),
    "other shape": (spoil_weights(lambda w: w.update({next(iter(w)): torch.zeros(3, 3)})), "does not fit `tone`"),
    "no index": (lambda f: (f / "foundir_adapter.json").unlink(), r"is no adapter: foundir_adapter\.json is missing"),
    "broken index": (lambda f: (f / "foundir_adapter.json").write_text("{"), "cannot be read"),
    "list": (lambda f: (f / "foundir_adapter.json").write_text("[]"), "must hold a mapping, got list"),
    "no base": (spoil_json("foundir_adapter.json", base=None), "must hold `method`, `components` and `base`"),
    "foreign component": (spoil_json("foundir_adapter.json", components=["../x"]), "`components` must be of"),
    "foreign method": (spoil_json("foundir_adapter.json", method="eval"), "the method must be 'lora' or 'adaptir', got 'eval'"),
    "no configuration": (lambda f: (f / "tone" / "adapter_config.json").unlink(), r"tone/adapter_config\.json is missing"),
}  # fmt: skip


@pytest.mark.parametrize("case", SPOILT)
def test_what_cannot_be_trusted_is_refused_and_leaves_the_pipeline_as_it_was(case, changed, base):
    spoil, message = SPOILT[case]
    spoil(changed)
    pipe = load(base)
    with pytest.raises(ValueError, match=message):
        load_adapter(pipe, changed)
    assert all_components(pipe) == []


def test_a_part_for_a_component_that_is_not_there_is_refused(adapter, base):
    pipe = load(base)
    pipe.tone = None
    with pytest.raises(ValueError, match="has a part for `tone`, which this pipeline lacks"):
        load_adapter(pipe, adapter[0], check_base=False)
    assert all_components(pipe) == []


def test_a_configuration_cannot_make_anything_be_imported(changed, base, tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    evil = {"megatron_config": {"a": 1}, "megatron_core": "evil", "auto_mapping": {"parent_library": "evil", "base_model_class": "x"}}
    for component in ("lq_encoder", "unet", "tone"):
        spoil_json(f"{component}/adapter_config.json", **evil)(changed)
    load_adapter(load(base), changed)
    assert not (tmp_path / "ran").exists()


def test_a_folder_that_is_nowhere_is_named(base):
    with pytest.raises(ValueError, match="must be a folder or a Hub repository that can be reached; got 'nobody/nothing'"):
        load_adapter(load(base), "nobody/nothing")


def test_a_pipeline_with_an_adapter_is_not_saved_as_if_it_had_none(adapter, base, tmp_path):
    pipe = load(base)
    load_adapter(pipe, adapter[0])
    with pytest.raises(ValueError, match="adapters are saved by themselves"):
        pipe.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
    pipe.unload_lora_weights()
    pipe.save_pretrained(tmp_path / "saved")
