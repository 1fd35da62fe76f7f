"""A TensorRT for machines without one: the recorded face of a real version in front, ONNX Runtime behind.

``make_tensorrt("10.3.0", machine, control)`` gives the module to put under ``sys.modules["tensorrt"]``. Its classes,
members, enum values, signatures and the read-only-ness of its properties are those of the real bindings of that version
(``faces/*.json``, written by ``record.py`` and compared with the real ones by a test); what lies behind them refuses
what the real library is known to refuse, answers None or False where that answers so, and says why to the ILogger.

``machine`` is the stand-in GPU of ``standin_cuda``: addresses, streams and current contexts are its own.
"""

from __future__ import annotations

from standin_trt.control import Control
from standin_trt.module import make_tensorrt
from standin_trt.record import FACES, load_face

__all__ = ["FACES", "Control", "load_face", "make_tensorrt"]
