"""``python -m segcam`` is ``segcam``."""

from __future__ import annotations

import sys

from segcam.cli.main import main

sys.exit(main())
