"""What is measured, each against a stated baseline in the same run: `python -m bench NAME --json`."""
