from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from foundir_hf.io.pictures import change_map, contact_sheet, write_picture


def plain(width: int, height: int, color: str) -> Image.Image:
    return Image.new("RGB", (width, height), color)


def test_every_picture_stands_in_its_cell_at_one_width():
    sheet = contact_sheet(
        [("a", plain(40, 20, "red")), ("b", plain(80, 80, "lime")), ("c", plain(10, 5, "blue"))], columns=2, width=40, bar=12
    )
    pixels = np.asarray(sheet)
    assert sheet.size == (80, 12 + 40 + 12 + 20)
    assert (pixels[12:32, :40] == (255, 0, 0)).all()
    assert (pixels[12:52, 40:] == (0, 255, 0)).all()
    assert (pixels[64:84, :40] == (0, 0, 255)).all()
    assert (pixels[64:84, 40:] == 255).all()  # an unfinished row stays paper


def test_captions_are_written_above_their_pictures_only():
    cells = [("damaged", plain(60, 30, "white"))]
    blank, captioned = (np.asarray(contact_sheet([(caption, cells[0][1])], columns=1, width=60)) for caption in ("", "damaged"))
    changed = np.argwhere((blank != captioned).any(axis=2))
    assert len(changed) > 20
    assert changed[:, 0].max() < 20


def test_grey_pictures_and_palettes_are_shown_as_they_look():
    sheet = contact_sheet([("grey", Image.new("L", (8, 8), 90))], columns=1, width=8)
    assert (np.asarray(sheet)[-1, 0] == 90).all()


def test_an_empty_sheet_is_refused():
    with pytest.raises(ValueError, match="`cells`"):
        contact_sheet([], columns=2, width=40)


@pytest.mark.parametrize(("name", "form"), [("a.jpg", "JPEG"), ("a.JPEG", "JPEG"), ("a.png", "PNG")])
def test_a_picture_is_written_in_the_format_of_its_suffix(tmp_path, name, form):
    write_picture(plain(16, 16, "red"), tmp_path / "new" / name)
    written = Image.open(tmp_path / "new" / name)
    assert written.format == form
    assert written.size == (16, 16)


def test_a_jpeg_has_full_colour_from_quality_85(tmp_path):
    layers = {}
    for quality in (84, 85):
        write_picture(plain(16, 16, "red"), tmp_path / "a.jpg", quality=quality)
        with Image.open(tmp_path / "a.jpg") as written:
            layers[quality] = [sampling[1:3] for sampling in written.layer]
    assert layers == {84: [(2, 2), (1, 1), (1, 1)], 85: [(1, 1)] * 3}


def test_another_suffix_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(ValueError, match=r"a\.gif: must end in one of \.jpg"):
        write_picture(plain(8, 8, "red"), tmp_path / "a.gif")
    assert list(tmp_path.iterdir()) == []


def test_a_change_map_is_dark_where_nothing_changed_and_bright_where_much_did():
    before = Image.new("RGB", (300, 40), (100, 100, 100))
    after = before.copy()
    after.paste((110, 110, 110), (100, 0, 200, 40))
    after.paste((250, 20, 100), (200, 0, 300, 40))
    drawn = np.asarray(change_map(before, after)).astype(int).sum(axis=2)
    assert drawn.shape == (64, 300)
    assert drawn[:40, :100].max() < drawn[:40, 100:200].min() < drawn[:40, 200:].min()
    assert np.asarray(change_map(before.resize((150, 20)), before)).astype(int).sum(axis=2)[:40].max() < 60
