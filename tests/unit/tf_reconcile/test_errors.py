import pytest

from tf_reconcile.errors import AgentError, BoundaryError, ConfigError, Conflict, DesiredStateError, Rejected, Transient


def test_a_config_error_is_one_line_with_file_key_value_and_what_is_allowed() -> None:
    error = ConfigError("out of\nrange", file="a.yaml", key="vlan.first", value=5000, allowed="1..4094")

    assert str(error) == "a.yaml: vlan.first: out of range (value: 5000); allowed: 1..4094"


def test_a_config_error_leaves_out_what_is_not_known() -> None:
    assert str(ConfigError("no such file", file="a.yaml")) == "a.yaml: no such file"
    assert str(ConfigError("nothing to do")) == "nothing to do"


@pytest.mark.parametrize("kind", [Transient, Conflict, Rejected])
def test_a_boundary_error_says_who_failed_at_what(kind: type[BoundaryError]) -> None:
    error = kind("vCenter", "ReconfigureDVPort_Task", "dvs-1", "ConcurrentAccess")

    assert isinstance(error, AgentError)
    assert str(error) == "vCenter: ReconfigureDVPort_Task dvs-1: ConcurrentAccess"


def test_an_impossible_object_is_named_with_its_reason() -> None:
    assert str(DesiredStateError("port 12", "no free VLAN")) == "port 12: no free VLAN"
