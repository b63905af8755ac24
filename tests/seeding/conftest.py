"""What the tests of this folder share."""

import pytest

pytest.importorskip("libtorrent", reason="the extra p2p is not installed")
