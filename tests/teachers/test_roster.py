"""The roster: the paper's seven, a user's additions, and what is wrong with a table."""

from pathlib import Path

import pytest

from cxr_max.costs import Price
from cxr_max.errors import RequestError
from cxr_max.records import Sampling
from cxr_max.teachers.roster import choose, keys_of, load
from cxr_max.teachers.simulator.personas import PERSONAS

SEVEN = {
    "gpt-5-nano",
    "gemini-2.5-flash-lite",
    "claude-sonnet-4",
    "grok-4",
    "qwen-vl-max",
    "glm-4.5v",
    "moonshot-v1",
}


def roster(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def test_the_papers_seven_and_their_personas() -> None:
    everyone = load()
    assert {spec.name for spec in choose(everyone, "all")} == SEVEN
    simulated = choose(everyone, "simulated")
    assert {spec.name for spec in simulated} == {f"sim-{name}" for name in SEVEN} == set(PERSONAS)
    assert {spec.wire for spec in simulated} == {"openai", "anthropic", "gemini"}
    assert all(spec.place == "local" and spec.key is None for spec in simulated)
    assert all(spec.place == "remote" and spec.key for spec in choose(everyone, "all"))


def test_a_persona_speaks_the_wire_that_the_simulator_gives_it() -> None:
    for spec in choose(load(), "simulated"):
        assert PERSONAS[spec.model].wire == spec.wire


def test_a_user_adds_a_teacher(tmp_path: Path) -> None:
    added = load(
        roster(tmp_path, '[mine]\nprovider = "vllm"\nmodel = "q"\nendpoint = "http://127.0.0.1:8000/v1/"\n')
    )
    spec = added["mine"]
    assert (spec.wire, spec.place, spec.endpoint) == ("openai", "local", "http://127.0.0.1:8000/v1")
    assert spec.sampling == Sampling(max_tokens=2048) and spec.price is None


def test_a_user_changes_a_setting_and_keeps_the_others(tmp_path: Path) -> None:
    changed = load(roster(tmp_path, "[gpt-5-nano]\nrpm = 60\nprice = { input = 1, output = 2.5 }\n"))["gpt-5-nano"]
    assert (changed.rpm, changed.model, changed.price) == (60, "gpt-5-nano", Price(1.0, 2.5))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[x]\nprovider = "openia"\nmodel = "m"', r"\[x\] is wrong at 'provider'"),
        ('[x]\nprovider = "openai"', "'model'"),
        ('[x]\nprovider = "openai"\nmodel = "m"\nconcurency = 3', "'concurency'"),
        ('[x]\nprovider = "openai"\nmodel = "m"\nconcurrency = 0', "'concurrency'"),
        ('[x]\nprovider = "openai"\nmodel = "m"\nsampling = { temperature = 3 }', "'sampling.temperature'"),
        ('[x]\nprovider = "vllm"\nmodel = "m"', "needs endpoint"),
        (
            '[x]\nprovider = "vllm"\nmodel = "m"\nendpoint = "https://a.example/v1"\nplace = "local"',
            "declared local",
        ),
        ("x = 1", r"outside a table"),
        ('[sim-grok-4]\nendpoint = "https://api.x.ai/v1"', "simulated, so it has no endpoint"),
        ('[x]\nprovider = "simulated"\nmodel = "m"\nendpoint = "https://a.example"', "has no endpoint"),
        ('[x]\nprovider = "openai"\nmodel = "m"\nendpoint = "https://me:pw@a.example/v1"', "password"),
        ('[x]\nprovider = "openai"\nmodel = "m"\nendpoint = "a.example/v1"', "no plain http"),
        ('[x]\nprovider = "openai"\nmodel = "m"\nendpoint = "file:///etc/passwd"', "no plain http"),
        ('[x]\nprovider = "openai"\nmodel = "m"\nendpoint = "http://[::1/v1"', "no plain http"),
        ('[x]\nprovider = "openai"\nmodel = "m"\nendpoint = "http://127.0.0.1:abc/v1"', "no plain http"),
        ('[x]\nprovider = "openai"\nmodel = "m"\nendpoint = "//127.0.0.1/v1"', "no plain http"),
        ("[x", "cannot be read as TOML"),
    ],
)
def test_a_wrong_table_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        load(roster(tmp_path, text))


def test_a_missing_roster_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"absent\.toml"):
        load(tmp_path / "absent.toml")


@pytest.mark.parametrize("wanted", ["gtp-5", "gpt-5-nano,gtp-5", "", ",", "ALL"])
def test_an_unknown_teacher_is_named(wanted: str) -> None:
    with pytest.raises(RequestError, match="There is no teacher"):
        choose(load(), wanted)


def test_names_are_chosen_once_in_order() -> None:
    assert [spec.name for spec in choose(load(), "grok-4, gpt-5-nano,grok-4")] == ["grok-4", "gpt-5-nano"]


def test_all_missing_keys_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with pytest.raises(RequestError, match="XAI_API_KEY") as caught:
        keys_of(choose(load(), "all"))
    assert "OPENAI_API_KEY" not in str(caught.value) and "MOONSHOT_API_KEY" in str(caught.value)


@pytest.mark.parametrize("key", ["with space", "line\nbreak", "umlaut-ü", " padded"])
def test_a_key_with_odd_characters_is_refused_without_showing_it(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(RequestError, match="OPENAI_API_KEY holds characters") as caught:
        keys_of(choose(load(), "gpt-5-nano"))
    assert key not in str(caught.value)


def test_keys_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    assert keys_of(choose(load(), "gpt-5-nano,sim-grok-4")) == {"gpt-5-nano": "secret", "sim-grok-4": "none"}


def test_limits_and_deadlines_of_a_table(tmp_path: Path) -> None:
    extra = roster(tmp_path, '["grok-4"]\nrpm = 60\ntpm = 30000\ntimeout_s = 90\n')
    mine = load(extra)["grok-4"]
    assert (mine.rpm, mine.tpm, mine.timeout_s) == (60, 30_000, 90.0)
    assert (load()["grok-4"].tpm, load()["grok-4"].timeout_s) == (None, 300.0)


def test_a_student_may_take_its_time(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    mine = load(roster(tmp_path, f'[mine]\nprovider = "student"\nmodel = "{tmp_path}"\n'))["mine"]
    assert mine.timeout_s is None
