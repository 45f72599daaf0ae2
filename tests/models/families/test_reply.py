"""What stands for an encoder's answer inside somebody's model."""

from __future__ import annotations

import pytest

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families.reply import Reply


def test_it_is_read_by_name_attribute_and_place() -> None:
    reply = Reply(feature_maps=(1, 2))
    assert reply.feature_maps == reply["feature_maps"] == reply[0] == reply.get("feature_maps") == (1, 2)
    assert reply[-1] == (1, 2)
    assert reply.to_tuple() == ((1, 2),)
    assert "hidden_states" not in reply
    assert reply.get("hidden_states") is None


def test_what_is_not_computed_is_said() -> None:
    with pytest.raises(UserError, match=r"^the rest of the model reads 'hidden_states' of its encoder"):
        _ = Reply(feature_maps=()).hidden_states


def test_what_the_encoder_leaves_empty_is_none() -> None:
    reply = Reply(feature_maps=()).without(["attentions"])
    assert reply.attentions is None
    assert reply.to_tuple() == ((),)
    with pytest.raises(UserError, match="reads 'hidden_states'"):
        _ = reply.hidden_states
