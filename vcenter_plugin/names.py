"""The name of a portgroup: from a virtual network to what vCenter stores, and back. Nothing else builds or reads one.

vCenter keeps `/`, `\\` and `%` in names as `%2f`, `%5c` and `%25` (vSphere API reference, `ManagedEntity.name`), takes
80 characters, and compares without regard to case. A name is for people: which network a portgroup stands for is told
by its mark.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from vcenter_plugin.model import NameKey, VnUuid

MOST_CHARACTERS = 80
_ESCAPES = {"%": "%25", "/": "%2f", "\\": "%5c"}
_ESCAPED = re.compile("%(25|2f|5c)", re.IGNORECASE)
_PLAIN = {escape[1:]: plain for plain, escape in _ESCAPES.items()}


def portgroup_name(*, fq_name: Sequence[str], display_name: str, tenant: Sequence[str], vn_uuid: VnUuid) -> str:
    """Return the plain name for a virtual network's portgroup; `format_name` of it has at most 80 characters.

    TF fixes a network's fq_name for its life, so a rename in TF changes the display name: that one is used, and the
    portgroup follows it. A network of another project is shown as `<project>.<name>`. What is too long is cut and
    ends in `~` and the first eight digits of the uuid.
    """
    name = display_name or fq_name[-1]
    if tuple(fq_name[:-1]) != tuple(tenant):
        name = f"{fq_name[-2]}.{name}"
    return name if len(format_name(name)) <= MOST_CHARACTERS else shortened_name(name, vn_uuid)


def shortened_name(name: str, vn_uuid: VnUuid) -> str:
    """Return `name`, cut as far as needed, with a suffix that no other network's name has."""
    suffix = f"~{vn_uuid[:8]}"
    while len(format_name(name + suffix)) > MOST_CHARACTERS:
        name = name[:-1]
    return name + suffix


def format_name(plain: str) -> str:
    """Return the form that goes to vCenter; `parse_name` inverts it."""
    return "".join(_ESCAPES.get(char, char) for char in plain)


def parse_name(stored: str) -> str:
    """Return the name as people read it from the form in which vCenter stores it."""
    return _ESCAPED.sub(lambda match: _PLAIN[match[1].lower()], stored)


def name_key(plain: str) -> NameKey:
    """Return what two names have in common when vCenter takes them for the same."""
    return NameKey(plain.casefold())
