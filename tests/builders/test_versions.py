"""A service that changes its model under one's feet: said once while it happens, and after a pause too."""

from pathlib import Path

from aiohttp import web

from tests.background import TEXT, background, roster_of, run
from tests.teachers.scripted import body


def test_another_version_is_said_in_the_run_and_in_the_next_one(tmp_path: Path) -> None:
    served: list[str] = []

    async def changing(request: web.Request) -> web.StreamResponse:
        await request.read()
        version = "m-1" if len(served) < 10 else "m-2" if len(served) < 20 else "m-3"
        served.append(version)
        return body("openai", TEXT, model=version)

    with background(changing) as server:
        roster = roster_of(tmp_path, server, "a")
        asked = ["--source", "phantom", "--roster", roster, "--teachers", "a", "--out", tmp_path / "r"]
        _, _, said = run(*asked, "--studies", 20)
        assert said.count("a now answers as m-2, and answered as m-1 before") == 1 and "m-3" not in said
        _, _, said = run(*asked, "--studies", 25)
        assert said.count("a now answers as m-3, and answered as") == 1
        _, _, said = run(*asked, "--studies", 30)
        assert "now answers" not in said, "it was said before"
