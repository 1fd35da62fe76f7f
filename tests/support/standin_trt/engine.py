"""Running: the runtime, the engine and its inspector behind the face."""

from __future__ import annotations

import json
from typing import Any

from standin_trt import texts
from standin_trt.behind import ITEM_SIZES, Behind, IHostMemory, World
from standin_trt.plan import Plan
from standin_trt.rounding import Runner

WORDS = {"FLOAT": "Float", "HALF": "Half", "BF16": "BFloat16", "INT8": "Int8", "INT32": "Int32", "INT64": "Int64"}
WORDS |= {"BOOL": "Bool", "UINT8": "UInt8", "FP8": "FP8", "INT4": "Int4"}


class Runtime(Behind):
    """Makes engines of plans."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.engine_host_code_allowed = False
        self.max_threads = 1
        self.DLA_core = -1
        self.num_DLA_cores = world.control.dla_cores

    @property
    def logger(self) -> Any:
        """The one it was made with."""
        return self.world.logger

    def deserialize_cuda_engine(self, serialized_engine: Any = None, **other: Any) -> ICudaEngine | None:
        """None, with the reason in the log, where the plan can't be used here."""
        world = self.world
        if not world.current("deserialize_cuda_engine"):
            return None
        plan = Plan.read(bytes(serialized_engine), world, self.engine_host_code_allowed)
        if isinstance(plan, str):
            world.log("ERROR", plan)
            world.log(
                "ERROR",
                texts.DESERIALIZE,
            )
            return None
        if plan.header["gpu"] != world.device_name:
            world.log(
                "WARNING",
                texts.OTHER_MODEL,
            )
        return ICudaEngine(world, self, plan)


class ICudaEngine(Behind):
    """An engine: its tensors by name."""

    def __init__(self, world: World, runtime: Runtime, plan: Plan) -> None:
        super().__init__(world)
        self.runtime, self.plan, self.header = runtime, plan, plan.header
        self.tensors = {one["name"]: one for one in plan.header["tensors"]}
        self.runner = Runner(plan.model, plan.header["strong"], "FP16" in plan.header["flags"])
        self.name = plan.header["name"]
        self.refittable = False
        self.num_aux_streams = plan.header["aux_streams"]
        self.num_layers = len(plan.header["layers"])
        self.num_io_tensors = len(self.tensors)
        self.num_optimization_profiles = max(1, len(plan.header["profiles"]))
        self.hardware_compatibility_level = world.member("HardwareCompatibilityLevel", plan.header["hardware"])
        self.profiling_verbosity = world.member("ProfilingVerbosity", plan.header["verbosity"])
        self.device_memory_size = self.device_memory_size_v2 = 4096

    def known(self, name: str) -> dict[str, Any] | None:
        """A tensor; an unknown name is logged."""
        if name not in self.tensors:
            self.world.log(
                "ERROR",
                texts.TENSOR_NAME.format(name=name),
            )
        return self.tensors.get(name)

    def get_tensor_name(self, index: int) -> str:
        """By index."""
        return list(self.tensors)[index]

    def m__getitem__(self, arg0: int) -> str:
        return list(self.tensors)[arg0]

    def get_tensor_mode(self, name: str) -> Any:
        """NONE for an unknown one."""
        one = self.known(name)
        return self.world.member("TensorIOMode", "NONE" if one is None else "INPUT" if one["input"] else "OUTPUT")

    def get_tensor_dtype(self, name: str) -> Any:
        """FLOAT for an unknown one."""
        one = self.known(name)
        return self.world.member("DataType", one["kind"] if one else "FLOAT")

    def get_tensor_shape(self, name: str) -> Any:
        """-1 where it isn't fixed."""
        one = self.known(name)
        return self.world.dims(one["shape"] if one else [])

    def get_tensor_location(self, name: str) -> Any:
        """Always on the device here."""
        self.known(name)
        return self.world.member("TensorLocation", "DEVICE")

    def get_tensor_format(self, name: str, profile_index: int = 0) -> Any:
        """LINEAR, unless the network's tensor allowed one other format only."""
        one = self.known(name)
        formats = self.world.module.TensorFormat.__members__.values()
        allowed = [kind for kind in formats if one and one["formats"] & (1 << int(kind))]
        linear = self.world.member("TensorFormat", "LINEAR")
        return linear if not allowed or linear in allowed else allowed[0]

    def get_tensor_format_desc(self, name: str, profile_index: int = 0) -> str:
        """In words."""
        kind = self.get_tensor_format(name)
        return f"Row major linear {self.get_tensor_dtype(name).name} format" if kind.name == "LINEAR" else kind.name

    def get_tensor_vectorized_dim(self, name: str, profile_index: int = 0) -> int:
        """None is."""
        return -1

    def get_tensor_components_per_element(self, name: str, profile_index: int = 0) -> int:
        """-1: not vectorised."""
        return -1

    def get_tensor_bytes_per_component(self, name: str, profile_index: int = 0) -> int:
        """-1: not vectorised."""
        return -1

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Any]:
        """[min, opt, max] of an input; empty for anything else."""
        one = self.known(name)
        if one is None or not one["input"]:
            return []
        profiles = self.header["profiles"]
        if not profiles or name not in profiles[profile_index]:
            return [self.world.dims(one["shape"])] * 3
        return [self.world.dims(shape) for shape in profiles[profile_index][name]]

    def get_tensor_profile_values(self, name: str, profile_index: int) -> list[Any]:
        """There are no shape tensors."""
        return []

    def is_shape_inference_io(self, name: str) -> bool:
        """There are no shape tensors."""
        return False

    def serialize(self) -> IHostMemory:
        """The plan again."""
        return IHostMemory(self.world, self.plan.packed())

    def create_engine_inspector(self) -> EngineInspector:
        """For its layers."""
        return EngineInspector(self.world, self)

    def create_execution_context(self, strategy: Any = None, runtime_config: Any = None) -> Any:
        """One more context."""
        from standin_trt.context import IExecutionContext

        if not self.world.current("create_execution_context"):
            return None
        managed = strategy is not None and strategy.name == "USER_MANAGED"
        return IExecutionContext(self.world, self, managed)

    def create_execution_context_without_device_memory(self) -> Any:
        """10.x."""
        from standin_trt.context import IExecutionContext

        return IExecutionContext(self.world, self, True)

    def nbytes(self, name: str, shape: tuple[int, ...]) -> int:
        """Of a tensor of a shape."""
        count = 1
        for size in shape:
            count *= size
        return int(count * ITEM_SIZES[self.tensors[name]["kind"]])


