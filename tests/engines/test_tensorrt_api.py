"""TensorRT imported late, its log kept, its silence made into errors."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from segcam.engines import tensorrt_api
from segcam.engines.tensorrt_api import (
    DTYPES,
    PRECISIONS,
    SEVERITIES,
    LogLines,
    check,
    created,
    dtype_word,
    failure,
    hint_for,
    install_hint,
    is_jetson,
    load_tensorrt,
    logger,
    numpy_dtype,
    nvidia_driver,
    version,
    version_words,
)
from segcam.errors import CudaError, EngineError, MissingDependencyError


def module(stated: str | None = "10.3.0", **members: Any) -> ModuleType:
    made = ModuleType("tensorrt")
    if stated is not None:
        made.__dict__["__version__"] = stated
    made.__dict__.update({"Runtime": object, **members})
    return made


def test_a_log_is_a_window_on_its_last_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_api, "_REMEMBERED", 5)
    log = LogLines()
    log.add("ERROR", "old")
    mark = log.mark()
    log.add("INFO", "chat")
    log.add("WARNING", " careful\n")
    log.add("ERROR", "wrong")
    assert log.since(mark) == ["WARNING: careful", "ERROR: wrong"]
    assert log.since(mark, "ERROR") == ["ERROR: wrong"]
    assert log.since(mark, "INFO") == ["INFO: chat", "WARNING: careful", "ERROR: wrong"]
    assert log.tail(2) == ["WARNING: careful", "ERROR: wrong"]
    for number in range(4):
        log.add("ERROR", str(number))
    # What is past is gone, and a mark of then means what is left.
    assert log.since(mark, "ERROR") == ["ERROR: wrong", "ERROR: 0", "ERROR: 1", "ERROR: 2", "ERROR: 3"]
    assert log.since(log.mark()) == []


def test_many_threads_may_log_at_once() -> None:
    log = LogLines()
    threads = [threading.Thread(target=lambda: [log.add("ERROR", "x") for _ in range(100)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log.mark() == 800 and len(log.since(0)) == 800


@pytest.mark.parametrize("silence", [None, False])
def test_none_and_false_are_errors_with_what_the_log_says(silence: Any) -> None:
    log = LogLines()
    log.add("ERROR", "of another day")
    mark = log.mark()
    log.add("WARNING", "beside the point")
    log.add("ERROR", "IRuntime::deserializeCudaEngine: Version tag does not match. Current Version: 1")
    with pytest.raises(EngineError, match="TensorRT could not load it:") as caught:
        check(silence, "load it", log, mark)
    assert "Version tag does not match" in caught.value.message and "another day" not in caught.value.message
    assert "beside the point" not in caught.value.message
    assert "build-engine" in caught.value.hint


@pytest.mark.parametrize("value", [0, "", (), [], 0.0, np.False_ | np.True_])
def test_other_values_are_what_they_are(value: Any) -> None:
    assert check(value, "count", LogLines()) is value


def test_without_a_word_the_error_says_so() -> None:
    assert failure("TensorRT could not go on", LogLines()).message == "TensorRT could not go on (and did not say why)"
    log = LogLines()
    log.add("WARNING", "hm")
    assert "WARNING: hm" in failure("It went wrong", log).message


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("Magic tag does not match", "no TensorRT plan"),
        ("generated on an incompatible device, expecting compute 8.9 got compute 8.6", "kind of GPU"),
        ("Requested amount of GPU memory (1 bytes) could not be allocated. OutOfMemory (out of memory)", "nvidia-smi"),
        ("CUDA initialization failure with error: 35", "update it"),
        ("Could not find any implementation for node ArgMax_1", "--workspace"),
        ("operation not permitted when stream is capturing", "CUDA graph"),
        ("something new", "segcam doctor"),
    ],
)
def test_known_words_have_a_hint(line: str, words: str) -> None:
    assert words in hint_for([f"ERROR: {line}"])


def test_cuda_that_cannot_be_started() -> None:
    log = LogLines()

    def nothing() -> object:
        log.add("ERROR", "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    with pytest.raises(CudaError, match="could not start its runtime") as caught:
        created(nothing, "runtime", log)
    assert "error: 35" in caught.value.message and "update" in caught.value.hint

    def misused() -> object:
        raise TypeError("incompatible constructor arguments")

    with pytest.raises(TypeError, match="incompatible"):
        created(misused, "runtime", log)
    assert created(lambda: 5, "runtime", log) == 5


def test_what_is_not_tensorrt_is_not_taken_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingDependencyError):
        load_tensorrt()
    for wrong, words in (
        (module(None), "is not TensorRT"),
        (module("8.6.1"), "8.6.1 is too old"),
    ):
        monkeypatch.setitem(sys.modules, "tensorrt", wrong)
        with pytest.raises(MissingDependencyError, match=words) as caught:
            load_tensorrt()
        assert caught.value.hint
    monkeypatch.delitem(sys.modules, "tensorrt")
    (tmp_path / "tensorrt").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(MissingDependencyError, match=f"is not TensorRT .*{tmp_path.name}"):
        load_tensorrt()


def test_an_installation_without_its_libraries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(MissingDependencyError, match="TensorRT is not installed"):
        load_tensorrt()
    text = "raise ImportError('libnvinfer.so.11: cannot open shared object file')"
    (tmp_path / "tensorrt.py").write_text(text)
    with pytest.raises(MissingDependencyError, match=r"cannot be loaded \(libnvinfer.so.11"):
        load_tensorrt()


def test_how_to_get_it_depends_on_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "segcam[gpu]" in install_hint() and "NVIDIA's own package index" in install_hint()
    model = tmp_path / "model"
    monkeypatch.setattr(tensorrt_api, "_JETSON", (tmp_path / "release", model))
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert not is_jetson()
    model.write_bytes(b"Raspberry Pi 5\0")
    assert not is_jetson()
    model.write_bytes(b"NVIDIA Jetson Orin NX\0")
    assert is_jetson() and "--system-site-packages" in install_hint()
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert not is_jetson()


def test_versions() -> None:
    assert version(module("10.13.3.9.post1")) == (10, 13, 3, 9)
    assert version_words(module("10.13.3.9.post1")) == "10.13.3.9"
    assert version(module("11.4.0.106")) >= (11,)
    assert version(module("unknown")) == (0,)


def test_types_have_one_word_each() -> None:
    for word in DTYPES.values():
        if word in ("bfloat16", "int4") or word.startswith("float8") or word.startswith("float4"):
            continue
        assert numpy_dtype(word).name == word
    assert numpy_dtype("bfloat16") == np.uint16
    with pytest.raises(EngineError, match="float8_e4m3fn"):
        numpy_dtype("float8_e4m3fn")
    assert set(PRECISIONS) <= set(DTYPES.values())


def test_the_kernel_driver_says_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\nGCC version: 12.2.0\n"
    monkeypatch.setattr(Path, "read_text", lambda *_: text)
    assert nvidia_driver() == "580.65.06"

    def missing(*_: Any) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    assert nvidia_driver() == ""


def test_one_logger_for_the_process(tensorrt_face: Any) -> None:
    trt = load_tensorrt()
    assert trt is tensorrt_face.trt
    log = logger(trt)
    assert logger(trt) is log and isinstance(log, trt.ILogger)
    mark = log.mark()
    for name in SEVERITIES:
        log.log(getattr(trt.ILogger.Severity, name), name.lower())
    assert log.since(mark, "VERBOSE") == [f"{name}: {name.lower()}" for name in SEVERITIES]
    assert {dtype_word(dtype) for dtype in trt.DataType.__members__.values()} <= set(DTYPES.values())
    assert version(trt) == tensorrt_face.version


def test_a_runtime_without_cuda(tensorrt_face: Any) -> None:
    trt = load_tensorrt()
    # No context is current here, as without a driver.
    tensorrt_face.problems_expected = True
    with pytest.raises(CudaError, match="CUDA does not work here"):
        created(lambda: trt.Runtime(logger(trt)), "runtime", logger(trt))
