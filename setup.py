"""What pyproject.toml cannot say: the demo's network, kept once in engines/, goes into the package that is built."""

from __future__ import annotations

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

MODEL = Path("engines/demo_street_f64.onnx")


class BuildWithModel(build_py):
    """An editable installation finds the network in the checkout (segcam.networks.shipped)."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            self.mkpath(str(self._target.parent))
            self.copy_file(str(MODEL), str(self._target))

    def get_source_files(self) -> list[str]:
        return [*super().get_source_files(), str(MODEL)]

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return [*super().get_outputs(include_bytecode), str(self._target)]

    @property
    def _target(self) -> Path:
        return Path(self.build_lib, "segcam", "networks", MODEL.name)


setup(cmdclass={"build_py": BuildWithModel})
