"""What the audit trail says: who held a stage before, and after which rollbacks."""

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.models import ChangeKind, StageChange
from shared.registry.history import next_moment, previous_holder, read_history, to_tag
from shared.registry.stages import SetStage, newest, plan, plan_rollback

START = datetime(2026, 1, 1, tzinfo=UTC)


class Model:
    """Stages and their histories, changed as transitions do."""

    def __init__(self, **stages: str) -> None:
        self.stages = {name.removeprefix("v"): stage for name, stage in stages.items()}
        self.histories: dict[str, list[StageChange]] = {version: [] for version in self.stages}
        self.aliases: dict[str, str] = {}
        self._at = START

    def add(self) -> str:
        version = str(len(self.stages) + 1)
        self.stages[version], self.histories[version] = "none", []
        return version

    def give(self, version: str, stage: str = "production", *, archive: bool = False) -> None:
        writes = plan(self.stages, self.aliases, version, stage, archive_existing=archive)
        self._apply([write for write in writes if isinstance(write, SetStage)], version)

    def previous(self, stage: str = "production") -> str | None:
        return previous_holder(self.stages, self.histories, stage)

    def roll_back(self, stage: str = "production") -> str | None:
        version = self.previous(stage)
        if version is not None:
            writes = [*plan_rollback(self.stages, self.aliases, version, stage)]
            changes = [write for write in writes if isinstance(write, SetStage)]
            if self.stages[version] == stage:
                changes.insert(0, SetStage(version, stage))
            self._apply(changes, version, "rollback")
            assert newest(self.stages, stage) == version
        return version

    def _apply(self, writes: list[SetStage], version: str, kind: ChangeKind = "transition") -> None:
        self._at += timedelta(seconds=1)
        for write in writes:
            change = StageChange(
                at=self._at,
                from_stage=self.stages[write.version],
                to_stage=write.stage,
                kind=kind if write.version == version else "archive",
            )
            self.histories[write.version].append(change)
            self.stages[write.version] = write.stage


def test_a_stage_goes_back_to_the_version_before() -> None:
    for archive in (True, False):
        model = Model(v1="none", v2="none")
        model.give("1")
        assert model.previous() is None
        model.give("2", archive=archive)
        assert model.roll_back() == "1"
        assert model.stages == {"1": "production", "2": "archived"}
        assert model.roll_back() is None


def test_one_rollback_after_another_goes_further_back() -> None:
    model = Model(v1="none", v2="none", v3="none", v4="none")
    for version in ("1", "2", "3"):
        model.give(version, archive=True)
    assert [model.roll_back(), model.roll_back(), model.roll_back()] == ["2", "1", None]
    model.give("4", archive=True)
    assert model.roll_back() == "1"


def test_a_version_may_hold_a_stage_twice() -> None:
    model = Model(v1="none", v2="none", v3="none")
    for version in ("1", "2", "1", "3"):
        model.give(version, archive=True)
    assert [model.roll_back(), model.roll_back(), model.roll_back()] == ["1", "2", "1"]


def test_an_emptied_stage_gets_its_last_version_again() -> None:
    model = Model(v1="none")
    model.give("1")
    model.give("1", "archived")
    assert model.roll_back() == "1"


def test_stages_are_apart() -> None:
    model = Model(v1="none", v2="none")
    model.give("1", "staging")
    model.give("2", "staging")
    model.give("1", "production")
    assert model.previous("production") is None
    assert model.previous("staging") is None, "1 has production now and 2 still has staging"


def test_versions_from_before_the_audit_trail_count() -> None:
    model = Model(v1="production", v2="none")
    model.give("2", archive=True)
    assert model.previous() == "1"


def test_what_is_gone_is_passed_over() -> None:
    model = Model(v1="none", v2="none", v3="none")
    for version in ("1", "2", "3"):
        model.give(version, archive=True)
    del model.stages["2"], model.histories["2"]
    assert model.roll_back() == "1"


@settings(deadline=None)  # of a machine that does other things too
@given(
    st.lists(
        st.one_of(
            st.tuples(
                st.integers(0, 3),
                st.sampled_from(["production", "staging", "archived", "none"]),
                st.booleans(),
            ),
            st.none(),
        ),
        max_size=12,
    )
)
def test_rollbacks_end_and_never_return(steps: list[tuple[int, str, bool] | None]) -> None:
    model = Model(v1="none", v2="none", v3="none", v4="none")
    for step in steps:
        if step is None:
            model.roll_back()
        else:
            index, stage, archive = step
            model.give(str(index + 1), stage, archive=archive)
    for _ in range(len(steps) + 1):
        before = newest(model.stages, "production")
        if model.roll_back() is None:
            return
        assert newest(model.stages, "production") != before
    raise AssertionError("rollbacks go on for ever")


def test_a_change_is_read_as_it_was_written() -> None:
    change = StageChange(
        at=START + timedelta(microseconds=7),
        from_stage="none",
        to_stage="production",
        kind="register",
        job_id="job",
        key_id="key",
    )
    name, value = to_tag(change)
    assert name == "stage_history.2026-01-01T00:00:00.000007Z"
    assert value == (
        '{"from":"none","to":"production","kind":"register","job_id":"job","key_id":"key"}'
    )
    others = {"stage": "production", "stage_history.x": "{}", f"{name[:-1]}1Z": "[]"}
    assert read_history({name: value} | others) == (change,)


def test_time_goes_on_though_another_clock_is_ahead() -> None:
    ahead = datetime.now(UTC) + timedelta(hours=1)
    change = StageChange(at=ahead, from_stage="none", to_stage="staging", kind="transition")
    assert next_moment({"1": [change], "2": []}) == ahead + timedelta(microseconds=1)
