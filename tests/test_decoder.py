"""The process that decodes: what it answers, and what happens when it does not."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import numpy as np
import pytest

from foundir_hf.cli import main
from foundir_hf.curation.cleaning import read_manifest
from foundir_hf.io.decoder import Decoder
from foundir_hf.io.limits import Limits
from foundir_hf.io.photograph import Metadata, Photo, PhotoError
from foundir_hf.io.reading import decode_photo
from foundir_hf.io.writing import encode_photo
from foundir_hf.restoration.batch import Batch
from foundir_hf.restoration.plan import plan_photos

METADATA = Metadata(
    exif=b"II*\0\x08\0\0\0" + bytes(6),
    xmp=b"<x:xmpmeta/>",
    iptc=b"8BIM\x04\x04\0\0\0\0\0\0",
    dpi=(300.0, 200.0),
    comment=b"\xff\0words",
    chunks=((b"tEXt", b"a\0b\xff"),),
    segments=((0xE3, b"Meta\0\0"),),
)


@pytest.fixture(scope="module")
def decoder():
    with Decoder() as decoder:
        yield decoder


@pytest.mark.parametrize(
    ("kind", "dtype"), [("PNG", "uint8"), ("PNG", "uint16"), ("TIFF", "float32"), ("JPEG", "uint8"), ("WEBP", "uint8")]
)
@pytest.mark.parametrize("grey", [False, True])
def test_it_answers_what_would_be_read_here(decoder, photo, kind, dtype, grey):
    pixels = (np.asarray(photo.convert("L" if grey else "RGB")) / 255 * (1 if dtype == "float32" else np.iinfo(dtype).max)).astype(dtype)
    data, _ = encode_photo(Photo(pixels, pixels[..., :1].squeeze() if not grey else None, METADATA), kind)
    here, there = decode_photo(data, "x"), decoder.decode(data, "x")
    for name in ("pixels", "alpha"):
        mine, its = getattr(here, name), getattr(there, name)
        assert (mine is None) == (its is None)
        assert mine is None or (mine.dtype == its.dtype and np.array_equal(mine, its))
    assert replace(there, pixels=None, alpha=None) == replace(here, pixels=None, alpha=None)


def test_what_cannot_be_read_is_told_with_its_name(decoder):
    with pytest.raises(PhotoError, match=r"^a \udcff b: cannot be read: not an image"):
        decoder.decode(b"nothing", "a \udcff b")


def test_a_hang_is_stopped_and_a_crash_told_and_the_next_is_decoded(photo, capfd):
    data, _ = encode_photo(Photo.of(photo), "PNG")
    with Decoder() as decoder:
        process = decoder.start()
        os.kill(process.pid, signal.SIGSTOP)  # it does not answer, and no more
        with pytest.raises(TimeoutError, match=r"^reading it took longer than 0.2 seconds \(--max-seconds\)$"):
            decoder.decode(data, "x", Limits(seconds=0.2))
        assert process.returncode == -signal.SIGKILL
        assert decoder.decode(data, "x").size == photo.size
        os.kill(decoder.start().pid, signal.SIGSEGV)
        with pytest.raises(PhotoError, match=r"^x: cannot be read: its decoder crashed \(SIGSEGV\)$"):
            decoder.decode(data, "x")
        process = decoder.start()
        assert decoder.decode(data, "x").size == photo.size
    assert process.returncode is not None
    assert capfd.readouterr() == ("", "")


def test_a_batch_whose_model_cannot_be_loaded_leaves_no_process(photo, tmp_path):
    photo.save(tmp_path / "one.png")

    def load():
        raise ValueError("no such checkpoint")

    batch = Batch(plan_photos([tmp_path / "one.png"], tmp_path / "out"), load, {})
    process = batch.decoder.start()
    with pytest.raises(ValueError, match="no such checkpoint"):
        list(batch.run())
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("verb", [("diagnose",), ("degrade", "--task", "night_rain", "-o", "x.png"), ("info",)])
def test_verbs_that_look_at_photographs_have_them_decoded_there(photo, tmp_path, monkeypatch, capsys, verb):
    """Where nothing is decoded in this process, they find their photograph all the same."""
    monkeypatch.chdir(tmp_path)
    photo.save("one.png")
    monkeypatch.setattr("foundir_hf.io.reading.decode_photo", None)
    assert main([verb[0], "one.png", *verb[1:]]) == 0
    assert main([verb[0], "one.png", *verb[1:], "--max-seconds", "0", *(["--overwrite"] if verb[0] == "degrade" else [])]) == 2
    assert capsys.readouterr().err == "foundir: one.png: reading it took longer than 0 seconds (--max-seconds).\n"


def test_so_have_verbs_that_read_folders_and_no_file_there_ends_them(photo, tmp_path, monkeypatch, capsys):
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    photo.save("photos/good.png")
    os.mkfifo("photos/pipe.png")  # nobody ever writes into it
    for module in ("io.reading", "data.samples"):
        monkeypatch.setattr(f"foundir_hf.{module}.decode_photo", None)
    assert main(["pack", "photos", "-o", "shards"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "skipped pipe.png: cannot be read: is no file"
    assert main(["clean", "photos", "-o", "clean.json", "--sheet", "sheet.png"]) == 0
    said = {name: verdict.reasons for name, verdict in read_manifest("clean.json").items()}
    assert said["pipe.png"] == ("cannot be read: is no file",)
    assert not any("cannot be read" in reason for reason in said["good.png"])
    assert main(["tasks", "--sheet", "tasks.png", "--image", "photos/good.png", "--family", "noise"]) == 0  # by what `evaluate` reads with
    assert main(["clean", "photos", "-o", "clean.json", "--max-seconds", "0"]) == 0
    assert read_manifest("clean.json")["good.png"].reasons == ("reading it took longer than 0 seconds (--max-seconds)",)
    capsys.readouterr()
    assert main(["pack", "photos", "-o", "none", "--max-megabytes", "0.001"]) == 2
    assert "None of the 2 samples can be decoded" in capsys.readouterr().err
