"""The model card on the page."""

from __future__ import annotations

from foundir_hf.space.about import for_page, model_card, pictures_of, sections

CARD = """---
license: apache-2.0
---
# A card
![There](docs/a.png) ![Gone](docs/gone.png) ![Out](../secret.png) ![Far](https://example.com/x.png)
[Below](#below) [A file](docs/a.md)
"""


def test_pictures_beside_the_card_are_served_and_nothing_else_is(tmp_path):
    (tmp_path / "card" / "docs").mkdir(parents=True)
    (tmp_path / "card" / "docs" / "a.png").write_bytes(b"png")
    (tmp_path / "secret.png").write_bytes(b"png")
    card = tmp_path / "card" / "model_card.md"
    card.write_text(CARD)
    assert [path.as_posix() for path in pictures_of(card)] == ["docs/a.png"]
    text = for_page(card)
    assert text.startswith("# A card")
    assert f"![There](gradio_api/file={card.parent.resolve().as_posix()}/docs/a.png) *Gone* *Out*" in text
    assert "[Below](#below) [A file](https://github.com/" in text


def test_every_picture_of_our_own_card_is_there():
    card = model_card()
    assert card is not None
    assert for_page(card).count("](gradio_api/file=") == len(pictures_of(card)) > 0


def test_a_card_is_divided_at_its_headings_and_not_at_comments_of_its_code():
    text = "# A card\nWords.\n## One\n```sh\n## no heading\n```\n### Below\n## Two\nEnd.\n"
    parts = sections(text)
    assert [title for title, _ in parts] == ["", "One", "Two"]
    assert parts[1][1] == "```sh\n## no heading\n```\n### Below\n"
    assert text == "".join(f"## {title}\n{below}" if title else below for title, below in parts)
