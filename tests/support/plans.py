"""TensorRT plans made with the stand-in, straight through its API, with their manifests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx

from segcam.engines.base import EngineOptions
from segcam.engines.manifest import Manifest, Running, manifest_path
from segcam.engines.model import prepare
from segcam.engines.plan import PlanEngine
from segcam.engines.tensorrt_api import logger, version_words
from segcam.kernels.cuda.driver import open_driver
from segcam.onnx_tools.spec import ModelSpec, dump_spec

#: {input: (min, opt, max)}
Profile = dict[str, tuple[Sequence[int], Sequence[int], Sequence[int]]]


def plan_bytes(
    trt: Any,
    model: onnx.ModelProto,
    profiles: Sequence[Profile] = (),
    flags: Sequence[str] = (),
    formats: dict[str, str] | None = None,
) -> bytes:
    """A plan of ``model``; ``flags`` are names of builder flags, ``formats`` of tensor formats by input or output."""
    driver = open_driver()
    try:
        with driver.current():
            log = logger(trt)
            builder = trt.Builder(log)
            network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
            parser = trt.OnnxParser(network, log)
            whole = onnx.shape_inference.infer_shapes(model)
            assert parser.parse(whole.SerializeToString()), [
                parser.get_error(i).desc() for i in range(parser.num_errors)
            ]
            tensors = [network.get_input(i) for i in range(network.num_inputs)]
            tensors += [network.get_output(i) for i in range(network.num_outputs)]
            for tensor in tensors:
                if tensor.name in (formats or {}):
                    tensor.allowed_formats = 1 << int(trt.TensorFormat.__members__[formats[tensor.name]])
            config = builder.create_builder_config()
            config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
            for flag in flags:
                config.set_flag(trt.BuilderFlag.__members__[flag])
            for shapes in profiles:
                profile = builder.create_optimization_profile()
                for name, three in shapes.items():
                    profile.set_shape(name, *map(tuple, three))
                config.add_optimization_profile(profile)
            built = builder.build_serialized_network(network, config)
            assert built is not None, log.tail()
            data = bytes(built)
            del built, config, parser, network, builder, tensors
            return data
    finally:
        driver.close()


def write_plan(
    trt: Any, path: Path, data: bytes, spec: ModelSpec, tensors: list[dict[str, Any]] | None = None, **changes: Any
) -> Path:
    """The plan ``data`` as ``path``, and a manifest of it for this machine with ``changes``; ``tensors`` None: as they
    are in the plan."""
    driver = open_driver()
    try:
        running = Running.here(trt, driver.device)
        if tensors is None:
            host_code = bool(changes.get("version_compatible"))
            plan = PlanEngine(data, driver, path.name, host_code=host_code)
            tensors = [tensor.entry() for tensor in plan.tensors]
            plan.close()
    finally:
        driver.close()
    path.write_bytes(data)
    entries: dict[str, Any] = {
        "plan_sha256": hashlib.sha256(data).hexdigest(),
        "plan_bytes": len(data),
        "source": "net.onnx",
        "source_sha256": "0" * 64,
        "gpu": running.gpu,
        "compute_capability": running.compute_capability,
        "tensorrt": version_words(trt),
        "cuda": running.cuda,
        "precision_asked": "fp32",
        "precision_found": {"float32": 3},
        "tensors": tensors,
        "spec": json.loads(dump_spec(spec)),
        "build_s": 1.0,
        "built_at": "2026-01-01T00:00:00+00:00",
    }
    Manifest(**{**entries, **changes}).write(manifest_path(path))
    return path


def plan_of(trt: Any, source: Path, options: EngineOptions | None = None, **changes: Any) -> Path:
    """NAME.plan beside the ONNX file ``source``, prepared by ``options``."""
    prepared = prepare(source, options or EngineOptions(rewrite=False), lambda words: None)
    data = plan_bytes(trt, prepared.proto)
    head = "+".join(prepared.cut.removed) if prepared.cut else ""
    return write_plan(trt, source.with_suffix(".plan"), data, prepared.spec, **{"head": head, **changes})
