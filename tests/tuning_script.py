"""Runs a command with the fake twin in a process of its own, which kills itself after so many training steps.

python tests/tuning_script.py STEPS tune ...; STEPS is 0 to go on to the end
"""

import os
import signal
import sys
from types import SimpleNamespace

import fake_backend

import seqssvae.backend
from seqssvae.cli.main import main

left = int(sys.argv[1])


class Mortal(fake_backend.FakeBackend):
    """The fake twin, which ends with its process."""

    def train(self, steps):
        global left
        totals = super().train(steps)
        left -= len(steps)
        if -len(steps) < left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return totals


seqssvae.backend.entry_points = lambda group: [SimpleNamespace(name="fake", load=lambda: Mortal)]
sys.exit(main(sys.argv[2:]))
