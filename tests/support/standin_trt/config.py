"""Building: the configuration, profiles and the timing cache behind the face."""

from __future__ import annotations

import json
from typing import Any

from standin_trt import texts
from standin_trt.behind import Behind, IHostMemory, World

TIMING_MAGIC = b"standin timing cache\n"


class IOptimizationProfile(Behind):
    """Shapes of the inputs: least, most likely, largest."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.shapes: dict[str, list[list[int]]] = {}
        self.extra_memory_target = 1.0

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        """ValueError where they contradict each other."""
        three = [list(tuple(one)) for one in (min, opt, max)]
        if len({len(one) for one in three}) != 1 or not all(0 <= a <= b <= c for a, b, c in zip(*three, strict=True)):
            raise ValueError(f"Shape provided for {input} are inconsistent!")
        self.shapes[input] = three

    def get_shape(self, input: str) -> list[Any]:
        """What was set; empty where nothing was."""
        return [self.world.dims(one) for one in self.shapes.get(input, [])]

    def m__bool__(self) -> bool:
        return bool(self.shapes)


class ITimingCache(Behind):
    """What was timed before."""

    def __init__(self, world: World, header: dict[str, Any], entries: list[str]) -> None:
        super().__init__(world)
        self.header, self.entries = header, entries

    def serialize(self) -> IHostMemory:
        """As bytes for a file."""
        text = json.dumps({"header": self.header, "entries": self.entries})
        return IHostMemory(self.world, TIMING_MAGIC + text.encode())

    def combine(self, input_cache: Any, ignore_mismatch: bool) -> bool:
        """Take over another one's entries."""
        other = input_cache._t
        if other.header != self.header and not ignore_mismatch:
            return False
        self.entries = sorted({*self.entries, *other.entries})
        return True

    def reset(self) -> bool:
        """Empty it."""
        self.entries = []
        return True


