"""Building: the network, the parser and the builder behind the face."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import onnx

from standin_trt import rules, texts
from standin_trt.behind import Behind, IHostMemory, World
from standin_trt.config import IBuilderConfig, IOptimizationProfile
from standin_trt.plan import Plan

PRECISION_FLAGS = frozenset({"FP16", "BF16", "INT8", "FP8", "INT4", "FP4"})


class ITensor(Behind):
    """A tensor of the network: an input or an output."""

    def __init__(self, world: World, name: str, kind: int, shape: list[int], is_input: bool) -> None:
        super().__init__(world)
        self.name, self.kind, self._shape = name, rules.TYPES[kind], shape
        self.changed = False
        self.is_network_input, self.is_network_output = is_input, not is_input
        self.is_shape_tensor, self.is_execution_tensor = False, True
        self.allowed_formats = 0x1FFF
        self.location = world.member("TensorLocation", "DEVICE")

    @property
    def dtype(self) -> Any:
        """Read and write on 10.x: the face decides."""
        return self.world.member("DataType", self.kind)

    @dtype.setter
    def dtype(self, value: Any) -> None:
        self.kind, self.changed = value.name, True

    @property
    def shape(self) -> Any:
        """-1 where it isn't fixed."""
        return self.world.dims(self._shape)

    def get_dimension_name(self, index: int) -> str:
        """Not kept."""
        return ""


class ILayer(Behind):
    """A layer: a node of the model."""

    def __init__(self, world: World, node: onnx.NodeProto) -> None:
        super().__init__(world)
        self.name = node.name or node.output[0]
        self.num_inputs, self.num_outputs = len(node.input), len(node.output)


class INetworkDefinition(Behind):
    """A network: what a parser left in it."""

    def __init__(self, world: World, flags: int) -> None:
        super().__init__(world)
        self.flags, self.name = flags, "Unnamed Network 0"
        self.model: onnx.ModelProto | None = None
        self.inputs: list[ITensor] = []
        self.outputs: list[ITensor] = []
        self.layers: list[ILayer] = []
        self.has_implicit_batch_dimension = False

    @property
    def strong(self) -> bool:
        """Strongly typed: always from 11 on."""
        bit = 1 << int(self.world.member("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"))
        return self.world.version >= (11,) or bool(self.flags & bit)

    @property
    def num_inputs(self) -> int:
        """How many."""
        return len(self.inputs)

    @property
    def num_outputs(self) -> int:
        """How many."""
        return len(self.outputs)

    @property
    def num_layers(self) -> int:
        """How many."""
        return len(self.layers)

    def get_input(self, index: int) -> ITensor | None:
        """None out of range."""
        return self.inputs[index] if 0 <= index < len(self.inputs) else None

    def get_output(self, index: int) -> ITensor | None:
        """None out of range."""
        return self.outputs[index] if 0 <= index < len(self.outputs) else None

    def get_layer(self, index: int) -> ILayer | None:
        """None out of range."""
        return self.layers[index] if 0 <= index < len(self.layers) else None

    def get_flag(self, flag: Any) -> bool:
        """Whether the network was made with it."""
        return bool(self.flags & (1 << int(flag))) or (flag.name == "STRONGLY_TYPED" and self.strong)

    def fill(self, model: onnx.ModelProto) -> None:
        """Take in a model that was found good."""
        self.model, self.name = model, model.graph.name
        constants = {tensor.name for tensor in model.graph.initializer}
        known = rules.element_types(model)
        shapes = {info.name: info for info in onnx.shape_inference.infer_shapes(model).graph.output}

        def sizes(info: onnx.ValueInfoProto) -> list[int]:
            dims = shapes.get(info.name, info).type.tensor_type.shape.dim
            return [dim.dim_value if dim.HasField("dim_value") else -1 for dim in dims]

        graph = model.graph
        self.inputs = [
            ITensor(self.world, info.name, known[info.name], sizes(info), True)
            for info in graph.input
            if info.name not in constants
        ]
        self.outputs = [ITensor(self.world, i.name, known[i.name], sizes(i), False) for i in graph.output]
        self.layers = [ILayer(self.world, node) for node in graph.node if node.op_type != "Constant"]


