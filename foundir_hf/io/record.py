"""What was done to a photograph, written into its XMP, so that nobody has to guess later which pixels are a model's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

from .formats import xmp
from .photograph import Metadata

NAMESPACE = "https://github.com/foundir-hf/foundir_hf/ns/1.0/"
_DESCRIPTION = re.compile(rb"<rdf:Description\b[^<>]*+>\n?")


def with_record(metadata: Metadata, record: Mapping[str, str]) -> Metadata:
    """Metadata whose XMP tells `record` in place of an earlier one; the rest of the packet stays as it is, to the byte.

    Args:
        metadata: Of the photograph. A packet that is no UTF-8 is left alone.
        record: Names, of letters and underscores, and what they stand for.
    """
    attributes = " ".join(f"foundir:{name}={quoteattr(value)}" for name, value in record.items())
    own = f'<rdf:Description rdf:about="" xmlns:rdf="{xmp.RDF}" xmlns:foundir="{NAMESPACE}" {attributes}/>\n'.encode()
    packet = xmp.with_description(_without_own(metadata.xmp or xmp.EMPTY), own)
    return metadata if packet is None else replace(metadata, xmp=packet)


def is_record_alone(metadata: Metadata) -> bool:
    """Whether the XMP is there for the record only."""
    return metadata.xmp is not None and _without_own(metadata.xmp) == xmp.EMPTY


def _is_own(description: bytes) -> bool:
    return b"xmlns:foundir=" in description and description.rstrip().endswith(b"/>")


def _without_own(packet: bytes) -> bytes:
    return _DESCRIPTION.sub(lambda found: b"" if _is_own(found[0]) else found[0], packet)


def read_record(metadata: Metadata) -> dict[str, str]:
    """What [`with_record`] wrote; empty if there is nothing."""
    own = [found[0] for found in _DESCRIPTION.finditer(metadata.xmp or b"") if _is_own(found[0])]
    if not own:
        return {}
    try:
        attributes = ElementTree.fromstring(own[0]).attrib
    except ElementTree.ParseError:
        return {}
    return {name.removeprefix(f"{{{NAMESPACE}}}"): value for name, value in attributes.items() if name.startswith(f"{{{NAMESPACE}}}")}