class EngineInspector(Behind):
    """Tells of an engine's layers in JSON, as each major version words it."""

    def __init__(self, world: World, engine: ICudaEngine) -> None:
        super().__init__(world)
        self.engine = engine
        self.execution_context: Any = None

    def get_engine_information(self, format: Any) -> str:
        """All layers and tensors."""
        engine = self.engine
        layers = [self._layer(index) for index in range(engine.num_layers)]
        if format.name != "JSON":
            return "\n".join(str(layer) for layer in layers)
        if self.world.version >= (11,):
            tensors: Any = {"I/O Tensors": [self._tensor(name) for name in engine.tensors]}
        else:
            tensors = {"Bindings": list(engine.tensors)}
        return json.dumps({"Layers": layers, **tensors})

    def get_layer_information(self, layer_index: int, format: Any) -> str:
        """One layer."""
        return json.dumps(self._layer(layer_index))

    def _layer(self, index: int) -> Any:
        layer = self.engine.header["layers"][index]
        if self.engine.profiling_verbosity.name != "DETAILED":
            return layer["name"]
        return {
            "Name": layer["name"],
            "LayerType": layer["type"],
            "Inputs": [self._side(*one) for one in layer["inputs"]],
            "Outputs": [self._side(*one) for one in layer["outputs"]],
            "TacticName": "",
            "StreamId": 0,
            "Metadata": f"[ONNX Layer: {layer['name']}]",
        }

    def _side(self, name: str, kind: str) -> dict[str, Any]:
        if self.world.version >= (11,):
            return {"Name": name, "Dimensions": [], "Format": "Row major linear", "Datatype": WORDS[kind]}
        text = {"FLOAT": "FP32", "HALF": "FP16"}.get(kind, kind)
        return {
            "Name": name,
            "Location": "Device",
            "Dimensions": [],
            "Format/Datatype": f"Row major linear {text} format",
        }

    def _tensor(self, name: str) -> dict[str, Any]:
        one = self.engine.tensors[name]
        return {
            "Name": name,
            "IOMode": "Input" if one["input"] else "Output",
            "DataType": WORDS[one["kind"]],
            "Dimensions": one["shape"],
            "ProfileInfo": [profile.get(name) for profile in self.engine.header["profiles"]],
        }
