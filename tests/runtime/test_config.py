"""The environment becomes a configuration, or one clear line."""

import pytest

from thinwire.errors import UsageError
from thinwire.runtime.config import RuntimeConfig


def test_variables_set_the_fields_of_their_names() -> None:
    config = RuntimeConfig.from_environment(
        {"THINWIRE_LANES": "3", "THINWIRE_CROSS_MEMORY": "false", "THINWIRE_HEARTBEAT_S": "2.5", "HOME": "/"}
    )
    assert config == RuntimeConfig(lanes=3, cross_memory=False, heartbeat_s=2.5)


def test_an_empty_variable_is_as_good_as_none() -> None:
    assert RuntimeConfig.from_environment({"THINWIRE_LANES": ""}) == RuntimeConfig()


@pytest.mark.parametrize(
    ("variable", "value", "complaint"),
    [
        ("THINWIRE_LANES", "many", "THINWIRE_LANES=many"),
        ("THINWIRE_LANES", "0", "from 1 to 64"),
        ("THINWIRE_TRANSPORT", "pigeon", "Invalid enum value 'pigeon'"),
        ("THINWIRE_HEARTBEAT_S", "-1", "positive number of seconds"),
    ],
)
def test_what_cannot_be_used_is_named(variable: str, value: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        RuntimeConfig.from_environment({variable: value})
