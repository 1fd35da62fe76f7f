"""Pictures in a GPU's memory as FFmpeg's, for encoders that take them from there: NVENC.

Facts about FFmpeg and PyAV that this stands on, read in their sources (FFmpeg 8.1, nvenc.c; PyAV 18.1, frame.py):

* ``VideoFrame.from_dlpack`` takes the two planes as DLPack tensors, whose deleters are called when FFmpeg has no use
  for the picture any more: after NVENC has read it. Any thread may call them.
* ``CudaContext(current_ctx=True)`` takes the context that is current at its first use, ours, without a reference of its
  own. ``primary_ctx`` would be refused, as ``sources.nvdec`` says of decoders.
* NVENC is told one address, one pitch and the height: chroma must lie directly behind luma. It knows memory by its
  address, which must not be freed while the encoder is open.
* Where an encoder takes pictures from the GPU, PyAV uploads those that are in host memory.

DLPack: https://dmlc.github.io/dlpack/latest/c_api.html, the structures of version 0.x, which PyAV reads.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

from segcam.frame import Frame, Gpu

if TYPE_CHECKING:
    from av import VideoFrame

_CUDA, _UNSIGNED = 2, 1
_NAME = b"dltensor"


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Managed(ctypes.Structure):
    _fields_ = [("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _Deleter)]


#: What is lent out, by the address of its structure, with what keeps its memory.
_lent: dict[int, tuple[Any, ...]] = {}


def _give_back(address: int, lent: dict[int, tuple[Any, ...]] = _lent) -> None:
    lent.pop(address, None)


_deleter = _Deleter(_give_back)


# Prototypes of our own: others may declare the same functions otherwise. The capsule comes as a plain address where it
# is being freed, and must not get a reference.
_capsule_new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", ctypes.pythonapi)
)
_capsule_is = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", ctypes.pythonapi))
_capsule_holds = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def _capsule_gone(
    capsule: int, is_: Any = _capsule_is, holds: Any = _capsule_holds, name: bytes = _NAME, give_back: Any = _give_back
) -> None:
    # Whoever takes a tensor renames its capsule, and calls the deleter by itself.
    if is_(capsule, name):
        give_back(holds(capsule, name))


_destructor = _Deleter(_capsule_gone)

# FFmpeg may give back what it still has when the interpreter ends, after this module has been taken apart: what it
# calls must be there, hence references that nobody gives back, and all that is used as an argument's default.
for _thunk in (_deleter, _destructor):
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(_thunk))


class DeviceBytes:
    """(rows, row_bytes) uint8 at ``address`` in GPU ``device_id``'s memory, rows ``pitch`` bytes apart, for DLPack.

    ``owner`` keeps the memory: the tensor refers to it until its deleter is called.
    """

    def __init__(
        self, address: int, rows: int, row_bytes: int, pitch: int, device_id: int, owner: object, kind: int = _CUDA
    ) -> None:
        self._address, self._shape, self._strides = address, (rows, row_bytes), (pitch, 1)
        self._device, self._owner = (kind, device_id), owner

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device

    def __dlpack__(self, stream: object = None) -> Any:
        pair = ctypes.c_int64 * 2
        shape, strides = pair(*self._shape), pair(*self._strides)
        managed = _Managed(_Tensor(self._address, *self._device, 2, _UNSIGNED, 8, 1, shape, strides, 0), None)
        managed.deleter = _deleter
        at = ctypes.addressof(managed)
        _lent[at] = (managed, shape, strides, self._owner)
        try:
            return _capsule_new(at, _NAME, ctypes.cast(_destructor, ctypes.c_void_p))
        except BaseException:
            _give_back(at)
            raise


def why_not() -> str:
    """Why encoders cannot take pictures from the GPU's memory with this PyAV; "" where it can be tried."""
    import av
    from av.video import frame

    # Asked of the type: making one with arguments that it doesn't know leaves a half-made one behind.
    if not hasattr(getattr(frame, "CudaContext", None), "current_ctx"):
        return f"PyAV {av.__version__} cannot hand them over, 18.1 and newer can (Python 3.11 or newer)"
    return ""


class DevicePictures:
    """``picture(frame)`` for frames in the memory of ``gpu``, whose context stays until ``close``."""

    def __init__(self, gpu: Gpu) -> None:
        from av.video.frame import CudaContext

        self._gpu, self._index = gpu, gpu.device.index
        self._context: Any = CudaContext(device_id=self._index, primary_ctx=False, current_ctx=True)
        gpu.enter()
        self._entered = True

    def picture(self, frame: Frame) -> VideoFrame:
        """A frame with ``device`` planes of NV12 and even sides; its ``owner`` is held until FFmpeg lets it go.

        What is at its addresses must be there already: nothing is waited for. Raises ValueError for others.
        """
        from av import VideoFrame

        on = frame.device
        if on is None or on.format != "nv12" or on.addresses[1] != on.addresses[0] + on.pitches[0] * frame.height:
            raise ValueError(f"frame {frame.index} does not lie on the GPU as NVENC reads it: {on}")
        y, uv = (
            DeviceBytes(address, rows, frame.width, pitch, on.gpu, frame.owner)
            for address, pitch, rows in zip(on.addresses, on.pitches, (frame.height, frame.height // 2), strict=True)
        )
        with self._gpu.current():
            return VideoFrame.from_dlpack((y, uv), format="nv12", cuda_context=self._context)

    def close(self) -> None:
        """After the encoder has been closed; again is fine."""
        self._context = None
        if self._entered:
            self._entered = False
            self._gpu.leave()
