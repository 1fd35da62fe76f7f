"""The parts of ``scripts/train_street.py``. ``augment``, ``feed`` and ``progress`` work without PyTorch."""
