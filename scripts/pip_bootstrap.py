"""Stand-in for pip's bootstrap script: installs the pip wheel that lies beside it. See scripts/sanity.sh."""

import os
import runpy
import sys

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(here, "pip-@VERSION@-py3-none-any.whl"))
wanted = [word for word in sys.argv[1:] if word not in ("--no-setuptools", "--no-wheel")]
sys.argv[1:] = ["install", "--no-index", "--find-links", here, *wanted]
runpy.run_module("pip", run_name="__main__")
