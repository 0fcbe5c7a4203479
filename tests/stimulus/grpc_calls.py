#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""gRPC's own library, as a server and as a client: grpc_calls.py serve ADDRESS | call ADDRESS THREADS COUNT CODE...

The server's method kilter.test.Echo/Call answers with what the request says: "CODE DELAY_MS SIZE". The client
asks for each of the codes in turn and prints how often it was given which: "OK 100"."""

import collections
import sys
import threading
import time
from concurrent import futures

import grpc

METHOD = "/kilter.test.Echo/Call"
STREAM = "/kilter.test.Echo/Stream"
CODES = {code.value[0]: code for code in grpc.StatusCode}


def answer(request, context):
    code, delay, size = (int(word) for word in request.split())
    time.sleep(delay / 1000)
    if code:
        context.abort(CODES[code], "as asked for")
    return b"x" * size


def answers(request, context):
    for _ in range(5):
        yield b"x" * 100
    answer(request, context)


class Handler(grpc.GenericRpcHandler):
    def service(self, details):
        if details.method == METHOD:
            return grpc.unary_unary_rpc_method_handler(answer)
        if details.method == STREAM:
            return grpc.unary_stream_rpc_method_handler(answers)
        return None


def serve(address):
    server = grpc.server(futures.ThreadPoolExecutor(32), handlers=[Handler()], options=[("grpc.so_reuseport", 0)])
    server.add_insecure_port(address)
    server.start()
    server.wait_for_termination()


def call(address, threads, count, requests, timeout=30.0):
    """Each thread has a connection of its own."""
    seen = collections.Counter()
    lock = threading.Lock()

    def work():
        with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            unary, stream = channel.unary_unary(METHOD), channel.unary_stream(STREAM)
            for i in range(count):
                request = requests[i % len(requests)]
                try:
                    if request.startswith(b"stream "):
                        for _ in stream(request[7:], timeout=timeout):
                            pass
                    else:
                        unary(request, timeout=timeout)
                    code = grpc.StatusCode.OK
                except grpc.RpcError as error:
                    code = error.code()
                with lock:
                    seen[code.name] += 1

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    for name, n in sorted(seen.items()):
        print(name, n)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        call(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), [a.encode() for a in sys.argv[6:]], float(sys.argv[5]))