class ParserError(Behind):
    """One of the parser's errors; its parts are methods."""

    def __init__(self, world: World, refusal: rules.Refusal) -> None:
        super().__init__(world)
        self.refusal = refusal

    def code(self) -> Any:
        """What kind."""
        kinds = self.world.module.ErrorCode.__members__
        name = self.refusal.code
        while name not in kinds:
            name = name.rpartition("_")[0]
        return kinds[name]

    def desc(self) -> str:
        """The text."""
        return self.refusal.desc

    def file(self) -> str:
        """Of the parser's own source."""
        return "ModelImporter.cpp"

    def line(self) -> int:
        """Of the parser's own source."""
        return 836

    def func(self) -> str:
        """Of the parser's own source."""
        return "parseNode"

    def node(self) -> int:
        """The node's index, or -1."""
        return self.refusal.node

    def node_name(self) -> str:
        """Its name."""
        return self.refusal.name

    def node_operator(self) -> str:
        """Its operator."""
        return self.refusal.operator

    def local_function_stack(self) -> list[str]:
        """Of ONNX functions."""
        return []

    def local_function_stack_size(self) -> int:
        """Of ONNX functions."""
        return 0

    def m__str__(self) -> str:
        found = self.refusal
        return texts.NODE.format(**vars(found))


class OnnxParser(Behind):
    """The parser: onnx's checker and the rules."""

    def __init__(self, world: World, network: INetworkDefinition) -> None:
        super().__init__(world)
        self.network = network
        self.found: list[ParserError] = []
        self.flags = 1 << int(world.member("OnnxParserFlag", "NATIVE_INSTANCENORM"))

    @property
    def num_errors(self) -> int:
        """How many."""
        return len(self.found)

    def get_error(self, index: int) -> ParserError:
        """By index."""
        return self.found[index]

    def clear_errors(self) -> None:
        """Forget them."""
        self.found = []

    def get_flag(self, flag: Any) -> bool:
        """Whether it is set."""
        return bool(self.flags & (1 << int(flag)))

    def set_flag(self, flag: Any) -> None:
        """Set it."""
        self.flags |= 1 << int(flag)

    def clear_flag(self, flag: Any) -> None:
        """Clear it."""
        self.flags &= ~(1 << int(flag))

    def supports_operator(self, op_name: str) -> bool:
        """Whether there is an importer for it."""
        return op_name in rules.OPERATORS

    def parse(self, model: Any, path: str | None = None) -> bool:
        """From bytes; ``path`` is where the weights beside it are looked for."""
        return self._take(bytes(model), Path(path).parent if path else None)

    def parse_from_file(self, model: str) -> bool:
        """From a file."""
        try:
            data = Path(model).read_bytes()
        except OSError:
            return self._refuse([rules.Refusal("MODEL_DESERIALIZE_FAILED", f"Could not open file {model}")])
        return self._take(data, Path(model).parent)

    def _take(self, data: bytes, folder: Path | None) -> bool:
        if self.network.model is not None:
            return self._refuse([rules.Refusal("INVALID_VALUE", "Assertion failed: the network already holds a model")])
        model = onnx.ModelProto()
        try:
            model.ParseFromString(data)
        except Exception:  # google.protobuf.message.DecodeError, wherever that lives
            model = onnx.ModelProto()
        if not model.graph.node:
            return self._refuse(
                [rules.Refusal("MODEL_DESERIALIZE_FAILED", "Failed to parse ONNX model from file or buffer")]
            )
        lacking = rules.resolve_external(model, folder)
        found = [lacking] if lacking else list(rules.refusals(model, self.world.version))
        if found:
            return self._refuse(found)
        self.network.fill(model)
        return True

    def _refuse(self, found: list[rules.Refusal]) -> bool:
        self.found += [ParserError(self.world, one) for one in found]
        for one in found:
            self.world.log(
                "ERROR",
                texts.NODE.format(**vars(one)),
            )
        return False


