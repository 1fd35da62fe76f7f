"""What scripts/publish_demo.py is made of."""
