"""What was done to a photograph, written into its XMP, so that nobody has to guess later which pixels are a model's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

from .photograph import Metadata

NAMESPACE = "https://github.com/foundir-hf/foundir_hf/ns/1.0/"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_OWN = re.compile(rb"<rdf:Description\b[^>]*xmlns:foundir=[^>]*/>\s*")
_END = re.compile(rb"</(?:[A-Za-z_][\w.-]*:)?RDF\s*>")
_EMPTY = (
    b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>\n<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="'
    + _RDF.encode()
    + b'">\n</rdf:RDF></x:xmpmeta>\n<?xpacket end="w"?>'
)


def with_record(metadata: Metadata, record: Mapping[str, str]) -> Metadata:
    """Metadata whose XMP tells `record` in place of an earlier one; the rest of the packet stays as it is, to the byte.

    Args:
        metadata: Of the photograph. A packet that is no UTF-8 is left alone.
        record: Names, of letters and underscores, and what they stand for.
    """
    attributes = " ".join(f"foundir:{name}={quoteattr(value)}" for name, value in record.items())
    own = f'<rdf:Description rdf:about="" xmlns:rdf="{_RDF}" xmlns:foundir="{NAMESPACE}" {attributes}/>\n'.encode()
    packet = _OWN.sub(b"", metadata.xmp or _EMPTY)
    ends = list(_END.finditer(packet))
    if not ends:
        return metadata
    return replace(metadata, xmp=packet[: ends[-1].start()] + own + packet[ends[-1].start() :])


def is_record_alone(metadata: Metadata) -> bool:
    """Whether the XMP is there for the record only."""
    return metadata.xmp is not None and _OWN.sub(b"", metadata.xmp) == _EMPTY


def read_record(metadata: Metadata) -> dict[str, str]:
    """What [`with_record`] wrote; empty if there is nothing."""
    found = _OWN.search(metadata.xmp or b"")
    if found is None:
        return {}
    try:
        attributes = ElementTree.fromstring(found[0]).attrib
    except ElementTree.ParseError:
        return {}
    return {name.removeprefix(f"{{{NAMESPACE}}}"): value for name, value in attributes.items() if name.startswith(f"{{{NAMESPACE}}}")}