class Builder(Behind):
    """The builder."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.max_threads = 0
        self.max_DLA_batch_size = 1

    @property
    def num_DLA_cores(self) -> int:
        """Of the board."""
        return int(self.world.control.dla_cores)

    @property
    def logger(self) -> Any:
        """The one it was made with."""
        return self.world.logger

    @property
    def platform_has_fast_fp16(self) -> bool:
        """10.x."""
        return self.world.compute_capability >= (5, 3)

    @property
    def platform_has_fast_int8(self) -> bool:
        """10.x."""
        return self.world.compute_capability >= (6, 1)

    @property
    def platform_has_tf32(self) -> bool:
        """10.x."""
        return self.world.compute_capability >= (8, 0)

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        """An empty one."""
        return INetworkDefinition(self.world, flags)

    def create_builder_config(self) -> IBuilderConfig:
        """With every default."""
        return IBuilderConfig(self.world)

    def create_optimization_profile(self) -> IOptimizationProfile:
        """Without a shape yet."""
        return IOptimizationProfile(self.world)

    def is_network_supported(self, network: Any, config: Any) -> bool:
        """Whether a build would start."""
        return not self._reasons(network._t, config._t)

    def build_serialized_network(self, network: Any, config: Any) -> IHostMemory | None:
        """The plan, or None with the reason in the log. Progress is reported from a thread of the builder's."""
        return self._build(network._t, config._t)

    def _reasons(self, network: INetworkDefinition, config: IBuilderConfig) -> list[str]:
        if network.model is None or not network.outputs:
            return ["Network must have at least one output"]
        changed = [tensor.name for tensor in [*network.inputs, *network.outputs] if tensor.changed]
        if changed and not network.strong:
            raise NotImplementedError("the stand-in casts no inputs or outputs of weakly typed networks")
        if changed:
            return [f"The type of {changed[0]} was changed in a strongly typed network"]
        return [*config.reasons(network, PRECISION_FLAGS), *_quantized_reasons(network, config)]

    def _build(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None:
        world, control = self.world, self.world.control
        if not world.current("build_serialized_network"):
            return None
        reasons = self._reasons(network, config)
        for reason in reasons:
            world.log("ERROR", f"[builder.cpp::build] Error Code 4: {reason}")
        if reasons:
            return None
        assert network.model is not None
        limit = config.get_memory_pool_limit(world.member("MemoryPoolType", "WORKSPACE"))
        if limit < control.workspace_needed:
            last = network.layers[-1].name
            world.log(
                "WARNING",
                texts.WORKSPACE_TACTIC.format(needed=control.workspace_needed),
            )
            world.log(
                "ERROR",
                texts.WORKSPACE.format(name=last),
            )
            return None
        if not self._progress(config):
            world.log("ERROR", "Error Code 2: Build was cancelled by the progress monitor")
            return None
        config.learn(network)
        return IHostMemory(world, Plan.made(world, network, config).packed())

    def _progress(self, config: IBuilderConfig) -> bool:
        monitor, control, world = config.progress_monitor, self.world.control, self.world
        going = [True]

        def phase(name: str, parent: str | None, steps: int) -> None:
            if monitor is not None:
                world.guarded(monitor.phase_start, name, parent, steps)
            inner = [one for one in control.phases if one[1] == name]
            for step in range(steps):
                for one in inner[step : step + 1]:
                    phase(*one)
                if not going[0]:
                    break
                if control.on_step is not None:
                    control.on_step(name, step)
                if monitor is not None:
                    came, answer = world.guarded(monitor.step_complete, name, step)
                    if not came or answer is not True:
                        going[0] = False  # None counts as False, a raise as well
                        break
            if monitor is not None:
                world.guarded(monitor.phase_finish, name)

        def work() -> None:
            for one in control.phases:
                if one[1] is None and going[0]:
                    phase(*one)

        thread = threading.Thread(target=work, name="TensorRT builder")
        thread.start()
        thread.join()
        return going[0]


def _quantized_reasons(network: INetworkDefinition, config: IBuilderConfig) -> list[str]:
    assert network.model is not None
    quantized = any(node.op_type == "QuantizeLinear" for node in network.model.graph.node)
    if quantized and not network.strong and not config.has("INT8"):
        return ["Networks with explicit quantization need the INT8 flag unless they are strongly typed"]
    return []
