"""Pure: the properties that vCenter hands a VM in its OVF environment, as the same document that a YAML file gives.

The environment is the XML document of DSP0243 (OVF 2.1, clause 9.5). A property's key is a path into the settings
(`management.address`); its value is always text, so it is turned into what the settings want at that place. An empty
value is a property that nobody filled in. Keys of other products are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, TypeGuard, get_args, get_type_hints
from xml.etree import ElementTree

import msgspec

from tf_reconcile.errors import ConfigError
from vrouter_firstboot.settings import SiteSettings

_NAMESPACE: Final = "{http://schemas.dmtf.org/ovf/environment/1}"
_TRUTHS: Final = {"true": True, "false": False}


def parse_ovf_environment(xml: str, *, file: str) -> dict[str, Any]:
    """Return the settings in an OVF environment, empty when it has none of ours; raises `ConfigError` for no XML."""
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        raise ConfigError(
            f"not an OVF environment: {error}", file=file, allowed="the XML that vCenter writes"
        ) from error
    document: dict[str, Any] = {}
    known = dict(property_types())
    for element in root.iter(f"{_NAMESPACE}Property"):
        key, value = element.get(f"{_NAMESPACE}key", ""), element.get(f"{_NAMESPACE}value", "").strip()
        if key in known and value:
            _put(document, key.split("."), _typed(value, known[key]))
    return document


def property_types(kind: type[msgspec.Struct] = SiteSettings, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield each key that a property may have, in the order of the settings, with the type of its value."""
    hints = get_type_hints(kind, include_extras=False)
    for name in kind.__struct_fields__:
        hint = hints[name]
        section = next((part for part in (hint, *get_args(hint)) if _is_section(part)), None)
        if section is not None:
            yield from property_types(section, f"{prefix}{name}.")
        elif not _is_mapping(hint):  # free keys of the daemons have no place in a form
            yield f"{prefix}{name}", hint


def _typed(text: str, hint: object) -> object:
    """Return `text` as the settings take it; what does not fit stays text, for the validation to refuse by name."""
    if _holds(hint, tuple):
        # Not at blanks: a public key has some.
        return [item.strip() for item in re.split(r"[,\n]", text) if item.strip()]
    if _holds(hint, bool):
        return _TRUTHS.get(text.lower(), text)
    if _holds(hint, int):
        return int(text) if text.isdigit() else text
    return text


def _holds(hint: object, kind: type) -> bool:
    return hint is kind or getattr(hint, "__origin__", None) is kind or any(_holds(part, kind) for part in _parts(hint))


def _parts(hint: object) -> tuple[object, ...]:
    return () if getattr(hint, "__origin__", None) is tuple else get_args(hint)


def _is_section(hint: object) -> TypeGuard[type[msgspec.Struct]]:
    return isinstance(hint, type) and issubclass(hint, msgspec.Struct)


def _is_mapping(hint: object) -> bool:
    return getattr(hint, "__origin__", None) is dict


def _put(document: dict[str, Any], path: list[str], value: object) -> None:
    for step in path[:-1]:
        document = document.setdefault(step, {})
    document[path[-1]] = value
