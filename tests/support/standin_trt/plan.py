"""The stand-in's plan: a header that says what it was built for, and the model."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any

import onnx

from standin_trt import rules, texts
from standin_trt.behind import World

MAGIC = b"ptrtSTAN"
HEAD = struct.Struct("<8sIQ")


@dataclass
class Plan:
    """What a plan holds: ``header`` is JSON, ``model`` the network as an ONNX file's bytes."""

    header: dict[str, Any]
    model: bytes

    @classmethod
    def made(cls, world: World, network: Any, config: Any) -> Plan:
        """The plan of a network."""
        flags = [name for name in world.module.BuilderFlag.__members__ if config.has(name)]
        header = {
            "version": list(world.version),
            "sm": list(world.compute_capability),
            "gpu": world.device_name,
            "name": network.name,
            "strong": network.strong,
            "flags": flags,
            "hardware": config.hardware_compatibility_level.name,
            "verbosity": config.profiling_verbosity.name,
            "aux_streams": max(config.max_aux_streams, 0),
            "tensors": [
                {
                    "name": one.name,
                    "kind": one.kind,
                    "shape": one._shape,
                    "input": one.is_network_input,
                    "formats": one.allowed_formats,
                }
                for one in [*network.inputs, *network.outputs]
            ],
            "profiles": [profile.shapes for profile in config.profiles],
            "layers": layers(network.model, network.strong, flags),
            "uncapturable": world.control.uncapturable,
        }
        return cls(header, network.model.SerializeToString())

    def packed(self) -> bytes:
        """As one piece of bytes."""
        head = json.dumps(self.header).encode()
        return HEAD.pack(MAGIC, len(head), len(self.model)) + head + self.model

    @classmethod
    def read(cls, data: bytes, world: World, host_code: bool) -> Plan | str:
        """The plan, or what TensorRT logs when it can't be used here."""
        if len(data) < HEAD.size or data[:8] != MAGIC:
            return texts.MAGIC
        _, head, model = HEAD.unpack_from(data)
        if len(data) < HEAD.size + head + model:
            return texts.CUT
        header = json.loads(data[HEAD.size : HEAD.size + head])
        compatible = "VERSION_COMPATIBLE" in header["flags"]
        built_by = tuple(header["version"])
        if built_by != world.version and not (compatible and built_by < world.version):
            return texts.VERSION.format(here=world.version[0], built=built_by[0])
        if compatible and not host_code:
            return texts.HOST_CODE
        built, here = tuple(header["sm"]), world.compute_capability
        ampere = header["hardware"] == "AMPERE_PLUS"
        if not (here >= (8, 0) if ampere else built == here):
            return texts.DEVICE.format(here="{}.{}".format(*here), built="{}.{}".format(*built))
        return cls(header, data[HEAD.size + head : HEAD.size + head + model])


def layers(model: onnx.ModelProto, strong: bool, flags: list[str]) -> list[dict[str, Any]]:
    """The layers as an inspector tells them: name, type, and the element types of what goes in and comes out.

    A weakly typed network takes no precision from its graph: fp32, or fp16 where the builder's flag allows it.
    """
    known = rules.element_types(model)

    def kind(name: str) -> str:
        found = rules.TYPES.get(known.get(name, 0), "FLOAT")
        if not strong and found in ("HALF", "BF16", "FLOAT"):
            return "HALF" if "FP16" in flags else "FLOAT"
        return found

    return [
        {
            "name": node.name or node.output[0],
            "type": node.op_type,
            "inputs": [[name, kind(name)] for name in node.input if name],
            "outputs": [[name, kind(name)] for name in node.output if name],
        }
        for node in model.graph.node
        if node.op_type != "Constant"
    ]
