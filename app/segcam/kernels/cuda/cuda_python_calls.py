"""cuda-python's calls (``cuda.bindings.driver`` of the package cuda-bindings, 12.x and 13.x) with their answers
checked, and the CUDA graphs that only it has.

Its functions return tuples (CUresult, values...). The signatures used here and in ``cuda_python_driver`` are the same
in 12.8, 12.9 and 13.5: what changed between them (cuCtxCreate, cuStreamGetCaptureInfo, cuEventElapsedTime_v2,
cuMemPrefetchAsync) is not needed.
"""

from __future__ import annotations

import contextlib
from typing import Any

from segcam.errors import CudaError, MissingDependencyError
from segcam.kernels.cuda.api import INSTALL, NO_DRIVER_HINT, refusal

#: cuda-bindings of this major version and above need a driver of their own major version.
_FIRST_STRICT_MAJOR = 13


class CudaPythonCalls:
    """Making one initialises the driver. Graphs are of any library's streams, made into ``stream_of(handle)``.

    Raises ``MissingDependencyError`` where it is not installed, ``CudaError`` where there is no driver, or one too old.
    """

    def __init__(self) -> None:
        try:
            import cuda.bindings as package
            from cuda.bindings import driver
        except ModuleNotFoundError as error:
            raise MissingDependencyError(f"cuda-python is not installed ({error})", INSTALL) from None
        except (ImportError, OSError) as error:
            raise CudaError(f"cuda-bindings cannot be loaded: {error}", INSTALL) from None
        # Any: a module without types.
        self._cuda: Any = driver
        self._version = str(getattr(package, "__version__", ""))
        self._runs = (0, 0)
        self._ask("starting CUDA", driver.cuInit, 0)
        version = self._ask("asking for the driver's version", driver.cuDriverGetVersion)
        self._runs = (version // 1000, version % 1000 // 10)
        self._refuse_old_driver()

    def stream_of(self, handle: int) -> Any:
        """A stream that another library in this process has made, in the same context."""
        return self._cuda.CUstream(handle)

    def _refuse_old_driver(self) -> None:
        major = int(self._version.split(".")[0]) if self._version.split(".")[0].isdigit() else 0
        if major >= _FIRST_STRICT_MAJOR and major > self._runs[0]:
            raise CudaError(
                f"cuda-bindings {self._version} need a driver for CUDA {major}; this one runs CUDA up to "
                f"{self._runs[0]}.{self._runs[1]}",
                f"pip install 'cuda-bindings<{major}', or update NVIDIA's driver.",
            )

    def _ask(self, what: str, function: Any, *args: Any) -> Any:
        """What the driver answers, without the error code; CudaError if there is one."""
        try:
            code, *values = function(*args)
        except RuntimeError as error:
            # How cuda-bindings say that the driver's library, or this function in it, is not there.
            raise self._unreached(what, error) from None
        if code != self._cuda.CUresult.CUDA_SUCCESS:
            raise self._refusal(what, code)
        return values[0] if len(values) == 1 else tuple(values)

    def _refusal(self, what: str, code: Any) -> CudaError:
        name = str(getattr(code, "name", f"CUDA error {int(code)}"))
        description = ""
        with contextlib.suppress(RuntimeError):
            error, text = self._cuda.cuGetErrorString(code)
            if error == self._cuda.CUresult.CUDA_SUCCESS and text:
                description = text.decode(errors="replace")
        return refusal(what, name, description)

    def _unreached(self, what: str, error: RuntimeError) -> CudaError:
        if self._runs == (0, 0):
            return CudaError(f"there is no NVIDIA driver here (libcuda.so.1: {error})", NO_DRIVER_HINT)
        runs = f"CUDA {self._runs[0]}.{self._runs[1]}"
        return CudaError(
            f"{what}: the driver (up to {runs}) lacks what cuda-bindings {self._version} ask for ({error})",
            f"pip install 'cuda-bindings<={self._runs[0]}.{self._runs[1]}.99', or update NVIDIA's driver.",
        )

    def capture_begin(self, stream: Any) -> None:
        mode = self._cuda.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._ask("beginning a capture", self._cuda.cuStreamBeginCapture, stream, mode)

    def capture_end(self, stream: Any) -> Any:
        return self._ask("ending a capture", self._cuda.cuStreamEndCapture, stream)

    def graph_instantiate(self, graph: Any) -> Any:
        return self._ask("making a graph executable", self._cuda.cuGraphInstantiate, graph, 0)

    def graph_free(self, graph: Any) -> None:
        self._ask("closing a graph", self._cuda.cuGraphDestroy, graph)

    def graph_launch(self, executable: Any, stream: Any) -> None:
        self._ask("launching a graph", self._cuda.cuGraphLaunch, executable, stream)

    def executable_free(self, executable: Any) -> None:
        self._ask("closing a graph", self._cuda.cuGraphExecDestroy, executable)
