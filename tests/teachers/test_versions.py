"""A service that changes under one's feet is noticed, once."""

from hypothesis import given
from hypothesis import strategies as st

from cxr_max.teachers.versions import Versions


def test_the_first_version_is_no_news_and_a_second_is_said_once() -> None:
    versions = Versions()
    assert versions.seen("a", "m-1") is None
    assert versions.seen("a", "m-1") is None
    said = versions.seen("a", "m-2")
    assert said is not None and said.startswith("a now answers as m-2, and answered as m-1 before")
    assert versions.seen("a", "m-2") is None
    assert versions.seen("a", "m-1") is None, "a service that serves two in turn is said once, not at every reply"


def test_teachers_are_told_apart() -> None:
    versions = Versions()
    assert versions.seen("a", "m-1") is None
    assert versions.seen("b", "m-2") is None


def test_a_reply_that_names_no_version_says_nothing() -> None:
    versions = Versions()
    assert versions.seen("a", None) is None
    assert versions.seen("a", "m-1") is None
    assert versions.seen("a", None) is None


def test_a_resumed_run_is_held_against_its_earlier_replies() -> None:
    versions = Versions({"a": ["m-1", "m-2"]})
    assert versions.seen("a", "m-2") is None
    said = versions.seen("a", "m-3")
    assert said is not None and "m-3, and answered as m-1, m-2 before" in said


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["x", "y", "z", None]))))
def test_as_many_sentences_as_new_versions_but_the_first_of_each(replies: list[tuple[str, str | None]]) -> None:
    versions = Versions()
    said = [teacher for teacher, version in replies if versions.seen(teacher, version) is not None]
    for teacher in "ab":
        distinct = {version for name, version in replies if name == teacher and version is not None}
        assert said.count(teacher) == max(0, len(distinct) - 1)
