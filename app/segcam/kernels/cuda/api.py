"""What the two CUDA libraries have to offer to ``driver``, and the words for what a driver refuses.

Sources: NVIDIA's "CUDA Driver API" (error codes and their descriptions, primary context management).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from segcam.errors import CudaError


@dataclass(frozen=True)
class DeviceInfo:
    """A GPU. ``driver_version`` is the newest CUDA that the driver runs, (major, minor); memory in bytes."""

    index: int
    name: str
    compute_capability: tuple[int, int]
    memory_bytes: int
    driver_version: tuple[int, int]


class Api(Protocol):
    """One library. Handles and objects are passed back as they were given (``Any``: the libraries share no types);
    streams may be None, the context's default stream. Every method raises ``CudaError``.

    All but ``push``, ``pop`` and ``release`` need the context to be current.
    """

    name: str
    has_graphs: bool
    device: DeviceInfo

    def push(self) -> None: ...
    def pop(self) -> None: ...
    def release(self) -> None:
        """Gives the primary context back, from any thread, when no thread has it current."""

    def synchronize(self) -> None: ...
    def memory(self) -> tuple[int, int]: ...

    def stream(self) -> tuple[Any, int]:
        """(the stream, its handle) of a new stream that does not wait for the default stream."""

    def stream_synchronize(self, stream: Any) -> None: ...
    def stream_idle(self, stream: Any) -> bool: ...
    def stream_wait(self, stream: Any, event: Any) -> None: ...
    def stream_free(self, stream: Any) -> None: ...

    def event(self, timing: bool) -> Any: ...
    def event_record(self, event: Any, stream: Any) -> None: ...
    def event_done(self, event: Any) -> bool: ...
    def event_synchronize(self, event: Any) -> None: ...
    def event_ms(self, earlier: Any, later: Any) -> float: ...
    def event_free(self, event: Any) -> None: ...

    def allocate(self, nbytes: int) -> tuple[Any, int]:
        """(the memory, its device address)"""

    def free(self, memory: Any) -> None: ...
    def pinned(self, nbytes: int) -> tuple[Any, int]:
        """(the memory, its host address): page-locked, never write-combined, since the CPU reads it."""

    def pinned_free(self, memory: Any) -> None: ...
    def upload(self, address: int, array: NDArray[np.uint8], stream: Any) -> None: ...
    def download(self, array: NDArray[np.uint8], address: int, stream: Any) -> None: ...
    def copy(self, to: int, from_: int, nbytes: int, stream: Any) -> None: ...
    def fill(self, address: int, byte: int, nbytes: int, stream: Any) -> None: ...

    def module(self, image: bytes) -> Any: ...
    def module_free(self, module: Any) -> None: ...
    def function(self, module: Any, name: str) -> Any: ...
    def function_free(self, function: Any) -> None: ...
    def launch(
        self,
        function: Any,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        arguments: list[np.generic],
        stream: Any,
        shared_bytes: int,
    ) -> None: ...

    def capture_begin(self, stream: Any) -> None: ...
    def capture_end(self, stream: Any) -> Any:
        """The graph, not yet executable."""

    def graph_instantiate(self, graph: Any) -> Any: ...
    def graph_free(self, graph: Any) -> None: ...
    def graph_launch(self, executable: Any, stream: Any) -> None: ...
    def executable_free(self, executable: Any) -> None: ...


#: The driver's descriptions (cuGetErrorString) of the errors that have a hint or that Segcam asks for by name.
DESCRIPTIONS = {
    "CUDA_ERROR_INVALID_VALUE": "invalid argument",
    "CUDA_ERROR_OUT_OF_MEMORY": "out of memory",
    "CUDA_ERROR_NOT_INITIALIZED": "initialization error",
    "CUDA_ERROR_DEINITIALIZED": "driver shutting down",
    "CUDA_ERROR_STUB_LIBRARY": "CUDA driver is a stub library",
    "CUDA_ERROR_DEVICE_UNAVAILABLE": "CUDA-capable device(s) is/are busy or unavailable",
    "CUDA_ERROR_NO_DEVICE": "no CUDA-capable device is detected",
    "CUDA_ERROR_INVALID_DEVICE": "invalid device ordinal",
    "CUDA_ERROR_INVALID_CONTEXT": "invalid device context",
    "CUDA_ERROR_NO_BINARY_FOR_GPU": "no kernel image is available for execution on the device",
    "CUDA_ERROR_INVALID_PTX": "a PTX JIT compilation failed",
    "CUDA_ERROR_UNSUPPORTED_PTX_VERSION": "the provided PTX was compiled with an unsupported toolchain.",
    "CUDA_ERROR_INVALID_HANDLE": "invalid resource handle",
    "CUDA_ERROR_NOT_FOUND": "named symbol not found",
    "CUDA_ERROR_ILLEGAL_ADDRESS": "an illegal memory access was encountered",
    "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES": "too many resources requested for launch",
    "CUDA_ERROR_LAUNCH_TIMEOUT": "the launch timed out and was terminated",
    "CUDA_ERROR_CONTEXT_IS_DESTROYED": "context is destroyed",
    "CUDA_ERROR_LAUNCH_FAILED": "unspecified launch failure",
    "CUDA_ERROR_SYSTEM_NOT_READY": "system not yet initialized",
    "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH": "system has unsupported display driver / cuda driver combination",
    "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE": "forward compatibility was attempted on non supported HW",
    "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED": "operation not permitted when stream is capturing",
    "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED": "operation failed due to a previous error during capture",
    "CUDA_ERROR_UNKNOWN": "unknown error",
}

#: After one of these the context is lost: nothing works in it any more, and nothing is left to give back.
FATAL = {
    "CUDA_ERROR_DEINITIALIZED",
    "CUDA_ERROR_CONTEXT_IS_DESTROYED",
    "CUDA_ERROR_ILLEGAL_ADDRESS",
    "CUDA_ERROR_LAUNCH_FAILED",
    "CUDA_ERROR_LAUNCH_TIMEOUT",
}

INSTALL = "pip install cuda-bindings (driver 580 or newer), or pip install 'cuda-bindings<13' (older drivers)"
NO_DRIVER_HINT = (
    "Is there an NVIDIA GPU? `nvidia-smi` must list it. If not: install NVIDIA's driver; run a container with --gpus "
    "all (on a Jetson with --runtime nvidia). Without a GPU: --runtime openvino."
)
_OLD_DRIVER = "Update NVIDIA's driver (`nvidia-smi` shows its version); Segcam needs 525 or newer."
_REBOOT = "Was the driver updated since the machine started? Restart it; `nvidia-smi` must work first."
_BUG = "The GPU was given an address that is not there. Run again with CUDA_LAUNCH_BLOCKING=1 and report what it says."

_HINTS = {
    "CUDA_ERROR_OUT_OF_MEMORY": "`nvidia-smi` shows who uses the GPU's memory. Close others, or take a smaller --size.",
    "CUDA_ERROR_NO_DEVICE": NO_DRIVER_HINT,
    "CUDA_ERROR_STUB_LIBRARY": "A stub of libcuda.so.1 is found before the driver's own: take its folder (.../stubs) "
    "out of LD_LIBRARY_PATH.",
    "CUDA_ERROR_DEVICE_UNAVAILABLE": "Another process holds the GPU for itself: `nvidia-smi` shows which.",
    "CUDA_ERROR_INVALID_DEVICE": "`nvidia-smi -L` lists the GPUs; CUDA_VISIBLE_DEVICES may hide some.",
    "CUDA_ERROR_NO_BINARY_FOR_GPU": "Segcam's kernels need a GPU of compute capability 7.0 (Volta) or newer.",
    "CUDA_ERROR_UNSUPPORTED_PTX_VERSION": _OLD_DRIVER,
    "CUDA_ERROR_ILLEGAL_ADDRESS": _BUG,
    "CUDA_ERROR_LAUNCH_FAILED": _BUG,
    "CUDA_ERROR_LAUNCH_TIMEOUT": "The display's watchdog ended the work: use a GPU that drives no display.",
    "CUDA_ERROR_SYSTEM_NOT_READY": "On machines with NVSwitch, the fabric manager must run: "
    "`systemctl status nvidia-fabricmanager`.",
    "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH": _REBOOT,
    "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE": "The cuda-compat package does not go with this GPU: take its folder "
    "out of LD_LIBRARY_PATH and update the driver.",
    "CUDA_ERROR_UNKNOWN": "`nvidia-smi` must work first; after a suspend, a restart helps, or "
    "`sudo modprobe -r nvidia_uvm && sudo modprobe nvidia_uvm`.",
}


def refusal(what: str, name: str, description: str = "", detail: str = "", hint: str = "") -> CudaError:
    """The error for a call that the driver refused: ``what`` was being done, the driver's name and description of the
    error, and a hint. A description alone is enough where a library keeps the name to itself."""
    if not name:
        name = next((known for known, text in DESCRIPTIONS.items() if text == description), "")
    words = f"{name} ({description or DESCRIPTIONS.get(name, 'no description')})" if name else description
    message = f"{what}: the CUDA driver says {words}"
    return CudaError(f"{message}; {detail}" if detail else message, hint or _HINTS.get(name, ""), name=name)


def megabytes(nbytes: int) -> str:
    return f"{nbytes / 1e6:.1f} MB"
