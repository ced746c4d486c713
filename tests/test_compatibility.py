"""The table of `compatibility.py`, line by line, and the page that is printed from it."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from compatibility import SIGNATURES, TABLE, Entry, Kit, arguments, page

from foundir_hf import FoundIRPipeline

PAGE = Path(__file__).parents[1] / "docs" / "compatibility.md"


@pytest.fixture
def kit(pipeline, sdxl_with_text, photo, tmp_path) -> Kit:
    copies = [FoundIRPipeline(**copy.deepcopy(pipe.components)) for pipe in (pipeline, sdxl_with_text)]
    for pipe in copies:
        pipe.set_progress_bar_config(disable=True)
    return Kit(*copies, photo, tmp_path)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_a_line_of_the_table(row: Entry, kit: Kit):
    if row.refused is None:
        row.check(kit)
        return
    with pytest.raises(row.refused) as caught:
        row.check(kit)
    message = str(caught.value)
    assert row.says in message
    assert len(message.strip().splitlines()) == 1 or (row.refused is ValueError and "trust_remote_code" in message)  # diffusers' own text


@pytest.mark.parametrize(("name", "ours", "theirs", "absent"), SIGNATURES, ids=[row[0] for row in SIGNATURES])
def test_every_argument_of_diffusers_is_taken_or_told_why_not(name, ours, theirs, absent):
    (mine, others), (wanted, _) = arguments(ours), arguments(theirs)
    missing = [] if others else [argument for argument in wanted if argument not in mine and argument not in absent]
    assert not missing, f"diffusers' counterpart of {name} takes {', '.join(missing)}: take it, or say why not in SIGNATURES."
    assert set(absent) <= set(wanted), f"{name}: {sorted(set(absent) - set(wanted))} are no arguments of diffusers' counterpart."
    assert not set(absent) & set(mine)


def test_the_page_is_printed_from_the_table():
    assert PAGE.read_text(encoding="utf-8") == page(), "Run: python tests/compatibility.py > docs/compatibility.md"
