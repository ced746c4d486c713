"""What a visitor may ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from foundir_hf.cli import build_parser
from foundir_hf.space.settings import PRESETS, SettingError, Settings, check_settings, measured

CARD = Path(__file__).parents[2] / "model_card.md"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"preset": "best"}, "`preset` must be one of fast, balanced, thorough; got 'best'"),
        ({"preset": ["fast"]}, "`preset` must be one of"),
        ({"tone": None}, "`tone` must be one of auto, off, always; got None"),
        ({"strength": "much"}, r"`strength` must be a number in \[0, 1\], got 'much'"),
        ({"strength": float("nan")}, "`strength` must be a number"),
        ({"size": "enlarge by a factor", "factor": 9}, r"`factor` must be a number in \[1, 8\], got 9"),
        ({"size": "enlarge to a width", "width": 10.5}, "`width` must be a whole number"),
        ({"size": "enlarge to a width", "width": None}, "`width` must be a number"),
        ({"quality": 101}, r"`quality` must be a number in \[1, 100\], got 101"),
        ({"format": "GIF"}, "`format` must be one of as it came, PNG, JPEG, WebP, TIFF; got 'GIF'"),
        ({"adapters": "scans"}, "`adapters` must be of this server's: it has none; got 'scans'"),
        ({"adapters": "/etc", "known_adapters": ("scans",)}, "`adapters` must be of this server's: scans; got '/etc'"),
        ({"adapters": "scans:9", "known_adapters": ("scans",)}, r"weight of scans` must be a number in \[0, 2\], got '9'"),
        ({"adapters": 3}, "`adapters` must be text"),
    ],
)
def test_what_cannot_be_taken_is_named_with_what_is_accepted(given, told):
    with pytest.raises(SettingError, match=told):
        check_settings(**given)


def test_what_the_page_asks_for_is_what_the_command_line_reads():
    settings = check_settings("thorough", "off", 0.5, "enlarge to a width", 2, 300, "JPEG", 80, "scans:0.5, old", ("scans", "old"))
    arguments = settings.arguments("tiny", Path("adapters"), (200, 100))
    command = ["restore", "photo.png", "-o", "out.jpg", "--steps", "4", "--tone", "off", "--strength", "0.5", "--upscale", "1.5"]
    command += ["--adapter", "adapters/scans:0.5", "--adapter", "adapters/old:1"]
    expected = vars(build_parser().parse_args(command))
    assert vars(arguments) == {name: expected[name] for name in vars(arguments)}
    assert settings.name_of("/somewhere/my photo.png") == "my photo-restored.jpg"
    assert settings.quality == 80


def test_the_defaults_are_the_command_line_s():
    assert check_settings() == Settings()
    arguments = Settings().arguments("tiny", None, (10, 10))
    expected = vars(build_parser().parse_args(["restore", "photo.png", "-o", "out.png"]))
    assert vars(arguments) == {name: expected[name] for name in vars(arguments)}


def test_a_width_is_between_the_photo_s_own_and_eight_times_that():
    settings = check_settings(size="enlarge to a width", width=100)
    assert settings.upscale((40, 30)) == 2.5
    for width in (101, 12):
        with pytest.raises(SettingError, match="`width` must be"):
            settings.upscale((width, 30))


def test_a_photo_stays_in_its_format_where_that_can_be_written():
    assert Settings().name_of("a.TIFF") == "a-restored.TIFF"
    assert Settings().name_of("a.gif") == "a-restored.png"


def test_what_presets_measure_is_read_from_the_card():
    card = CARD.read_text(encoding="utf-8")
    found = measured(card)
    assert set(PRESETS.values()) <= set(found)
    assert all(10 < psnr < 60 for psnr in found.values())
    assert measured("# A card that says nothing") == {}
