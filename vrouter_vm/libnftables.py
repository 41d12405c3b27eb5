"""libnftables through ctypes: one command buffer in, one answer out, in this process.

Called by `filter_tables` only. The library is what the `nft` program itself is made of, and comes with it (Debian:
libnftables1, a dependency of nftables; CentOS: in the nftables package). Against running the program it saves a fork
and exec in every pass: 3 ms instead of 23 ms for a small change.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from tf_reconcile.errors import ConfigError, Rejected, Transient
from vrouter_vm.netfilter import REQUEST, Netfilter, message, pack, parse_attributes

SYSTEM: Final = "nftables"

_LIBRARY: Final = "libnftables.so.1"
_OUTPUT_JSON: Final = 1 << 4  # NFT_CTX_OUTPUT_JSON of nftables/libnftables.h
_OUTPUT_TERSE: Final = 1 << 11  # NFT_CTX_OUTPUT_TERSE


# linux/netfilter/nf_tables.h; nftables is subsystem 10 of nfnetlink
_GET_RULE, _GET_GENERATION, _GET_OBJECT = (10 << 8 | number for number in (7, 16, 19))
_GENERATION_ID: Final = 1
_OBJECT_TABLE, _OBJECT_NAME, _OBJECT_TYPE, _OBJECT_DATA = 1, 2, 3, 4
_COUNTER, _PACKETS = 1, 2
_RULE_TABLE, _RULE_EXPRESSIONS, _RULE_USER_DATA = 1, 4, 7
_EXPRESSION_NAME, _EXPRESSION_DATA = 1, 2
_COMMENT: Final = bytes(1)  # libnftnl/udata.h, NFTNL_UDATA_RULE_COMMENT
_FAMILY_NUMBERS: Final = {"inet": 1, "arp": 3}  # linux/netfilter.h, NFPROTO_*


class _Objects(msgspec.Struct):
    """What is listed, object by object and not understood yet: whole, ten thousand rules would be fifty megabytes."""

    nftables: list[msgspec.Raw]


_Listing: Final = msgspec.json.Decoder(_Objects)


class LibNftables:
    """One libnftables context; for one thread. Works in the network namespace it is made in.

    Raises `ConfigError` from the constructor when the library is not installed.
    """

    def __init__(self) -> None:
        try:
            library = ctypes.CDLL(_LIBRARY)
        except OSError as error:
            raise ConfigError(f"cannot load {_LIBRARY}: {error}", allowed="the nftables package installed") from error
        for name, result, arguments in (
            ("nft_ctx_new", ctypes.c_void_p, [ctypes.c_uint32]),
            ("nft_ctx_free", None, [ctypes.c_void_p]),
            ("nft_ctx_buffer_output", ctypes.c_int, [ctypes.c_void_p]),
            ("nft_ctx_buffer_error", ctypes.c_int, [ctypes.c_void_p]),
            ("nft_ctx_output_set_flags", None, [ctypes.c_void_p, ctypes.c_uint]),
            ("nft_ctx_get_output_buffer", ctypes.c_char_p, [ctypes.c_void_p]),
            ("nft_ctx_get_error_buffer", ctypes.c_char_p, [ctypes.c_void_p]),
            ("nft_run_cmd_from_buffer", ctypes.c_int, [ctypes.c_void_p, ctypes.c_char_p]),
        ):
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        self._library = library
        self._libc = ctypes.CDLL(None)
        self._netfilter = Netfilter(SYSTEM)
        self._context = library.nft_ctx_new(0)
        library.nft_ctx_buffer_output(self._context)
        library.nft_ctx_buffer_error(self._context)
        library.nft_ctx_output_set_flags(self._context, _OUTPUT_JSON)

    def run(self, commands: str, *, operation: str, is_terse: bool = False) -> Iterable[dict[str, Any]]:
        """Run `commands` as one transaction; return the objects they list, to be gone through once, which is none for
        changes. `is_terse`: sets are listed without their elements.

        Raises `Rejected`, always that: the library gives no code. Nothing was changed then.
        """
        self._library.nft_ctx_output_set_flags(self._context, _OUTPUT_JSON | (_OUTPUT_TERSE if is_terse else 0))
        status = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
        output: bytes = self._library.nft_ctx_get_output_buffer(self._context) or b""
        errors: bytes = self._library.nft_ctx_get_error_buffer(self._context) or b""
        if status != 0:
            first_line = errors.decode(errors="replace").strip().partition("\n")[0]
            raise Rejected(SYSTEM, operation, reason=first_line or f"status {status}")
        return map(msgspec.json.decode, _Listing.decode(output).nftables) if output else ()

    def generation(self) -> int:
        """Return the number of the rule set: every transaction in this network namespace, by whomever, adds one.

        Raises `BoundaryError` when the kernel does not say.
        """
        self._netfilter.send(message(_GET_GENERATION, REQUEST, 0, b""))
        for _, _, body in self._netfilter.receive():
            for kind, value in parse_attributes(body[4:]):
                if kind == _GENERATION_ID:
                    return int.from_bytes(value, "big")
        raise Transient(SYSTEM, "generation", reason="the kernel's answer has no number")

    def counters(self, family: str, table: str) -> dict[str, int]:
        """Return the packets of a table's named counters; raises `BoundaryError`. The library would read all rules."""
        counted: dict[str, int] = {}
        asked = pack(_OBJECT_TABLE, table.encode() + bytes(1))
        for body in self._netfilter.dump(_GET_OBJECT, _FAMILY_NUMBERS[family], asked):
            found = dict(parse_attributes(body))
            of_table = bytes(found.get(_OBJECT_TABLE, b"")).rstrip(bytes(1)).decode()
            if of_table == table and int.from_bytes(found.get(_OBJECT_TYPE, b""), "big") == _COUNTER:
                name = bytes(found[_OBJECT_NAME]).rstrip(bytes(1)).decode()
                counted[name] = int.from_bytes(dict(parse_attributes(found[_OBJECT_DATA]))[_PACKETS], "big")
        return counted

    def rule_packets(self, family: str, table: str) -> dict[str, int]:
        """Return the packets that a table's rules have counted, by comment; raises `BoundaryError`."""
        counted: dict[str, int] = {}
        asked = pack(_RULE_TABLE, table.encode() + bytes(1))
        for body in self._netfilter.dump(_GET_RULE, _FAMILY_NUMBERS[family], asked):
            found = dict(parse_attributes(body))
            user_data = bytes(found.get(_RULE_USER_DATA, b""))
            if user_data[:1] == _COMMENT:
                comment = user_data[2 : 2 + user_data[1]].rstrip(bytes(1)).decode()
                counted[comment] = counted.get(comment, 0) + _packets_of(found.get(_RULE_EXPRESSIONS, memoryview(b"")))
        return counted

    def trim(self) -> None:
        """Give memory back to the system that a large listing took."""
        self._libc.malloc_trim(0)

    def accepts(self, commands: str) -> bool:
        """Run `commands` as one transaction; return whether that went well. For a look-up: `get` lists no JSON."""
        return bool(self._library.nft_run_cmd_from_buffer(self._context, commands.encode()) == 0)

    def close(self) -> None:
        """Free the context. What is loaded stays."""
        self._netfilter.close()
        if self._context is not None:
            self._library.nft_ctx_free(self._context)
            self._context = None


def _packets_of(expressions: memoryview) -> int:
    """Return the packets of the counters among a rule's expressions."""
    packets = 0
    for _, expression in parse_attributes(expressions):
        parts = dict(parse_attributes(expression))
        if bytes(parts.get(_EXPRESSION_NAME, b"")) == b"counter" + bytes(1):
            packets += int.from_bytes(dict(parse_attributes(parts[_EXPRESSION_DATA]))[_PACKETS], "big")
    return packets