class IBuilderConfig(Behind):
    """What the builder is told."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.flags = 1 << int(world.member("BuilderFlag", "TF32"))
        self._limits = {"WORKSPACE": 1 << 40, "TACTIC_DRAM": 1 << 40}
        self._level = 3
        self.profiles: list[IOptimizationProfile] = []
        self.cache: ITimingCache | None = None
        self.profiling_verbosity = world.member("ProfilingVerbosity", "LAYER_NAMES_ONLY")
        self.hardware_compatibility_level = world.member("HardwareCompatibilityLevel", "NONE")
        self.default_device_type = world.member("DeviceType", "GPU")
        self.engine_capability = world.member("EngineCapability", "STANDARD")
        self.progress_monitor: Any = None
        self.max_aux_streams = -1
        self.avg_timing_iterations = 1
        self.max_num_tactics = -1
        self.DLA_core = -1
        self.profile_stream = 0
        if "TilingOptimizationLevel" in world.maker.face["enums"]:
            self.tiling_optimization_level = world.member("TilingOptimizationLevel", "NONE")
            self.l2_limit_for_tiling = -1

    @property
    def builder_optimization_level(self) -> int:
        """0 to 5; more counts as 5."""
        return self._level

    @builder_optimization_level.setter
    def builder_optimization_level(self, value: int) -> None:
        if value < 0:
            self.world.log("ERROR", f"Error Code 3: builder optimization level {value} is not in 0..5")
            return
        self._level = min(value, 5)

    @property
    def num_optimization_profiles(self) -> int:
        """How many."""
        return len(self.profiles)

    def has(self, name: str) -> bool:
        """Whether a flag is set, by name; a version without it has it unset."""
        flag = getattr(self.world.module.BuilderFlag, name, None)
        return flag is not None and self.get_flag(flag)

    def set_flag(self, flag: Any) -> None:
        """Set it."""
        self.flags |= 1 << int(flag)

    def clear_flag(self, flag: Any) -> None:
        """Clear it."""
        self.flags &= ~(1 << int(flag))

    def get_flag(self, flag: Any) -> bool:
        """Whether it is set."""
        return bool(self.flags & (1 << int(flag)))

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        """In bytes."""
        self._limits[pool.name] = pool_size

    def get_memory_pool_limit(self, pool: Any) -> int:
        """In bytes."""
        return self._limits.get(pool.name, 0)

    def add_optimization_profile(self, profile: Any) -> int:
        """Its index, or -1 where it isn't valid."""
        if not profile._t.shapes:
            self.world.log("ERROR", "Error Code 4: Profile has no shapes: not a valid optimization profile")
            return -1
        self.profiles.append(profile._t)
        return len(self.profiles) - 1

    def _header(self) -> dict[str, Any]:
        world = self.world
        return {"tensorrt": list(world.version), "sm": list(world.compute_capability), "gpu": world.device_name}

    def create_timing_cache(self, serialized_timing_cache: Any) -> ITimingCache | None:
        """From a file's bytes; empty bytes start a new one."""
        data = bytes(serialized_timing_cache)
        if not data:
            return ITimingCache(self.world, self._header(), [])
        try:
            assert data.startswith(TIMING_MAGIC)
            document = json.loads(data[len(TIMING_MAGIC) :])
            return ITimingCache(self.world, document["header"], document["entries"])
        except (AssertionError, ValueError, KeyError):
            self.world.log(
                "ERROR",
                texts.TIMING_MAGIC,
            )
            return None

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        """False for another version's or GPU's, unless told to ignore that."""
        if cache is None:
            self.cache = None
            return True
        if cache._t.header != self._header() and not ignore_mismatch:
            self.world.log("WARNING", texts.TIMING_MISMATCH)
            return False
        self.cache = cache._t
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        """The one in use."""
        return self.cache

    def learn(self, network: Any) -> None:
        """A build fills the cache: one that wasn't given is made."""
        if self.cache is None:
            self.cache = ITimingCache(self.world, self._header(), [])
        self.cache.entries = sorted({*self.cache.entries, *(layer.name for layer in network.layers)})

    def can_run_on_DLA(self, layer: Any) -> bool:
        """Where there is a core."""
        return bool(self.world.control.dla_cores)

    def reasons(self, network: Any, precision_flags: frozenset[str]) -> list[str]:
        """Why this configuration can't build the network."""
        world, out = self.world, []
        precision = sorted(name for name in precision_flags if self.has(name))
        if network.strong and precision:
            out.append(f"Precision flags ({', '.join(precision)}) are not allowed in a strongly typed network")
        if self.hardware_compatibility_level.name == "AMPERE_PLUS" and world.compute_capability < (8, 0):
            out.append("Hardware compatibility level kAMPERE_PLUS is not supported on this device")
        if self.has("EXCLUDE_LEAN_RUNTIME") and not self.has("VERSION_COMPATIBLE"):
            out.append("EXCLUDE_LEAN_RUNTIME needs VERSION_COMPATIBLE")
        dynamic = [tensor for tensor in network.inputs if -1 in tensor._shape]
        if dynamic and not self.profiles:
            out.append(texts.NO_PROFILE)
        for profile in self.profiles:
            out += _profile_reasons(profile, network)
        if self.default_device_type.name == "DLA":
            out += self._dla_reasons(bool(dynamic))
        return out

    def _dla_reasons(self, dynamic: bool) -> list[str]:
        cores = self.world.control.dla_cores
        if not 0 <= self.DLA_core < cores:
            return [f"DLA core {self.DLA_core} was asked for, and the device has {cores}"]
        return ["DLA layers do not support dynamic shapes"] if dynamic else []


def _profile_reasons(profile: IOptimizationProfile, network: Any) -> list[str]:
    out = []
    known = {tensor.name: tensor._shape for tensor in network.inputs}
    out += [f"Profile names {name}, which is not a network input" for name in profile.shapes if name not in known]
    for name, shape in known.items():
        three = profile.shapes.get(name)
        if three is None:
            if -1 in shape:
                out.append(f"Optimization profile is missing values for input {name}")
        elif any(len(one) != len(shape) for one in three) or any(
            size not in (-1, given) for one in three for size, given in zip(shape, one, strict=True)
        ):
            out.append(texts.PROFILE_STATIC.format(name=name, shape=shape, three=three))
    return out
