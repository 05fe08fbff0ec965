"""Whatever stages there are, a transition ends as wished, also when it was cut short before."""

from hypothesis import given
from hypothesis import strategies as st

from shared.registry.stages import SERVABLE, SetAlias, SetStage, newest, plan

STAGES = st.sampled_from(["production", "staging", "archived", "none"])
VERSIONS = [str(number) for number in range(1, 13)]

Model = tuple[dict[str, str], dict[str, str]]


@st.composite
def models(draw: st.DrawFn) -> Model:
    """Draw stages and aliases, of which some went astray."""
    stages = draw(st.dictionaries(st.sampled_from(VERSIONS), STAGES, min_size=1))
    aliases = draw(st.dictionaries(st.sampled_from(SERVABLE), st.sampled_from(sorted(stages))))
    return stages, aliases


def apply(model: Model, writes: list[SetStage | SetAlias]) -> Model:
    stages, aliases = dict(model[0]), dict(model[1])
    for write in writes:
        match write:
            case SetStage(version, stage):
                stages[version] = stage
            case SetAlias(alias, None):
                del aliases[alias]
            case SetAlias(alias, str(version)):
                aliases[alias] = version
    return stages, aliases


@given(models(), st.data(), STAGES, st.booleans())
def test_a_transition_ends_as_wished(
    model: Model, data: st.DataObject, stage: str, archive: bool
) -> None:
    before = model[0]
    version = data.draw(st.sampled_from(sorted(before)))
    writes = list(plan(*model, version, stage, archive_existing=archive))
    stages, aliases = apply(model, writes)
    assert stages[version] == stage
    for other in before.keys() - {version}:
        archived = archive and stage in SERVABLE and before[other] == stage
        assert stages[other] == ("archived" if archived else before[other])
    assert aliases == {
        alias: target for alias in SERVABLE if (target := newest(stages, alias)) is not None
    }
    assert list(plan(stages, aliases, version, stage, archive_existing=archive)) == []


@given(models(), st.data(), STAGES, st.booleans())
def test_a_transition_cut_anywhere_is_completed_by_the_same_wish(
    model: Model, data: st.DataObject, stage: str, archive: bool
) -> None:
    version = data.draw(st.sampled_from(sorted(model[0])))
    writes = list(plan(*model, version, stage, archive_existing=archive))
    end = apply(model, writes)
    for done in range(len(writes)):
        cut = apply(model, writes[:done])
        rest = list(plan(*cut, version, stage, archive_existing=archive))
        assert apply(cut, rest) == end
        for served in SERVABLE:
            if served in model[0].values() and served in end[0].values():
                assert served in cut[0].values()


def test_the_newest_version_is_the_highest_number() -> None:
    assert newest({"9": "production", "10": "production", "11": "none"}, "production") == "10"
    assert newest({"9": "none"}, "production") is None
