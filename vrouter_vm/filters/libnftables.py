"""libnftables through ctypes: one command buffer in, one answer out, in this process.

Called by `tables` only. The library is what the `nft` program itself is made of, and comes with it (Debian:
libnftables1, a dependency of nftables; CentOS: in the nftables package). Against running the program it saves a fork
and exec in every pass: 3 ms instead of 23 ms for a small change.
"""

from __future__ import annotations

import ctypes
from typing import Any, Final

import msgspec

from tf_reconcile.errors import ConfigError, Rejected
from vrouter_vm.filters.nf_tables import SYSTEM, NfTables

_LIBRARY: Final = "libnftables.so.1"
_OUTPUT_JSON: Final = 1 << 4  # NFT_CTX_OUTPUT_JSON of nftables/libnftables.h
_FLOWTABLE: Final = """
table inet vrouter_trial {
	flowtable answered { hook ingress priority filter; devices = { "lo" }; }
	chain forward { flow add @answered; }
}
"""


class _Objects(msgspec.Struct):
    """What is listed (libnftables-json(5))."""

    nftables: list[dict[str, Any]]


class LibNftables:
    """One libnftables context; for one thread. Works in the network namespace it is made in. `kernel` is what answers
    without the library.

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
            ("nft_ctx_set_dry_run", None, [ctypes.c_void_p, ctypes.c_bool]),
            ("nft_ctx_output_set_flags", None, [ctypes.c_void_p, ctypes.c_uint]),
            ("nft_ctx_get_output_buffer", ctypes.c_char_p, [ctypes.c_void_p]),
            ("nft_ctx_get_error_buffer", ctypes.c_char_p, [ctypes.c_void_p]),
            ("nft_run_cmd_from_buffer", ctypes.c_int, [ctypes.c_void_p, ctypes.c_char_p]),
        ):
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        self._library = library
        self.kernel = NfTables()
        self._context = library.nft_ctx_new(0)
        library.nft_ctx_buffer_output(self._context)
        library.nft_ctx_buffer_error(self._context)
        library.nft_ctx_output_set_flags(self._context, _OUTPUT_JSON)

    def run(self, commands: str, *, operation: str) -> list[dict[str, Any]]:
        """Run `commands` as one transaction; return the objects they list, which is none for changes.

        To be asked for sets only, one at a time: for anything else the library reads every rule of the host first.
        Raises `Rejected`, always that: the library gives no code. Nothing was changed then.
        """
        status = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
        output: bytes = self._library.nft_ctx_get_output_buffer(self._context) or b""
        errors: bytes = self._library.nft_ctx_get_error_buffer(self._context) or b""
        if status != 0:
            first_line = errors.decode(errors="replace").strip().partition("\n")[0]
            raise Rejected(SYSTEM, operation, reason=first_line or f"status {status}")
        return msgspec.json.decode(output, type=_Objects).nftables if output else []

    def has_flowtables(self) -> bool:
        """Return whether the kernel has flowtables; it loads the modules if it may. Changes nothing."""
        self._library.nft_ctx_set_dry_run(self._context, True)
        try:
            return self.accepts(_FLOWTABLE)
        finally:
            self._library.nft_ctx_set_dry_run(self._context, False)

    def accepts(self, commands: str) -> bool:
        """Run `commands` as one transaction; return whether that went well. For a look-up: `get` lists no JSON."""
        return bool(self._library.nft_run_cmd_from_buffer(self._context, commands.encode()) == 0)

    def close(self) -> None:
        """Free the context. What is loaded stays."""
        self.kernel.close()
        if self._context is not None:
            self._library.nft_ctx_free(self._context)
            self._context = None
