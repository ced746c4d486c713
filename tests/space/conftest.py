from __future__ import annotations

import pytest

from foundir_hf.space.engine import Engine


@pytest.fixture(scope="package")
def engine(checkpoint):
    engine = Engine(str(checkpoint), "cpu")
    engine.start()
    engine.wait_until_ready()
    return engine
