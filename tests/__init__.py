"""Tests look into modules and replace parts of them, so in their own process the sources run, compiled or not.

Programs that tests start are found as they are deployed: compiled, if `make compiled` was called. test_compiled.py runs
tests of modules once more on the build, with the variable below.
"""

import os

COMPILED_HERE = "COHORT_TEST_COMPILED"
_SWITCH = "COHORT_PURE"

if COMPILED_HERE not in os.environ and _SWITCH not in os.environ:
    os.environ[_SWITCH] = "1"
    import proxy  # noqa: F401  # looks at it once

    del os.environ[_SWITCH]
