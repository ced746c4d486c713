"""HTML that the page shows: what is wrong with a photograph, how far the work is, what became of it. All text is escaped here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..cli.diagnose import LIKELY, SUSPECTED
from .pictures import EXPERT_COLOURS

# Of the defects, the likeliest; the rest would be noise.
_SHOWN = 5
# What an expert of the denoiser looks at.
EXPERT_WORDS = {
    "spatial": "compares places of the photo",
    "channel": "compares features, all of them",
    "sparse_channel": "compares features, the strongest",
}
# What a defect is to somebody who is no engineer.
WORDS = {
    "noise": "grain, coloured speckles",
    "blur": "smeared or out of focus",
    "compression": "blocks and halos",
    "low_resolution": "too few pixels",
    "ringing": "bright rims at edges",
    "interlacing": "combed lines of video",
    "darkness": "too little light",
    "overexposure": "too much light",
    "color": "a tint, or faded",
    "uneven_light": "shadows, dark corners",
    "haze": "a grey veil",
    "rain": "streaks",
    "raindrops": "drops on the lens",
    "flare": "stray light",
    "reflection": "a window's other side",
    "moire": "false stripes",
    "scratches": "lines and stains",
}


def duration(seconds: float) -> str:
    """As people say it: `4 s`, `2 min 10 s`."""
    seconds = max(1, round(seconds))
    return f"{seconds} s" if seconds < 60 else f"{seconds // 60} min {seconds % 60} s" if seconds % 60 else f"{seconds // 60} min"


def file_size(path: Path) -> str:
    """`3.4 MB`, `86 kB`."""
    size = path.stat().st_size
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{max(1, round(size / 1e3))} kB"


def note(text: str, kind: str = "plain") -> str:
    """A line on the page; `kind` is `plain`, `good` or `bad`."""
    role = ' role="alert"' if kind == "bad" else ' role="status"'
    return f'<p class="note {kind}"{role}>{escape(text)}</p>'


def waiting(text: str) -> str:
    """What is to come, in the place where it will be."""
    return f'<div class="next"><p>{escape(text)}</p></div>'


def diagnosis(probabilities: Mapping[str, float], size: tuple[int, int]) -> str:
    """A bar for every likely or suspected defect."""
    likeliest, highest = next(iter(probabilities.items()))
    head = f"{size[0]} x {size[1]} pixels"
    if highest < LIKELY:
        text = f"It looks clean. Most suspected: {spoken(likeliest)}, {highest:.0%}."
        return f'<section class="diagnosis" aria-label="Diagnosis"><h2>This photo <small>{head}</small></h2><p>{escape(text)}</p></section>'
    rows = []
    for name, probability in list(probabilities.items())[:_SHOWN]:
        if probability < SUSPECTED:
            continue
        words = WORDS.get(name, "")
        kind = "likely" if probability >= LIKELY else "perhaps"
        hint = f" <small>{escape(words)}</small>" if words else ""
        rows.append(
            f'<li class="{kind}"><span class="name">{escape(spoken(name))}{hint}</span>'
            f'<span class="bar" aria-hidden="true"><i style="width:{probability:.0%}"></i></span>'
            f'<span class="share">{probability:.0%}{" perhaps" if kind == "perhaps" else ""}</span></li>'
        )
    return (
        f'<section class="diagnosis" aria-label="Diagnosis"><h2>What is wrong with this photo <small>{head}</small></h2>'
        f"<ul>{''.join(rows)}</ul></section>"
    )


def progress(share: float, text: str) -> str:
    """A bar of the page's own, with words."""
    percent = f"{min(max(share, 0.0), 1.0):.0%}"
    return (
        f'<div class="progress" role="progressbar" aria-valuemin="0" aria-valuemax="100" aria-valuenow="{percent[:-1]}" '
        f'aria-valuetext="{escape(text)}" aria-label="Progress"><i style="width:{percent}"></i></div><p class="note">{escape(text)}</p>'
    )


def legend(names: Sequence[str], shares: Sequence[float]) -> str:
    """Of the map of experts."""
    entries = [
        f'<li><i style="background:rgb{colour}"></i>{escape(spoken(name))}, {share:.0%} of the work'
        f"<small>{escape(EXPERT_WORDS.get(name, ''))}</small></li>"
        for name, share, colour in zip(names, shares, EXPERT_COLOURS[: len(names)], strict=True)
    ]
    words = '<p class="fine">The denoiser has three parts, which share the work; the colour says which did most.</p>'
    return f'{words}<ul class="legend">{"".join(entries)}</ul>'


def curves(places: Any) -> str:
    """Tone curves as a plot.

    Args:
        places: `(9, 3, points)`: light that comes out, of a raster of 3 x 3 places, of red, green and blue; in [0, 1].
    """
    side, points = 220, places.shape[-1]

    def line(values: Any, style: str) -> str:
        along = " ".join(f"{i * side / (points - 1):.1f},{side * (1 - float(v)):.1f}" for i, v in enumerate(values))
        return f'<polyline class="{style}" points="{along}"/>'

    drawn = [line(values, f"place c{colour}") for place in places for colour, values in enumerate(place)]
    drawn += [line(values, f"mean c{colour}") for colour, values in enumerate(places.mean(axis=0))]
    return (
        f'<figure class="curves"><svg viewBox="-4 -4 {side + 8} {side + 8}" role="img" aria-label="Tone curves: light before, light after">'
        f'<rect width="{side}" height="{side}"/><line x1="0" y1="{side}" x2="{side}" y2="0"/>{"".join(drawn)}</svg>'
        "<figcaption>Light before (across) and after (up), for red, green and blue: thick the mean, thin nine places of the photo. "
        "On the diagonal nothing changes.</figcaption></figure>"
    )


def full_size(path: str, title: str, columns: Sequence[str], words: str) -> str:
    """A picture whose pixels are the screen's, however narrow that is, under its columns' names; `words` are for who cannot see it."""
    heads = "".join(f"<span>{escape(name)}</span>" for name in columns)
    return (
        f'<figure class="full-size"><figcaption>{escape(title)}</figcaption>'
        f'<div class="scroll" tabindex="0" role="group" aria-label="{escape(title)}">'
        f'<div class="sheet" style="grid-template-columns:repeat({len(columns)},1fr)">{heads}'
        f'<img src="gradio_api/file={quote(path)}" alt="{escape(words)}"></div></div></figure>'
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    """A table of text; a column that has none is left out, and the second one's words are the classes of their cells."""
    columns = [i for i in range(len(head)) if any(row[i] for row in rows)]

    def cell(row: Sequence[str], i: int) -> str:
        kind = f' class="{escape(row[i])}"' if i == 1 else ""
        return f"<td{kind}>{escape(row[i])}</td>"

    body = "".join(f"<tr>{''.join(cell(row, i) for i in columns)}</tr>" for row in rows)
    heads = "".join(f'<th scope="col">{escape(head[i])}</th>' for i in columns)
    inside = f"<caption>{escape(caption)}</caption><thead><tr>{heads}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="scroll"><table class="plain">{inside}</table></div>'


def spoken(name: str) -> str:
    """A name without its underscores."""
    return name.replace("_", " ")
