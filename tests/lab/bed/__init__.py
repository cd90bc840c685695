"""The parts of tests/lab/run: packages, images, machines. README.md says how they fit together."""


class LabError(Exception):
    """What went wrong and what helps, in a sentence for the user."""
