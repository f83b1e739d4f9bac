"""What a refusal says."""

import pytest

from configs.contract.basics.errors import UserError


def refusal(call, *arguments, **options) -> str:
    """The message of the `UserError` of a call; always one line."""
    with pytest.raises(UserError) as error:
        call(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)
