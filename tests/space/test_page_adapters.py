"""Adapters that visitors may choose: those of the server's folder, with weights, for one photo and not the next."""

from __future__ import annotations

import numpy as np
import pytest

from foundir_hf.cli import main
from foundir_hf.io.reading import read_photo
from foundir_hf.io.writing import write_photo
from foundir_hf.space.engine import Engine
from foundir_hf.space.form import Form
from foundir_hf.space.settings import SettingError, Settings


@pytest.fixture(scope="module")
def offering(checkpoint, adapters):
    engine = Engine(str(checkpoint), "cpu", adapters)
    engine.load()
    engine.wait_until_ready()
    return engine


def test_the_server_s_folder_is_listed_and_what_is_no_adapter_is_not(offering, tmp_path):
    assert offering.adapter_names == ("scans",)
    assert Engine("tiny").adapter_names == Engine("tiny", adapters=tmp_path / "missing").adapter_names == ()


def test_bytes_are_those_of_the_command_line_and_the_next_photo_is_restored_without(offering, adapters, checkpoint, photo, tmp_path):
    photo.save(tmp_path / "photo.png")
    read = read_photo(tmp_path / "photo.png")
    plain, adapted, again = (
        offering.restore(read, settings, lambda done, total: None).photo
        for settings in (Settings(), Settings(adapters=(("scans", 0.5),)), Settings())
    )
    assert not np.array_equal(plain.pixels, adapted.pixels)
    assert np.array_equal(plain.pixels, again.pixels)
    write_photo(adapted, tmp_path / "page.png")
    command = ["restore", tmp_path / "photo.png", "-o", tmp_path / "line.png", "--checkpoint", checkpoint]
    assert main([str(part) for part in (*command, "--adapter", f"{adapters / 'scans'}:0.5")]) == 0
    assert (tmp_path / "page.png").read_bytes() == (tmp_path / "line.png").read_bytes()


def test_adapters_whose_names_differ_in_a_sign_only_are_two(checkpoint, adapters, photo, tmp_path, monkeypatch):
    import shutil

    from foundir_hf import hub

    for name in ("scans.a", "scans_a"):
        shutil.copytree(adapters / "scans", tmp_path / name)
    engine, hashed = Engine(str(checkpoint), "cpu", tmp_path), []
    hashes = hub.checkpoint_hashes
    monkeypatch.setattr(hub, "checkpoint_hashes", lambda folder: hashed.append(folder.name) or hashes(folder))
    engine.load()
    photo.save(tmp_path / "photo.png")
    read = read_photo(tmp_path / "photo.png")
    both, one = (
        engine.restore(read, Settings(adapters=chosen), lambda done, total: None).photo.pixels
        for chosen in ((("scans.a", 0.5), ("scans_a", 0.5)), (("scans.a", 0.5),))
    )
    assert not np.array_equal(both, one)
    assert hashed.count("scans.a") == hashed.count("scans_a") == 1  # whatever their weights, and however many photographs


@pytest.mark.parametrize("name", ["https://example.com/adapter", "owner/repository", "../scans", "/etc", "notes", "scans/../scans"])
def test_no_other_is_taken(offering, name):
    form = Form(offering.adapter_names, "")
    values = ("balanced", "auto", 1, "keep", 2, 0, "as it came", 0)
    with pytest.raises(SettingError, match="must be of this server's: scans; got"):
        form.check(*values, name)
    with pytest.raises(SettingError, match="must be of this server's: scans; got"):
        form.read(*values, [name], 1.0)
    assert form.read(*values, ["scans"], 0.5).adapters == (("scans", 0.5),)
