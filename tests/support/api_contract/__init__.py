"""Proof that what the package takes from TensorRT exists in every version that it says it supports.

``check(sources)`` reads source texts (nothing is imported or run), follows every value that comes from the ``tensorrt``
module by a small type inference, and compares each attribute, enum member, method, argument name and argument count
with the recorded faces (``standin_trt/faces``). It gives Findings: where, and what doesn't hold.

How package code has to be written so that it can be followed:

* the module is whatever is called ``trt``: ``trt = load_tensorrt()``, a parameter ``trt``, an attribute ``.trt`` or
  ``._trt``, an import ``as trt``;
* values are followed from calls, and through annotations (``engine: trt.ICudaEngine``, ``list[trt.Dims]``, fields of
  classes, what functions return). In a file that names ``trt`` a TensorRT member taken from a value that can't be
  followed is a finding by itself: annotate it;
* what only some versions have stands under ONE kind of guard: a comparison, by >= or <, of a thing called ``version``
  (or ``..._version``; a call of it counts) with a literal tuple. It may be in an ``if`` (whose other branch is then
  checked against the other versions), in a conditional expression, behind ``and``; after an ``if`` that ends in
  return, raise, continue or break the rest of the block is under the opposite guard. ``hasattr`` and ``getattr`` are
  no guards: a misspelt name would pass them for ever. ``getattr(trt.SomeEnum, name, default)`` with a name out of a
  table is the one exception, and with a literal name where some version has it;
* what a method answers is looked at where False or None is how it fails;
* never an enum's integer, never a precision flag of the builder (they are gone from 11), and no assignment to a
  property that one of the versions has read-only.
"""

from __future__ import annotations

from api_contract.faces import Faces
from api_contract.index import Program
from api_contract.inference import Finding
from api_contract.walker import Walker

__all__ = ["Faces", "Finding", "Program", "Walker", "check"]


def check(sources: dict[str, str], faces: Faces | None = None) -> list[Finding]:
    """Every use in ``sources`` (dotted module name to text) that some version of ``faces`` doesn't have."""
    faces = faces or Faces.recorded()
    return Walker(Program(sources, faces), faces).run()
