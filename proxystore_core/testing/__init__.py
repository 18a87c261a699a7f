"""Conformance tests that every connector must pass, ours and anybody's.

Derive a test class, override the fixture, and let pytest collect it:

```python
import pytest
from proxystore_core.testing import ConnectorConformance

class TestMyConnector(ConnectorConformance):
    @pytest.fixture
    def connector(self):
        with MyConnector(...) as connector:
            yield connector
```

Tests of an ability that the connector does not have (see
`proxystore_core.connectors.protocols`) are skipped. For readable failures add
`pytest.register_assert_rewrite("proxystore_core.testing")` to `conftest.py`.
"""

from __future__ import annotations

from proxystore_core.exceptions import MissingExtraError

try:
    from proxystore_core.testing._abilities import ConnectorConformance
except ModuleNotFoundError as error:
    if error.name != "pytest":
        raise
    raise MissingExtraError("test", needed_for="proxystore_core.testing") from error

__all__ = ["ConnectorConformance"]
