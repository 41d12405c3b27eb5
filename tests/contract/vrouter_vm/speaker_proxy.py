"""A speaker behind a proxy: every call goes through as it is, but a watch can be made to fail."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc

from vrouter_vm.overlay.bgp import is_local
from vrouter_vm.overlay.gobgp import gobgp_pb2

_STREAMS = {"ListPath", "ListPeer"}
_METHODS = [method.name for method in gobgp_pb2.DESCRIPTOR.services_by_name["GoBgpService"].methods]


class SpeakerProxy:
    """`tables_read`: how often the whole table was asked for beside the watch."""

    def __init__(self, speaker: Path) -> None:
        self._channel = grpc.insecure_channel(f"unix:{speaker}")
        self._stalled: set[int] = set()
        self._running: set[int] = set()
        self._lost: list[gobgp_pb2.Path] | None = None
        self.watches_begun = 0
        self.tables_read = 0

    def stall(self) -> None:
        """From now on the watches that run tell nothing, and do not end."""
        self._stalled |= self._running

    @contextmanager
    def losing_routes(self) -> Iterator[list[gobgp_pb2.Path]]:
        """Meanwhile the watches leave out what other hosts tell. Gives what has been left out by now."""
        lost = self._lost = []
        try:
            yield lost
        finally:
            self._lost = None

    def close(self) -> None:
        self._channel.close()

    def watch(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        if not gobgp_pb2.WatchEventRequest.FromString(request).HasField("peer"):
            self.tables_read += 1
            yield from self.stream("WatchEvent", request, context)
            return
        number = self.watches_begun = self.watches_begun + 1
        self._running.add(number)
        is_over = threading.Event()
        context.add_callback(is_over.set)
        for raw in self.stream("WatchEvent", request, context):
            if number in self._stalled:
                is_over.wait()
            answer = gobgp_pb2.WatchEventResponse.FromString(raw)
            if answer.WhichOneof("event") == "table":
                told = [path for path in answer.table.paths if not self._leaves_out(path)]
                answer = gobgp_pb2.WatchEventResponse(table=gobgp_pb2.WatchEventResponse.TableEvent(paths=told))
            yield answer.SerializeToString()
        self._running.discard(number)

    def _leaves_out(self, path: gobgp_pb2.Path) -> bool:
        if self._lost is None or is_local(path):
            return False
        self._lost.append(path)
        return True

    def stream(self, name: str, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        call = self._channel.unary_stream(f"/api.GoBgpService/{name}")(request)
        context.add_callback(call.cancel)
        try:
            yield from call
        except grpc.RpcError as error:
            if context.is_active():
                context.abort(error.code(), error.details())

    def handler(self, name: str) -> grpc.RpcMethodHandler:
        path = f"/api.GoBgpService/{name}"
        if name == "WatchEvent":
            return grpc.unary_stream_rpc_method_handler(self.watch)
        if name in _STREAMS:
            return grpc.unary_stream_rpc_method_handler(lambda request, context: self.stream(name, request, context))
        if name == "AddPathStream":
            many = self._channel.stream_unary(path)
            return grpc.stream_unary_rpc_method_handler(lambda requests, context: many(requests))
        one = self._channel.unary_unary(path)
        return grpc.unary_unary_rpc_method_handler(lambda request, context: one(request))


@contextmanager
def proxy_before(speaker: Path, *, at: Path) -> Iterator[SpeakerProxy]:
    """A proxy that listens at the socket `at`."""
    proxy = SpeakerProxy(speaker)
    server = grpc.server(ThreadPoolExecutor(16))
    handlers = {name: proxy.handler(name) for name in _METHODS}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("api.GoBgpService", handlers)])
    server.add_insecure_port(f"unix:{at}")
    server.start()
    try:
        yield proxy
    finally:
        proxy.close()
        server.stop(None).wait()
