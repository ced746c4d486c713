"""`python -m foundir_hf.cli`."""

from . import main

raise SystemExit(main())
