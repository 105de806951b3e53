"""`python -m tests.crash.dying_set DEATH CONFIG --bind ADDRESS`: a set that dies at a step. DEATH: `Death` as JSON."""

from __future__ import annotations

import json
import sys

from ops.cli import main as command_line
from tests.crash.steps import Death, arm

if __name__ == "__main__":
    arm(Death(**json.loads(sys.argv[1])))
    sys.argv[1:2] = ["set"]
    command_line.main()
