#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The container runtime interface (k8s.io/cri-api), as much of it as the tests use, over the gRPC of Debian's python: run
by that and by nothing else, for it starts threads of its own.

    cri_host.py call SOCKET         a client of a real runtime: a line of JSON [method, {fields}] each way
    cri_host.py serve SOCKET FILE   a runtime that is none: says what FILE says, and writes each call to FILE.calls
"""

import base64
import concurrent.futures
import json
import os
import sys
import threading

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

# A field: its number and its type; "*": repeated, "map": string to string. What is not used is left out.
_SCALARS = {"string": 9, "uint32": 13, "int64": 3, "bool": 8, "int32": 5, "bytes": 12}

MESSAGES = {
    "ContainerFilter": {"id": (1, "string"), "pod_sandbox_id": (3, "string")},
    "ListContainersRequest": {"filter": (1, "ContainerFilter")},
    "Container": {"id": (1, "string"), "pod_sandbox_id": (2, "string"), "metadata": (3, "ContainerMetadata"),
                  "image": (4, "ImageSpec"), "image_ref": (5, "string"), "state": (6, "int32"),
                  "created_at": (7, "int64"), "labels": (8, "map"), "annotations": (9, "map")},
    "ListContainersResponse": {"containers": (1, "*Container")},
    "PodSandboxFilter": {"id": (1, "string")},
    "ListPodSandboxRequest": {"filter": (1, "PodSandboxFilter")},
    "PodSandbox": {"id": (1, "string"), "metadata": (2, "PodSandboxMetadata"), "state": (3, "int32"),
                   "created_at": (4, "int64"), "labels": (5, "map"), "annotations": (6, "map")},
    "ListPodSandboxResponse": {"items": (1, "*PodSandbox")},
    "PodSandboxMetadata": {"name": (1, "string"), "uid": (2, "string"), "namespace": (3, "string"),
                           "attempt": (4, "uint32")},
    "ContainerMetadata": {"name": (1, "string"), "attempt": (2, "uint32")},
    "NamespaceOption": {"network": (1, "int32"), "pid": (2, "int32"), "ipc": (3, "int32")},
    "LinuxSandboxSecurityContext": {"namespace_options": (1, "NamespaceOption")},
    "LinuxPodSandboxConfig": {"cgroup_parent": (1, "string"), "security_context": (2, "LinuxSandboxSecurityContext")},
    "PodSandboxConfig": {"metadata": (1, "PodSandboxMetadata"), "hostname": (2, "string"),
                         "log_directory": (3, "string"), "labels": (6, "map"), "annotations": (7, "map"),
                         "linux": (8, "LinuxPodSandboxConfig")},
    "RunPodSandboxRequest": {"config": (1, "PodSandboxConfig")},
    "RunPodSandboxResponse": {"pod_sandbox_id": (1, "string")},
    "ImageSpec": {"image": (1, "string")},
    "Mount": {"container_path": (1, "string"), "host_path": (2, "string"), "readonly": (3, "bool")},
    "LinuxContainerSecurityContext": {"namespace_options": (3, "NamespaceOption")},
    "LinuxContainerConfig": {"security_context": (2, "LinuxContainerSecurityContext")},
    "ContainerConfig": {"metadata": (1, "ContainerMetadata"), "image": (2, "ImageSpec"), "command": (3, "*string"),
                        "args": (4, "*string"), "mounts": (7, "*Mount"), "labels": (9, "map"),
                        "annotations": (10, "map"), "log_path": (11, "string"), "linux": (15, "LinuxContainerConfig")},
    "CreateContainerRequest": {"pod_sandbox_id": (1, "string"), "config": (2, "ContainerConfig"),
                               "sandbox_config": (3, "PodSandboxConfig")},
    "CreateContainerResponse": {"container_id": (1, "string")},
    "StartContainerRequest": {"container_id": (1, "string")},
    "StartContainerResponse": {},
    "ContainerStatusRequest": {"container_id": (1, "string"), "verbose": (2, "bool")},
    "ContainerStatusResponse": {"info": (2, "map")},
    "ExecSyncRequest": {"container_id": (1, "string"), "cmd": (2, "*string"), "timeout": (3, "int64")},
    "ExecSyncResponse": {"stdout": (1, "bytes"), "stderr": (2, "bytes"), "exit_code": (3, "int32")},
    "StopPodSandboxRequest": {"pod_sandbox_id": (1, "string")},
    "StopPodSandboxResponse": {},
    "RemovePodSandboxRequest": {"pod_sandbox_id": (1, "string")},
    "RemovePodSandboxResponse": {},
}


def _field(message, name, number, kind, package):
    field = message.field.add(name=name, number=number, label=1)
    if kind[0] == "*":
        field.label = 3
        kind = kind[1:]
    if kind == "map":
        entry = message.nested_type.add(name="".join(p.capitalize() for p in name.split("_")) + "Entry")
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, label=1, type=9)
        entry.field.add(name="value", number=2, label=1, type=9)
        field.label, field.type, field.type_name = 3, 11, f".{package}.{message.name}.{entry.name}"
    elif kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type, field.type_name = 11, f".{package}.{kind}"


def _messages(package):
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            _field(message, field, number, kind, package)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    factory = message_factory.MessageFactory(pool)
    return {name: factory.GetPrototype(pool.FindMessageTypeByName(f"{package}.{name}")) for name in MESSAGES}


def call(path):
    messages = _messages("runtime.v1")
    with grpc.insecure_channel(f"unix:{path}") as channel:
        for line in sys.stdin:
            method, fields = json.loads(line)
            request, answer = messages[f"{method}Request"], messages[f"{method}Response"]
            stub = channel.unary_unary(f"/runtime.v1.RuntimeService/{method}",
                                       request_serializer=request.SerializeToString,
                                       response_deserializer=answer.FromString)
            try:
                done = stub(json_format.ParseDict(fields, request()), timeout=60)
                said = json_format.MessageToDict(done, preserving_proto_field_name=True)
            except grpc.RpcError as error:
                said = {"error": f"{method}: {error.code()}: {error.details()}"}
            print(json.dumps(said), flush=True)


class Runtime(grpc.GenericRpcHandler):
    """FILE: {"versions": [...], "containers": [...], "pods": [...]}, an item's "pad" being the bytes of an annotation;
    and one of these besides: "hang": no call is ever answered; "status": [code, text]; "raw": the answer's bytes in
    base64. A call is written down as "VERSION METHOD ID", "*" for all."""

    def __init__(self, file):
        self.file = file
        self.messages = {version: _messages(version) for version in ("runtime.v1", "runtime.v1alpha2")}
        self.lock = threading.Lock()

    def plan(self):
        with open(self.file, encoding="utf-8") as f:
            return json.load(f)

    def note(self, what):
        with self.lock, open(self.file + ".calls", "a", encoding="utf-8") as f:
            print(what, file=f)

    def service(self, details):
        _, service, method = details.method.split("/")
        version = service.rsplit(".", 1)[0]
        if version not in self.plan().get("versions", ["runtime.v1"]):
            self.note(f"{version} {method} unimplemented")
            return None  # gRPC says UNIMPLEMENTED
        messages = self.messages[version]

        def answer(request, context):
            plan = self.plan()
            only = request.filter.id
            self.note(f"{version} {method} {only or '*'}")
            if plan.get("hang"):
                threading.Event().wait(120)
            if "status" in plan:
                context.abort({c.value[0]: c for c in grpc.StatusCode}[plan["status"][0]], plan["status"][1])
            if "raw" in plan:
                return base64.b64decode(plan["raw"])
            items = [dict(item) for item in plan["containers" if method == "ListContainers" else "pods"]
                     if not only or item["id"] == only]
            for item in items:
                item["annotations"] = {"pad": "x" * item.pop("pad", 0)}
            field = "containers" if method == "ListContainers" else "items"
            return json_format.ParseDict({field: items}, messages[f"{method}Response"]()).SerializeToString()

        return grpc.unary_unary_rpc_method_handler(answer, request_deserializer=messages[f"{method}Request"].FromString,
                                                   response_serializer=None)


def serve(path, file):
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(8), handlers=[Runtime(file)],
                         options=[("grpc.max_send_message_length", -1)])
    server.add_insecure_port(f"unix:{path}")
    server.start()
    os.chmod(path, 0o660)
    server.wait_for_termination()


if __name__ == "__main__":
    {"call": call, "serve": serve}[sys.argv[1]](*sys.argv[2:])
